"""A file system that does not answer neither stops, delays nor hangs a backup."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.client.backup import mount_points, notices, own_files, sources
from byteback.client.backup.rules import Request, select
from byteback.client.settings import Files
from byteback.errors import BytebackError, UsageError
from byteback.system import mounts
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, require_program, run_program
from tests.integration.selection.mounted import Fuse, fuse, mounted, write_below

# In an ordinary user's, root is refused; a killed server's is an error; a stopped one
# never answers.
KINDS = ("users", "killed", "stopped")


@pytest.fixture
def source() -> Iterator[Path]:
    """A small tree with a directory to mount at, and files beside it."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        source = Path(directory)
        source.chmod(0o755)
        for name in ("shown", "mnt/far", "home"):
            (source / name).mkdir(parents=True)
        for name in ("shown/secret", "home/a", "home/b", "mnt/beside"):
            (source / name).write_text(name)
        yield source


@contextlib.contextmanager
def odd(kind: str, source: Path) -> Iterator[Fuse]:
    """A FUSE mount at mnt/far that cannot be examined."""
    with fuse(source / "shown", source / "mnt/far", as_stranger=kind == "users") as it:
        write_below(it.point, "hidden")
        if kind == "killed":
            it.kill()
        elif kind == "stopped":
            it.stop()
        yield it
    (it.point / "hidden").unlink()


@pytest.fixture(params=KINDS)
def far(request: pytest.FixtureRequest, source: Path) -> Iterator[Fuse]:
    """Each kind in turn."""
    with odd(request.param, source) as mount:
        yield mount


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """As on a machine that was never told of anything."""
    notices.STATE.unlink(missing_ok=True)


def backup(client: EnrolledClient, *words: str | Path, expect: int = 0) -> Outcome:
    """Run byteback-backup as cron does; the test fails if it hangs."""
    argv = [client.bin / "byteback-backup", "--retry-delay", "0", *words]
    outcome = run_program(argv, check=False)
    assert outcome.status == expect, outcome
    return outcome


def copy_of(client: EnrolledClient, path: Path) -> Path:
    return client.current / path.relative_to("/")


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("words", [(), ("--exclude", "nothing")])
def test_the_rest_is_backed_up_and_deletions_are_made(
    enrolled_client: EnrolledClient, source: Path, far: Fuse, words: tuple[str, ...]
) -> None:
    outcome = backup(enrolled_client, "--source", source, *words)
    assert f"left out of the backup: '{far.point}' (" in outcome.stderr
    assert copy_of(enrolled_client, source / "home/a").exists()
    assert copy_of(enrolled_client, source / "mnt/beside").exists()
    # The directory is there for a restored machine, and nothing is in it.
    assert list(copy_of(enrolled_client, far.point).iterdir()) == []
    (source / "home/a").unlink()
    outcome = backup(enrolled_client, "--source", source, *words)
    assert outcome.stderr == "", "it is told once"
    assert not copy_of(enrolled_client, source / "home/a").exists()


def test_a_source_beside_it_is_backed_up(
    enrolled_client: EnrolledClient, source: Path, far: Fuse
) -> None:
    backup(enrolled_client, "--source", source / "mnt/beside")
    assert copy_of(enrolled_client, source / "mnt/beside").exists()
    assert names_in(copy_of(enrolled_client, far.point.parent)) == ["beside"]


def test_what_answers_again_is_news_when_it_is_gone_again(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    with odd("killed", source):
        assert "mnt/far" in backup(enrolled_client, "--source", source).stderr
    assert backup(enrolled_client, "--source", source).stderr == ""
    with odd("killed", source):
        assert "mnt/far" in backup(enrolled_client, "--source", source).stderr


def test_what_answers_is_an_empty_directory_or_sent(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    with fuse(source / "shown", source / "mnt/far") as far:
        assert backup(enrolled_client, "--source", source).stderr == ""
        assert list(copy_of(enrolled_client, far.point).iterdir()) == []
        backup(enrolled_client, "--source", source, "--exclude", "nothing")
        assert copy_of(enrolled_client, far.point / "secret").exists()
        backup(enrolled_client, "--source", far.point)
        assert copy_of(enrolled_client, far.point / "secret").exists()


def test_a_source_that_does_not_answer_is_named(
    enrolled_client: EnrolledClient, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with odd("killed", source) as far:
        outcome = backup(enrolled_client, "--source", far.point, expect=2)
        assert f"'{far.point}': Transport endpoint is not connected" in outcome.stderr
    monkeypatch.setattr(sources, "LIMIT_S", 1.0)
    with (
        odd("stopped", source) as far,
        pytest.raises(UsageError, match="its file system does not answer"),
    ):
        sources.resolve([str(far.point / "secret")])


def test_our_own_walks_do_not_look_at_it(source: Path, far: Fuse) -> None:
    selection = select(Files(source / "none"), Request([str(source)]))
    found = [
        entry.path
        for _, some in own_files.walk(selection.sources, selection.foreign)
        for entry in some
    ]
    assert str(source / "mnt/beside") in found
    assert str(far.point) not in found


def test_where_it_cannot_be_hidden_it_is_left_out_itself(
    enrolled_client: EnrolledClient, source: Path, far: Fuse
) -> None:
    """As in a container without the right to mount."""
    argv: list[str | Path] = [
        *(require_program("setpriv"), "--bounding-set=-sys_admin"),
        *("--inh-caps=-sys_admin", enrolled_client.bin / "byteback-backup"),
        *("--source", source),
    ]
    outcome = run_program(argv, check=False)
    if outcome.status:
        assert f"the file system at '{far.point}' does not answer" in outcome.stderr
        assert "Traceback" not in outcome.stderr
        return
    assert f"left out of the backup: '{far.point}' (" in outcome.stderr
    assert names_in(copy_of(enrolled_client, far.point.parent)) == ["beside"]


def test_a_mount_in_it_goes_with_it(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    with fuse(source / "shown", source / "mnt/far") as far:
        (source / "shown/inner").mkdir()
        with mounted(far.point / "inner", "-t", "tmpfs", "none"):
            (far.point / "inner/file").touch()
            far.stop()
            backup(enrolled_client, "--source", source, "--exclude", "nothing")
            far.server.send_signal(signal.SIGCONT)
    assert list(copy_of(enrolled_client, far.point).iterdir()) == []


def test_an_automount_is_not_set_off(source: Path) -> None:
    """Nobody answers for it here, so that whoever opened it would wait."""
    point = source / "mnt/far"
    ours, theirs = os.pipe()
    words = f"fd={theirs},pgrp=$$,minproto=5,maxproto=5,direct"
    script = f"exec mount -i -t autofs -o {words} x {point}"
    subprocess.run(
        ["sh", "-c", script], pass_fds=[theirs], start_new_session=True, check=True
    )
    try:
        selection = select(Files(source / "none"), Request([str(source)]))
        assert str(point) in selection.hidden
        assert f"--filter=- {point}/*" in selection.automatic
    finally:
        run_program(["umount", "--lazy", point])
        os.close(ours)
        os.close(theirs)


def test_what_is_hidden_is_hidden_from_the_child_alone(source: Path) -> None:
    with fuse(source / "shown", source / "mnt/far") as far:
        assert mount_points._can_hide([str(far.point)]) == (str(far.point),)
        assert (far.point / "secret").exists()
        assert str(far.point) in {mount.point for mount in mounts.read()}


def test_silence_without_a_way_around_it_is_an_error(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_points, "_can_hide", lambda _: ())
    monkeypatch.setattr(mount_points, "LOOK_LIMIT_S", 1.0)
    with odd("stopped", source), pytest.raises(BytebackError, match="does not answer"):
        select(Files(source / "none"), Request([str(source)]))


# --- What is compared with this machine --------------------------------------------


@pytest.fixture
def backed_up(enrolled_client: EnrolledClient, source: Path) -> EnrolledClient:
    """A client of which files where ``far`` will be mounted are in a snapshot."""
    (source / "mnt/far").mkdir(exist_ok=True)
    (source / "mnt/far/old").write_text("old")
    backup(enrolled_client, "--source", source)
    (source / "mnt/far/old").unlink()
    return enrolled_client


def test_a_comparison_with_now_does_not_look_at_it(
    backed_up: EnrolledClient, source: Path
) -> None:
    (source / "home/new").write_text("new")
    (source / "home/a").unlink()
    (name,) = [p.name for p in backed_up.current.parent.iterdir() if p.name[0] == "2"]
    program = backed_up.bin / "byteback-restore"
    for kind in KINDS:
        with odd(kind, source) as far:
            done = run_program([program, "--diff", name, source])
        lines = done.stdout.splitlines()
        assert any(line.endswith(f"{source}/home/new") for line in lines), done
        assert any(line.endswith(f"{source}/home/a") for line in lines), done
        assert f"{far.point}/secret" not in done.stdout
        assert "Traceback" not in done.stderr


def test_a_sample_is_compared_without_it(
    backed_up: EnrolledClient, source: Path
) -> None:
    program = backed_up.bin / "byteback-restore"
    for kind in KINDS:
        with odd(kind, source) as far:
            done = run_program([program, "--verify", "--verbose"])
        assert f"not compared: files in '{far.point}' (" in done.stderr
        assert "4 files" in done.stdout + done.stderr, done
    # Nor through a link to it.
    with odd("stopped", source) as far:
        (source / "home").rename(source / "was-home")
        (source / "home").symlink_to(far.point)
        done = run_program([program, "--verify", "--verbose"])
    assert "2 files" in done.stdout + done.stderr, done
