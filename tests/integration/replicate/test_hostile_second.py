"""As the holder of a second server's key: all finished snapshots, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.programs import run_program
from tests.integration.replicate.world import NAME, USER, First, Second
from tests.waiting import PATIENCE_S, wait_until

Servers = tuple[First, Second]
FETCH = "byteback-replicate --fetch www SNAPSHOT"
SENDER = "--server --sender -logDtpre.iLsfxCIvu . ./"


@pytest.fixture(scope="module")
def snapshot(servers: Servers) -> str:
    """A client whose current holds more than its snapshot."""
    first, _ = servers
    (name,) = first.history("www", 2)
    first.write("www", "etc/later", b"not finished")
    first.client("other")
    return name


def fetch(second: Second, target: Path, request: str, *options: str) -> int:
    """rsync by hand with the second server's key; its exit status."""
    target.mkdir(exist_ok=True)
    shell = " ".join(map(str, second.ssh()[:-1]))
    argv = ["rsync", "-r", *options, "-e", shell, f"--rsync-path={request}"]
    found = run_program([*argv, f"{second.ssh()[-1]}:./", target], check=False)
    return found.status


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "true",
        "byteback-receive --ping",
        "byteback-receive --complete",
        "byteback-receive --find",
        "rsync --fake-super --server -logDtpre.iLsfxCIvu . .",
        "rsync --server --sender -logDtpre.iLsfxCIvu . /",
        "byteback-restore --fake-super --snapshot * " + SENDER,
        "byteback-replicate --list --all",
        "byteback-replicate --list; id",
        "byteback-replicate --list\nid",
        "byteback-replicate --fetch www",
        f"byteback-replicate --fetch www current {SENDER}",
        f"byteback-replicate --fetch www .. {SENDER}",
        f"byteback-replicate --fetch .ssh SNAPSHOT {SENDER}",
        f"byteback-replicate --fetch .byteback SNAPSHOT {SENDER}",
        f"byteback-replicate --fetch ../www SNAPSHOT {SENDER}",
        f"byteback-replicate --fetch nobody SNAPSHOT {SENDER}",
        f"byteback-replicate --fetch other SNAPSHOT {SENDER}",
        f"byteback-replicate --fetch www 1999-01-01T00:00+0000 {SENDER}",
        "byteback-replicate --fetch www SNAPSHOT --server -logDtpre.iLsfxCIvu . ./",
        "byteback-replicate --fetch www SNAPSHOT --sender -logDtpr . ./",
        "byteback-replicate --fetch www SNAPSHOT --server --sender -logDtpr",
        "byteback-replicate --fetch www SNAPSHOT --server --sender -Llogr . /etc",
        "byteback-replicate --fetch www SNAPSHOT --server --sender -slogr . ./",
        f"{FETCH} --since=current, {SENDER}",
        f"{FETCH} --since=../other {SENDER}",
        f"{FETCH} --since=1999-01-01T00:00+0000,/etc {SENDER}",
        f"{FETCH} --server --sender -r --remove-source-files . ./",
        f"{FETCH} --server --sender -r --log-file=/tmp/x . ./",
        "byteback-replicate --fetch www SNAPSHOT --daemon --config=x . ./",
        "byteback-replicate --fetch www SNAPSHOT --server --sender -e./x . ./",
    ],
)
def test_requests_that_are_refused(
    servers: Servers, snapshot: str, request_: str
) -> None:
    first, second = servers
    before = first.listing("www")
    refused = second.session(request_.replace("SNAPSHOT", snapshot))
    assert refused.status != 0, refused
    assert refused.stdout == ""
    assert "uid=" not in refused.stderr
    assert first.listing("www") == before


def test_the_control_works(servers: Servers, snapshot: str, tmp_path: Path) -> None:
    """What is asked for in the right words is there: the snapshot, not current."""
    _, second = servers
    listed = second.session("byteback-replicate --list")
    assert listed.status == 0
    assert snapshot in listed.stdout
    assert "current" not in listed.stdout
    program = f"byteback-replicate --fetch www {snapshot}"
    assert fetch(second, tmp_path / "got", program) == 0
    assert (tmp_path / "got" / "etc" / "day").read_text() == "2"
    assert not (tmp_path / "got" / "etc" / "later").exists()


def test_no_path_leads_out(servers: Servers, snapshot: str, tmp_path: Path) -> None:
    """The path is the server's own, and rules that name files find none."""
    _, second = servers
    secret = second.first.root / ".ssh" / "authorized_keys"
    program = f"byteback-replicate --fetch www {snapshot}"
    target = tmp_path / "got"
    target.mkdir()
    shell = " ".join(map(str, second.ssh()[:-1]))
    for path in ("/etc/", f"{secret}", "../../.ssh/", "./../../other/"):
        argv = ["rsync", "-r", "-e", shell, f"--rsync-path={program}"]
        run_program([*argv, f"{second.ssh()[-1]}:{path}", target], check=False)
        found = {item.name for item in target.rglob("*")}
        assert found <= {"etc", "day"}, (path, found)
    for rule in (f"dir-merge,- {secret}", "dir-merge,- ../../.ssh/authorized_keys"):
        status = fetch(second, tmp_path / "rules", program, f"--filter={rule}")
        assert status in (0, 12, 13, 23), rule
        found = {item.name for item in (tmp_path / "rules").rglob("*")}
        assert found <= {"etc", "day"}


def test_a_key_that_is_taken_away_opens_nothing(
    servers: Servers, snapshot: str
) -> None:
    """On a connection that was there before neither, and a transfer is ended."""
    first, second = servers
    socket = Path("/run/replica.socket")
    words = [str(word) for word in second.ssh()]
    shared = [*words[:-1], "-o", f"ControlPath={socket}", words[-1]]
    master = subprocess.Popen([*shared[:-1], "-M", "-N", shared[-1]])
    try:
        wait_until(socket.exists)
        listing = "byteback-replicate --list"
        assert run_program([*shared, listing], check=False).status == 0
        assert NAME in first.clients("replica").stdout
        request = f"byteback-replicate --fetch www {snapshot} {SENDER}"
        transfer = subprocess.Popen(
            [*shared, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert transfer.stdout is not None
        assert transfer.stdout.read(4) != b""  # rsync runs, and waits for a word
        told = first.clients("replica", NAME, "--revoke").stdout
        assert f"ended 1 session of {NAME}" in told
        transfer.communicate(timeout=PATIENCE_S)
        assert transfer.returncode != 0
        assert run_program(["pgrep", "-u", USER, "rsync"], check=False).status == 1
        refused = run_program([*shared, listing], check=False)
        assert refused.status == 9
        assert refused.stdout == ""
        assert first.clients("replica").stdout == ""
        told = second.replicate(status=12).stderr
        assert "cannot be reached" in told
    finally:
        master.terminate()
        master.wait(PATIENCE_S)
        first.clients("replica", NAME, "--key", second.directory / "key.pub")
    assert second.session("byteback-replicate --list").status == 0


def test_a_key_has_one_use(servers: Servers) -> None:
    first, second = servers
    key = second.directory / "key.pub"
    refused = first.clients("replica", "another.example", "--key", key, status=9)
    assert f"as '{NAME}'" in refused.stderr
    for words in (("x",), ("--revoke",), ("a/b", "--key", key)):
        first.clients("replica", *words, status=2)
    first.clients("replica", "nobody", "--revoke", status=10)
    before = (first.root / ".ssh" / "authorized_keys").read_bytes()
    first.clients("replica", NAME, "--key", key)
    assert (first.root / ".ssh" / "authorized_keys").read_bytes() == before
