"""Which hooks run, in which order, and what they are told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from byteback.client.backup import hook_words
from byteback.errors import (
    IncompleteBackupError,
    ToolError,
    UnreachableError,
)
from byteback.system import hooks
from tests.waiting import wait_until


def test_hooks_are_chosen_as_run_parts_does(tmp_path: Path) -> None:
    for name in ("20-b", "10_a", "30.bak", "40~", "x.sh", "README"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "README").chmod(0o644)
    (tmp_path / "dir").mkdir()
    assert [hook.name for hook in hooks.find_hooks(tmp_path)] == ["10_a", "20-b"]
    assert hooks.find_hooks(tmp_path / "missing") == []


def test_what_looks_like_a_hook_and_is_none_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / hook_words.PRE
    directory.mkdir()
    for name in ("dump.sh", "plain", "good", "README", "good~", "good.dpkg-old", ".x"):
        (directory / name).touch()
        (directory / name).chmod(0o755 if name.startswith(("dump", "good")) else 0o644)
    (directory / "nowhere").symlink_to(tmp_path / "missing")
    (directory / "all").symlink_to(tmp_path)
    (tmp_path / hook_words.FINALLY).mkdir()
    (tmp_path / hook_words.FINALLY / "umount").touch(mode=0o600)
    hook_words.warn_of_ignored(tmp_path)
    told = [record.getMessage() for record in caplog.records]
    shown = {line.split("'")[1].removeprefix(f"{tmp_path}/"): line for line in told}
    ways = {
        "pre-backup.d/all": "no file",
        "pre-backup.d/dump.sh": "in its name",
        "pre-backup.d/nowhere": "leads nowhere",
        "pre-backup.d/plain": f"chmod +x {directory}/plain",
        "finally-backup.d/umount": "not executable",
    }
    assert shown.keys() == ways.keys()
    assert all(why in shown[name] for name, why in ways.items())
    assert [hook.name for hook in hooks.find_hooks(directory)] == ["good"]


def test_a_failing_hook_stops_those_behind_it(tmp_path: Path) -> None:
    for name, text in (("a", "echo told; exit 7"), ("b", "touch $MARK")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(ToolError) as failure:
        hooks.run_hooks(tmp_path, {"MARK": str(tmp_path / "mark")})
    assert failure.value.details == ("told",)
    assert failure.value.status == 7
    assert not (tmp_path / "mark").exists()


def test_no_finally_hook_is_stopped_by_another_ones_failure(tmp_path: Path) -> None:
    for name, line in (("1", "exit 7"), ("2", "exit 8"), ("3", 'touch "$MARK"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(ToolError, match="/1' failed with status 7"):
        hooks.run_all_hooks(tmp_path, {"MARK": str(tmp_path / "mark")})
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("echo no first line\n", "Exec format error"),
        ("", "Exec format error"),
        ("#!/nowhere\n", "what its first line names is not there"),
    ],
)
def test_a_hook_that_nobody_can_start_is_named(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "hook").write_text(content)
    (tmp_path / "hook").chmod(0o755)
    with pytest.raises(ToolError, match=f"cannot start '.*/hook': {words}"):
        hooks.run_hooks(tmp_path, {})


def test_a_hung_hook_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text(
        f"#!/bin/sh\nsleep 600 & echo $! >{tmp_path}/pid\nwait\n"
    )
    (tmp_path / "a").chmod(0o755)
    monkeypatch.setattr(hooks, "TIME_LIMIT_S", 3.0)
    with pytest.raises(ToolError, match="did not end"):
        hooks.run_hooks(tmp_path, {})
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()

    def has_ended() -> bool:
        try:
            return (child / "stat").read_text().split()[2] == "Z"
        except OSError:
            return True

    wait_until(has_ended)


def test_a_hook_may_leave_a_service_behind_that_keeps_its_output_open(
    tmp_path: Path,
) -> None:
    script = f"setsid sleep 600 & echo $! >{tmp_path}/p; sleep 0.5"
    (tmp_path / "a").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "a").chmod(0o755)
    hooks.run_hooks(tmp_path, {})
    os.kill(int((tmp_path / "p").read_text()), 9)  # there still: it was not waited for


def test_finally_hooks_are_told_how_it_ended() -> None:
    told = hook_words.outcome_environment(IncompleteBackupError("x"))
    assert (told["BYTEBACK_RESULT"], told["BYTEBACK_EXIT_STATUS"]) == (
        "incomplete",
        "3",
    )
    assert (
        hook_words.outcome_environment(KeyboardInterrupt())["BYTEBACK_EXIT_STATUS"]
        == "130"
    )
    assert (
        hook_words.outcome_environment(UnreachableError("x"))["BYTEBACK_EXIT_STATUS"]
        == "12"
    )
    assert (
        hook_words.outcome_environment(ZeroDivisionError())["BYTEBACK_EXIT_STATUS"]
        == "70"
    )
    full = OSError(errno.ENOSPC, "No space left on device")
    assert hook_words.outcome_environment(full)["BYTEBACK_EXIT_STATUS"] == "1"
