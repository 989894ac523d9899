"""The machine's copy and the fixtures, on which the other tests stand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import CHECKOUT, ServerUser, SshServer
from tests.integration.programs import do_without, run_program
from tests.waiting import wait_until

MACHINE = CHECKOUT / "tests" / "machine"


def test_machine_is_a_copy_of_its_own() -> None:
    assert os.environ["BYTEBACK_TEST_MACHINE"] == "1"
    assert os.path.ismount("/run")
    before = run_program(["hostname"]).stdout.strip()
    assert run_program(["hostname", "copy.example"]).status == 0
    run_program(["hostname", before])
    assert "LOOPBACK,UP" in run_program(["ip", "link", "show", "lo"]).stdout


def test_user_can_delete_own_subvolumes(server_user: ServerUser) -> None:
    subvolume = server_user.home / "subvolume"
    as_user = ["setpriv", "--reuid", str(server_user.uid), "--clear-groups"]
    as_user += ["--regid", str(server_user.gid), "btrfs", "subvolume"]
    run_program([*as_user, "create", subvolume])
    run_program([*as_user, "delete", subvolume])
    assert not subvolume.exists()


def test_user_can_log_in(
    server_user: ServerUser, sshd: SshServer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(sshd.known_hosts + "\n")
    authorized = server_user.home / ".ssh" / "authorized_keys"
    authorized.write_text(key.with_suffix(".pub").read_text())
    os.chown(authorized, server_user.uid, server_user.gid)
    outcome = run_program(
        [
            *("ssh", "-i", key, "-p", str(sshd.port), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={known_hosts}", "byteback@127.0.0.1"),
            "id -un",
        ]
    )
    assert outcome.stdout == "byteback\n"


def test_every_user_can_run_the_programs(
    installed: Path, server_user: ServerUser
) -> None:
    as_user = ["setpriv", "--reuid", str(server_user.uid), "--clear-groups"]
    for launcher in sorted(installed.glob("byteback-*")):
        assert run_program([*as_user, "head", "-c", "1", launcher]).stdout == "#"


@pytest.fixture
def copying() -> None:
    """Overlays lie on one another two deep at most: a copy's copy has none."""
    tried = run_program([MACHINE, "true"], check=False)
    if "cannot mount an overlay" in tried.stderr:
        do_without("this copy is of a copy itself, and can have none of its own")


@pytest.mark.usefixtures("copying")
def test_nothing_done_to_a_copy_stays() -> None:
    """Here the machine that is copied is itself a copy, so nothing is at risk."""
    changes = "useradd stranger && touch /etc/new /usr/new && mount -t tmpfs x /srv"
    outcome = run_program([MACHINE, "sh", "-c", f"{changes}; exit 7"], check=False)
    assert outcome.status == 7
    assert run_program(["id", "stranger"], check=False).status == 1
    assert not Path("/etc/new").exists()
    assert not Path("/usr/new").exists()
    assert not os.path.ismount("/srv")


@pytest.mark.usefixtures("copying")
def test_copy_takes_its_input_and_environment() -> None:
    outcome = run_program(
        [MACHINE, "sh", "-c", 'cat; echo "$GREETING"'],
        stdin="hello\n",
        env={"GREETING": "hi"},
    )
    assert outcome.stdout == "hello\nhi\n"


@pytest.mark.usefixtures("copying")
@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_copy_vanishes_when_it_is_killed(signal_name: str) -> None:
    mark = f"{4000 + os.getpid()}"
    with subprocess.Popen([MACHINE, "sleep", mark]) as machine:
        wait_until(lambda: is_asleep(mark))
        run_program(["kill", f"-{signal_name}", str(machine.pid)])
    wait_until(lambda: not is_asleep(mark))
    assert not list(Path("/var/tmp").glob("byteback-machine.*"))


def is_asleep(mark: str) -> bool:
    """True if a process ``sleep MARK`` lives."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if line.read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False
