"""What is found, listed and chosen to come back."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
from pathlib import Path

from byteback.model.listing import HEADER
from tests.integration.programs import run_program
from tests.integration.restore.restorer import LONG_AGO_NS, NAMES, SOURCE, Restorer
from tests.waiting import wait_until


def test_lists_what_was_backed_up(restorer: Restorer) -> None:
    """Owner, mode, device and target as on the client, not as in the store."""
    entries = {e["path"]: e for e in restorer.entries(f"{SOURCE}/**/{{*,.*}}")}
    assert entries[f"{SOURCE}/kinds/null"]["device"] == [1, 3]
    assert entries[f"{SOURCE}/kinds/link"]["target"] == "file"
    assert entries[f"{SOURCE}/metadata/setuid"]["mode"] == stat.S_IFREG | 0o4755
    assert entries[f"{SOURCE}/metadata/setuid"]["uid"] == 54321
    assert entries[f"{SOURCE}/metadata/old"]["mtime_ns"] == LONG_AGO_NS
    for path, entry in entries.items():
        status = os.lstat(path)
        assert entry["mode"] == status.st_mode, path
        assert (entry["uid"], entry["gid"]) == (status.st_uid, status.st_gid), path
        if not stat.S_ISDIR(status.st_mode):
            assert entry["size"] == status.st_size, path
    for name in NAMES:
        assert f"{SOURCE}/names/{os.fsdecode(name)}" in entries
    table = restorer.run("-H", f"{SOURCE}/names/*", f"{SOURCE}/kinds/*").stdout
    assert "new\\nline" in table
    assert "\\xff\\xfe" in table
    header, dashes, *rows = table.splitlines()
    assert header.split() == list(HEADER)
    assert set(dashes) == {"-"}
    assert {row[header.index("path")] for row in rows} == {"/"}


def test_versions_are_told_apart_and_restored(restorer: Restorer) -> None:
    """--all finds each version, --snapshot one of them, and gone files are found."""
    restorer.snapshot("2026-01-01T00:00+0000")
    plain = SOURCE / "names/plain"
    plain.write_text("second version")
    (SOURCE / "names/a:b").unlink()
    restorer.backup()
    restorer.snapshot("2026-01-02T00:00+0000")

    versions = restorer.entries("--all", plain)
    assert [e["size"] for e in versions] == [len("second version"), len("plain")]
    # Either the snapshot that the first backup took, or the test's: both hold it.
    assert versions[1]["snapshot"] not in ("current", "2026-01-02T00:00+0000")
    assert versions[1]["first_seen"] == "2026-01-01T00:00+0000"
    copies = restorer.entries("--verbose", plain)
    assert len(copies) >= 3
    assert copies[-1]["snapshot"] == "current"
    [gone] = restorer.entries(SOURCE / "names/a:b")
    assert gone["snapshot"] not in ("current", "2026-01-02T00:00+0000")

    restorer.run("-r", "-s", "2026-01-01T00:00+0000", plain)
    restored = restorer.work / "2026-01-01T00:00+0000/home/data/names/plain"
    assert restored.read_text() == "plain"
    restorer.run("-r", "--all", "--to", "versions", plain)
    found = sorted(
        p.read_text() for p in (restorer.work / "versions").glob(f"*{plain}")
    )
    assert found == ["plain", "second version"]


def test_an_unfinished_backup_is_not_the_newest_copy(restorer: Restorer) -> None:
    """The newest snapshot comes first then, and the listing says why."""
    restorer.snapshot("2026-01-01T00:00+0000")
    [before] = restorer.entries("/etc/hosts")
    assert before["snapshot"] == "current"
    plain = SOURCE / "names/plain"
    plain.write_bytes(os.urandom(30 << 20))
    rsync_flags = restorer.client.configuration / "rsync_flags"
    rsync_flags.write_text("--bwlimit=512K\n")  # a minute for all of it
    program = restorer.client.bin / "byteback-backup"
    arriving = restorer.client.current / plain.relative_to("/")
    with subprocess.Popen([program, "--source", SOURCE]) as backup:
        wait_until(lambda: arriving.stat().st_size > 1 << 20)
        backup.kill()
    assert backup.returncode == -signal.SIGKILL
    outcome = restorer.run("--json", "/etc/hosts")
    # That of the first backup.
    newest = json.loads(outcome.stdout)["snapshot"]
    assert newest not in ("current", "2026-01-01T00:00+0000")
    assert "never finished" in outcome.stderr


def test_no_match_and_no_snapshot_are_failures(restorer: Restorer) -> None:
    """They say so, and exit with a status that a script can test."""
    nothing = restorer.run("/no/such/file", check=False)
    assert nothing.status == 1
    assert "nothing in the backups matches '/no/such/file'" in nothing.stderr
    snapshot = restorer.run("-s", "2001*", "/etc/hosts", check=False)
    assert snapshot.status == 9
    assert "there is no snapshot '2001*'" in snapshot.stderr
    odd = restorer.run("-s", "../x", "/etc/hosts", check=False)
    assert odd.status == 2
    assert list(restorer.work.iterdir()) == []


def test_thousands_of_matches(restorer: Restorer) -> None:
    """More names than any command line holds."""
    many = SOURCE / "many"
    many.mkdir()
    for number in range(4000):
        (many / f"{'long name ' * 20}{number}").touch()
    restorer.backup()
    assert len(restorer.entries(f"{SOURCE}/many/*")) == 4000
    restorer.run("-r", f"{SOURCE}/many/*")
    assert len(list((restorer.work / "current/home/data/many").iterdir())) == 4000


def old_ssh(restorer: Restorer) -> list[str]:
    """ssh as the Ruby tool's client called it."""
    configuration = restorer.client.configuration
    options = [
        *("BatchMode=yes", "HostKeyAlias=127.0.0.1"),
        f"UserKnownHostsFile={configuration}/known_hosts",
    ]
    words = ["ssh", "-i", f"{configuration}/key", "-p", str(restorer.client.port)]
    return [*words, *(f"-o{option}" for option in options)]


def test_old_clients_can_list(restorer: Restorer) -> None:
    """A table on standard output, with the patterns quoted-printable."""
    target = f"{restorer.client.user.name}@127.0.0.1"
    patterns = f"{SOURCE}/names/with=20space {SOURCE}/kinds/link"
    request = f"byteback-receive --snapshot * --list --all  {patterns}"
    outcome = run_program([*old_ssh(restorer), target, request])
    header, dashes, link, space = outcome.stdout.splitlines()
    assert header.split() == list(HEADER)
    assert set(dashes) == {"-"}
    assert link.endswith(f"{SOURCE}/kinds/link -> file")
    assert space.endswith(f"{SOURCE}/names/with space")
    nothing = f"byteback-receive --snapshot * --list {SOURCE}/no=20such /\x1b[2J"
    outcome = run_program([*old_ssh(restorer), target, nothing])
    assert outcome.stdout.splitlines() == [
        "** Sorry.  There were no files matching:",
        f"--> {SOURCE}/no such",
        "--> /\\x1b[2J",
    ]


def test_old_clients_can_restore(restorer: Restorer) -> None:
    """The Ruby tool's requests still work, as far as rsync lets them."""
    target = f"{restorer.client.user.name}@127.0.0.1"
    run_program(
        [
            *("rsync", "--archive", "--numeric-ids", "--inplace", "--relative"),
            *("--compress", "--timeout", "300", "--trust-sender"),
            *("--rsh", shlex.join(old_ssh(restorer))),
            *("--rsync-path", "byteback-restore --fake-super --snapshot *"),
            *(f"{target}:{SOURCE}/names/with=20space", f":{SOURCE}/kinds/{{link,f*}}"),
            f"{restorer.work}/",
        ]
    )
    restored = restorer.work / "current/home/data"
    assert (restored / "names/with space").read_text() == "with space"
    assert (restored / "kinds/link").readlink() == Path("file")
    assert (restored / "kinds/file").stat().st_size == 100_000
