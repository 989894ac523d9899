"""Files come back as they were: through a real sshd, confined, by real rsyncs."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.system.confinement import landlock
from tests.integration.programs import Outcome, require_program, run_program
from tests.integration.restore.restorer import (
    LONG_AGO_NS,
    NAMES,
    SOURCE,
    Restorer,
    describe,
)


def test_restores_every_kind_of_file_exactly(restorer: Restorer) -> None:
    """Bytes, owners, modes, times, links, devices, ACLs and attributes."""
    before = restorer.work.stat()
    restorer.run("--restore", SOURCE)
    after = restorer.work.stat()
    restored = restorer.work / "current" / "home" / "data"
    assert describe(restored) == describe(SOURCE)
    assert (restored / "kinds/sparse").stat().st_blocks * 512 < 1 << 20
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    above = restored.parent.stat()
    original = SOURCE.parent.stat()
    assert (above.st_mode, above.st_uid) == (original.st_mode, original.st_uid)


def test_acls_survive_a_change_of_attributes(restorer: Restorer) -> None:
    """The server's rsync drops them then, and they have to be sent once more."""
    for name in ("acl", "inherit"):
        os.setxattr(SOURCE / "metadata" / name, "user.note", b"changed")
    restorer.backup()
    for name in ("user.note", "trusted.note"):
        os.removexattr(SOURCE / "metadata/acl", name)
    restorer.backup()
    restorer.run("--restore", SOURCE / "metadata")
    restored = restorer.work / "current/home/data/metadata"
    assert describe(restored) == describe(SOURCE / "metadata")


def test_restores_single_files_of_any_name(restorer: Restorer) -> None:
    """Each name alone, and many at once, are found and pass rsync's own check."""
    words = [
        "".join("\\" + c if c in "\\*?[]{}" else c for c in os.fsdecode(name))
        for name in NAMES
    ]
    restorer.run("-r", "--", *(f"{SOURCE}/names/{word}" for word in words))
    restored = restorer.work / "current/home/data/names"
    assert {os.fsencode(path.name) for path in restored.iterdir()} == set(NAMES)
    for name in NAMES:
        assert (restored / os.fsdecode(name)).read_bytes() == name
    assert restorer.run("-l", "./-dash", cwd=SOURCE / "names").status == 0


def test_to_and_in_place_leave_directories_above_alone(restorer: Restorer) -> None:
    """An existing file keeps its owner and mode; a missing one is made as it was."""
    target = restorer.work / "target"
    (target / "home").mkdir(parents=True)
    (target / "home").chmod(0o750)
    os.chown(target / "home", 7, 7)
    restorer.run("-r", "--to", target, f"{SOURCE}/metadata/old")
    assert stat.S_IMODE((target / "home").stat().st_mode) == 0o750
    assert (target / "home").stat().st_uid == 7
    made = (target / "home/data/metadata").stat()
    assert made.st_mtime_ns == LONG_AGO_NS
    assert (target / "home/data/metadata/old").read_text() == "old"

    shutil.rmtree(SOURCE / "metadata")
    SOURCE.chmod(0o701)
    restorer.run("-r", "--in-place", "--yes", f"{SOURCE}/metadata/{{old,setuid}}")
    assert stat.S_IMODE(SOURCE.stat().st_mode) == 0o701
    assert (SOURCE / "metadata").stat().st_mtime_ns == LONG_AGO_NS
    assert stat.S_IMODE((SOURCE / "metadata/setuid").stat().st_mode) == 0o4755
    assert sorted(p.name for p in (SOURCE / "metadata").iterdir()) == ["old", "setuid"]


def test_in_place_puts_back_what_was_damaged_today(restorer: Restorer) -> None:
    """Unasked nothing is replaced; then it is, though the damaged file is newer."""
    refused = restorer.run("-r", "--in-place", "/etc/hosts", check=False)
    assert refused.status == 2
    assert "--yes" in refused.stderr
    plain = SOURCE / "names/plain"
    plain.write_text("damaged")
    dry = restorer.run("-r", "--in-place", "--dry-run", plain)
    assert dry.stdout.split() == ["replace", "home/data/names/plain"]
    assert "--keep-newer" in dry.stderr
    assert plain.read_text() == "damaged"
    done = restorer.run("-v", "-r", "--in-place", "--yes", plain)
    assert "restored 1 file" in done.stderr
    assert plain.read_text() == "plain"
    again = restorer.run("-v", "-r", "--in-place", "--yes", plain)
    assert "nothing to restore" in again.stderr
    plain.write_text("damaged again")
    restorer.run("-r", "--in-place", "--yes", "--overwrite", plain)
    assert plain.read_text() == "plain"


def test_to_asks_only_where_it_replaces_something(restorer: Restorer) -> None:
    target = restorer.work / "target"
    restorer.run("-r", "--to", target, SOURCE)
    restorer.run("-r", "--to", target, SOURCE)
    there = target / "home/data/names/plain"
    there.write_text("mine")
    refused = restorer.run("-r", "--to", target, SOURCE, check=False)
    assert refused.status == 2
    assert "--yes" in refused.stderr
    assert there.read_text() == "mine"
    restorer.run("-r", "--to", target, "--keep-newer", SOURCE)
    assert there.read_text() == "mine"
    restorer.run("-r", "--to", target, "--yes", SOURCE)
    assert describe(target / "home/data") == describe(SOURCE)


def test_a_dry_run_says_what_would_be_done(restorer: Restorer) -> None:
    """Whatever is in the way, in names as they are, and though some cannot be done."""
    kept = SOURCE / "names/it is newer"
    kept.write_text("as it was")
    restorer.backup()
    for path in (SOURCE / "names/plain", SOURCE / "kinds/emptydir"):
        path.rmdir() if path.is_dir() else path.unlink()
        path.symlink_to("elsewhere")
    (SOURCE / "names/with space").unlink()
    (SOURCE / "kinds/link").unlink()
    kept.write_text("changed")
    os.utime(kept, (1, 1))
    (SOURCE / "names/-dash").unlink()
    (SOURCE / "names/-dash").mkdir()
    (SOURCE / "names/-dash/full").touch()
    (SOURCE / "names/back\\slash").unlink()
    dry = restorer.run("-r", "-n", "--in-place", SOURCE, check=False)
    assert dry.status == 3
    assert "not restored: '/home/data/names/-dash': " in dry.stderr
    assert "1 name of what was asked for could not be restored" in dry.stderr
    # A file with attributes of both root and users is always to be adjusted.
    files = [
        line for line in dry.stdout.splitlines() if not line.endswith(("/", "/acl"))
    ]
    assert sorted(files) == [
        "create  home/data/kinds/link",
        "create  home/data/names/back\\\\slash",
        "create  home/data/names/with space",
        "replace home/data/names/it is newer",
        "replace home/data/names/plain",
    ]
    assert "replace home/data/kinds/emptydir/" in dry.stdout
    done = restorer.run("-r", "--yes", "--in-place", SOURCE, check=False)
    assert done.status == 3
    told = [line for line in dry.stderr.splitlines() if "--keep-newer" not in line]
    assert done.stderr.splitlines() == told
    (SOURCE / "names/-dash/full").unlink()
    restorer.run("-r", "--yes", "--in-place", SOURCE)
    after = restorer.run("-r", "-n", "--in-place", SOURCE).stdout
    assert after.split() in ([], ["adjust", "home/data/metadata/acl"])
    target = restorer.run("-r", "-n", "--to", "x", SOURCE / "names/plain").stdout
    made = ["home/", "home/data/", "home/data/names/", "home/data/names/plain"]
    assert target.splitlines() == [f"create  {name}" for name in made]


@pytest.fixture
def taken_over(tmp_path: Path) -> Iterator[Path]:
    """An ssh that does what an rsync in a hostile server's hands might: its results."""
    if not landlock.is_available():
        pytest.skip("Landlock does not work here")
    results = tmp_path / "results"
    results.mkdir()
    target = tmp_path / "work" / "target"
    ssh = Path("/usr/local/sbin/ssh")
    ssh.write_text(
        f"""#!/bin/sh
case "$*" in *--sender*)
    {{ touch "{results}/outside"; touch "{target}/inside"; }} 2>/dev/null
esac
exec /usr/bin/ssh "$@"
"""
    )
    ssh.chmod(0o755)
    yield results
    ssh.unlink()


def test_a_restore_writes_nowhere_else(restorer: Restorer, taken_over: Path) -> None:
    """Whatever the server sends, nor in a dry run at all; in place it writes."""
    target = restorer.work / "target"
    target.mkdir()
    restorer.run("-r", "--dry-run", "--to", target, SOURCE)
    assert list(target.iterdir()) == []
    restorer.run("-r", "--to", target, SOURCE)
    assert describe(target / "home/data") == describe(SOURCE)
    assert (target / "inside").exists()
    assert list(taken_over.iterdir()) == []
    restorer.run("-r", "--in-place", "--yes", SOURCE)
    assert (taken_over / "outside").exists()


def test_the_root_itself_is_not_touched(restorer: Restorer) -> None:
    """Restoring all of it gives no directory of the user's the root's metadata."""
    target = restorer.work / "target"
    target.mkdir(mode=0o700)
    os.chown(target, 7, 7)
    restorer.run("-r", "--to", target, "/")
    assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_uid) == (0o700, 7)
    assert describe(target / "home/data") == describe(SOURCE)
    assert (target / "etc/hosts").read_text() == Path("/etc/hosts").read_text()
    restorer.run("-r", "/")
    assert describe(restorer.work / "current/home/data") == describe(SOURCE)


def test_an_ordinary_user_restores_what_is_his_to_have(restorer: Restorer) -> None:
    """With a key of his own to read; owners stay his, and one line says so."""
    key = restorer.work / "key"
    shutil.copy(restorer.client.configuration / "key", key)
    os.chown(restorer.work, 65534, 65534)
    os.chown(key, 65534, 65534)
    key.chmod(0o600)
    for directory in restorer.work.parents:
        directory.chmod(directory.stat().st_mode | 0o011)
    outcome = run_program(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"),
            *(restorer.client.bin / "byteback-restore", "-v", "-r", "-k", key),
            *(f"{SOURCE}/names/*", f"{SOURCE}/metadata/old"),
        ],
        check=False,
        cwd=restorer.work,
        env={"HOME": "/nonexistent"},
    )
    assert outcome.status == 0, outcome.stderr
    assert "owners could not be restored" in outcome.stderr
    restored = restorer.work / "current/home/data/names/plain"
    assert restored.read_text() == "plain"
    assert restored.stat().st_uid == 65534


def on_terminal(restorer: Restorer, *words: str | Path, answer: str) -> Outcome:
    """Run byteback-restore on a terminal of its own, and type ``answer``."""
    program = restorer.client.bin / "byteback-restore"
    command = shlex.join([os.fspath(word) for word in (program, *words)])
    return run_program(
        [require_program("script"), "-qefc", command, "/dev/null"],
        check=False,
        stdin=answer,
        cwd=restorer.work,
    )


def test_in_place_asks_on_a_terminal(restorer: Restorer) -> None:
    """No means no, and yes is followed by progress on the same terminal."""
    plain = SOURCE / "names/plain"
    plain.write_text("changed")
    os.utime(plain, (1, 1))
    no = on_terminal(restorer, "-r", "--in-place", plain, answer="n\n")
    assert no.status == 1
    assert f"current: {plain}" in no.stdout
    assert f"replaces {plain}" in no.stdout
    assert plain.read_text() == "changed"
    yes = on_terminal(restorer, "-r", "--in-place", plain, answer="y\n")
    assert yes.status == 0, yes.stdout
    assert plain.read_text() == "plain"
    assert "100%" in yes.stdout
    assert "restored 1 file from current" in yes.stdout
