"""A first server that is this machine, and a second one in its own mount namespace.

The second has its own /etc, its own /var/lib/byteback, its own store on a volume of its
own, and a user byteback of another number. It reaches the first one by a real sshd, and
over a cable where it has a network of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from byteback.model.snapshot import format_snapshot_name
from byteback.server.setup import schedule
from tests.integration.conftest import ServerUser, SshServer, mounted_volume
from tests.integration.programs import Outcome, run_program
from tests.integration.sealing.store import become
from tests.waiting import PATIENCE_S, wait_until

USER = "byteback"
SECOND_UID = 4711
SOURCE = "127.0.0.1"  # what the second server calls the first one
NAME = "second.example"  # what the first server calls the second one
UNITS = Path(schedule.__file__).with_name("units")
CABLE = ("192.0.2.1", "192.0.2.2")  # the addresses at its ends (RFC 5737)


class First:
    """The first server: a store of this machine's, with clients that tests make up."""

    def __init__(self, user: ServerUser, programs: Path, sshd: SshServer) -> None:
        self.user = user
        self.root = user.home
        self.programs = programs
        self.sshd = sshd
        # Of all dates: the same age is the same name, also when the minute is over.
        self._now = datetime.now(UTC)

    def client(self, name: str) -> Path:
        """The directory of a new client; an old one's is left as it is."""
        directory = self.root / name
        if not directory.exists():
            with become(self.user):
                directory.mkdir(mode=0o700)
            self.as_user("btrfs", "subvolume", "create", directory / "current")
        return directory

    def fill(self, name: str, source: Path, *options: str) -> None:
        """Make ``current`` what ``source`` is, as a client's push does."""
        current = self.client(name) / "current"
        as_user = f"runuser -u {USER} -- rsync --fake-super"
        run_program(
            [
                *("rsync", "--archive", "--acls", "--xattrs", "--hard-links"),
                *("--numeric-ids", "--delete", "--inplace", "--no-whole-file"),
                *(
                    "--modify-window=-1",
                    *options,
                    "-e",
                    "sh -c 'shift; eval \"$@\"' sh",
                ),
                *(f"--rsync-path={as_user}", f"{source}/", f"here:{current}/"),
            ]
        )

    def snapshot(self, name: str, days_old: float) -> str:
        """Take a snapshot of ``current``, dated so many days ago; its name."""
        made = format_snapshot_name(self._now - timedelta(days=days_old))
        place = self.root / name
        self.as_user(
            "btrfs", "subvolume", "snapshot", "-r", place / "current", place / made
        )
        return made

    def write(self, name: str, path: str, content: bytes) -> None:
        """Change one file in a client's ``current``."""
        place = self.client(name) / "current" / path
        with become(self.user):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def history(self, name: str, *days: float) -> list[str]:
        """A client with a small snapshot for each day; their names."""
        made = []
        for day in days:
            self.write(name, "etc/day", str(day).encode())
            made.append(self.snapshot(name, day))
        return made

    def delete(self, name: str, snapshot: str) -> None:
        """Delete a snapshot, as pruning does."""
        path = self.root / name / snapshot
        self.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "false")
        self.as_user("btrfs", "subvolume", "delete", path)

    def listing(self, name: str) -> str:
        """All files of a client, with their times and sizes."""
        return run_program(["find", self.root / name, "-printf", "%p %T@ %s\n"]).stdout

    def as_user(self, *words: str | Path) -> Outcome:
        return run_program(["runuser", "-u", USER, "--", *words])

    def clients(self, *words: str | Path, status: int = 0) -> Outcome:
        """byteback-clients on the first server."""
        argv = [self.programs / "byteback-clients", *words]
        outcome = run_program(argv, check=False)
        assert outcome.status == status, outcome
        return outcome


class Second:
    """The second server; what is run there is run in its namespace."""

    def __init__(
        self, pid: int, root: Path, etc: Path, first: First, source: str = SOURCE
    ) -> None:
        self.pid = pid
        self.root = root
        self.etc = etc
        self.first = first
        self.source = source
        self.destination = f"ssh://{USER}@{source}:{first.sshd.port}/"

    def inside(self, *words: str | Path) -> list[str | Path]:
        """A command line that runs there."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "--", *words]

    def run(self, *words: str | Path, status: int = 0, stdin: str = "") -> Outcome:
        argv = self.inside(*words)
        outcome = run_program(argv, check=False, stdin=stdin, timeout_s=1800)
        assert outcome.status == status, outcome
        return outcome

    def program(self, name: str, *words: str | Path, status: int = 0) -> Outcome:
        """One of byteback's programs, as root there."""
        return self.run(self.first.programs / name, *words, status=status)

    def replicate(self, *words: str, status: int = 0) -> Outcome:
        return self.program("byteback-replicate", *words, status=status)

    def replicate_as_unit(self, *words: str) -> Outcome:
        """byteback-replicate as far from the rest as its unit of systemd keeps it."""
        unit = (UNITS / "byteback-replicate.service").read_text()
        options = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
        kept = options["CapabilityBoundingSet"].lower().split()
        bounds = ",".join(["-all", *(name.replace("cap_", "+") for name in kept)])
        assert options["NoNewPrivileges"] == options["PrivateTmp"] == "yes"
        assert options["ProtectSystem"] == "full"
        script = (
            "for place in /boot /etc /usr; do"
            ' mount --rbind "$place" "$place" && mount -o remount,bind,ro "$place"'
            " || exit 99; done; mount -t tmpfs -o mode=1777 tmp /tmp || exit 99; "
            f"umask {options['UMask']}; exec setpriv --no-new-privs --inh-caps=-all "
            f'--bounding-set={bounds} "$@"'
        )
        program = self.first.programs / "byteback-replicate"
        return self.run("unshare", "--mount", "sh", "-c", script, "sh", program, *words)

    def as_user(self, *words: str | Path) -> Outcome:
        return self.run("runuser", "-u", USER, "--", *words)

    def settings(self, text: str) -> None:
        (self.etc / "byteback" / "server.toml").write_text(text)

    def set_up(self) -> str:
        """Have the first server let this one in; the public key."""
        shown = self.replicate(
            *("--set-up", "--from", self.destination, "--accept-new-host-key")
        ).stdout
        key = self.directory / "key.pub"
        assert key.read_text().strip() in shown
        self.first.clients("replica", NAME, "--key", key)
        return key.read_text()

    @property
    def directory(self) -> Path:
        """Where the second server keeps what it knows of the first one."""
        return self.etc / "byteback" / "replicate" / self.source

    def snapshots(self, client: str) -> list[str]:
        return sorted(path.name for path in (self.root / client).glob("2*"))

    def state(self, client: str) -> str:
        text = (self.root / ".byteback" / "hosts" / f"{client}.state").read_text()
        return text.split()[0]

    def round(self) -> dict[str, object]:
        """The record of the last round."""
        path = self.root / ".byteback" / "replicas" / f"{self.source}.json"
        found: dict[str, object] = json.loads(path.read_text())
        return found

    def session(self, command: str, *, stdin: str = "") -> Outcome:
        """A session with the replica's key on the first server, whatever it asks."""
        return run_program([*self.ssh(), command], check=False, stdin=stdin)

    def ssh(self) -> list[str | Path]:
        return [
            *("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.directory / 'known_hosts'}"),
            *("-o", f"HostKeyAlias={self.source}", "-p", str(self.first.sshd.port)),
            *("-i", str(self.directory / "key"), f"{USER}@127.0.0.1"),
        ]


@contextlib.contextmanager
def cable(first: First, pid: int) -> Iterator[str]:
    """A cable to the network namespace of ``pid``; the first server's address on it."""
    here, there = CABLE
    inside = ["nsenter", "-t", str(pid), "-n"]
    peer = ("peer", "name", "uplink", "netns", str(pid))
    run_program(["ip", "link", "add", "downlink", "type", "veth", *peer])
    for where, end, address in (([], "downlink", here), (inside, "uplink", there)):
        run_program([*where, "ip", "address", "add", f"{address}/24", "dev", end])
        run_program([*where, "ip", "link", "set", end, "up"])
    place = first.sshd.log.parent
    text = (place / "sshd_config").read_text()
    try:
        (place / "sshd_config").write_text(f"{text}ListenAddress {here}\n")
        os.kill(int((place / "pid").read_text()), signal.SIGHUP)
        port = first.sshd.port
        wait_until(lambda: listens(here, port), "sshd does not listen to the cable")
        yield here
    finally:
        (place / "sshd_config").write_text(text)
        os.kill(int((place / "pid").read_text()), signal.SIGHUP)
        wait_until(lambda: listens(SOURCE, first.sshd.port))


def listens(address: str, port: int) -> bool:
    """True if a connection can be made."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def second_server(
    first: First, volume_size: int, *, is_apart: bool = False
) -> Iterator[Second]:
    """A machine with files and a store of its own, not set up to fetch yet.

    One that ``is_apart`` has its own network as well, and a cable to the first.
    """
    with contextlib.ExitStack() as stack:
        volume = stack.enter_context(mounted_volume(volume_size))
        place = Path(tempfile.mkdtemp(prefix="second-", dir="/srv"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        etc, state = place / "etc", place / "state"
        state.mkdir()
        run_program(["cp", "--archive", "/etc", etc])
        shutil.rmtree(etc / "byteback", ignore_errors=True)
        (etc / "byteback").mkdir(mode=0o755)
        for name in ("passwd", "group", "shadow", "gshadow"):
            lines = (etc / name).read_text().splitlines()
            kept = [line for line in lines if not line.startswith(f"{USER}:")]
            (etc / name).write_text("".join(f"{line}\n" for line in kept))
        with (etc / "passwd").open("a") as file:
            numbers = f"{SECOND_UID}:{SECOND_UID}"
            file.write(f"{USER}:*:{numbers}::{volume}:/bin/sh\n")
        with (etc / "group").open("a") as file:
            file.write(f"{USER}:x:{SECOND_UID}:\n")
        Path("/var/lib/byteback").mkdir(mode=0o755, exist_ok=True)
        script = (
            f"mount --bind {etc} /etc && mount --bind {state} /var/lib/byteback && "
            "touch /var/lib/byteback/ready && exec sleep infinity"
        )
        spaces = ["--mount", *(["--net"] if is_apart else [])]
        holder = subprocess.Popen(["unshare", *spaces, "sh", "-c", script])
        stack.callback(holder.wait, PATIENCE_S)
        stack.callback(holder.kill)
        wait_until((state / "ready").exists)
        os.chown(volume, SECOND_UID, SECOND_UID)
        source = SOURCE
        if is_apart:
            source = stack.enter_context(cable(first, holder.pid))
        second = Second(holder.pid, volume, etc, first, source)
        second.program("byteback-setup-server", "--directory", volume, "--no-schedule")
        try:
            yield second
        finally:
            run_program(["pkill", "-KILL", "-u", str(SECOND_UID)], check=False)
