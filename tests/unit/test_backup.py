"""The decisions of a backup before and after its transfer."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from byteback.cli.backup import spread_greedy
from byteback.client.backup import hook_words, push, rules, run, verdict
from byteback.client.backup.sending import send
from byteback.client.restore import pull
from byteback.client.settings import (
    ALWAYS_GIVEN,
    Files,
    check_key,
    read_destination,
    read_io_timeout,
    read_rsync_flags,
)
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import (
    BusyError,
    BytebackError,
    IncompleteBackupError,
    NotRootError,
    NotSetUpError,
    PolicyError,
    RefusedError,
    ToolError,
    UnreachableError,
    UsageError,
)
from byteback.model.destination import Destination
from byteback.system import hooks
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome
from byteback.wire import failures
from byteback.wire.replies import Completion


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        (["--source", "/etc", "/home", "-v"], "--source /etc --source /home -v"),
        (["-x", "a", "b", "-s", "/c"], "-x a -x b -s /c"),
        (["--source=/etc", "/home"], "--source=/etc --source /home"),
        (["-d", "host", "stray"], "-d host stray"),
        (["-s", "/etc", "--", "/home"], "-s /etc -- /home"),
        (["-v"], "-v"),
    ],
)
def test_greedy_options_of_old_scripts(words: list[str], spread: str) -> None:
    assert " ".join(spread_greedy(words)) == spread


def files(tmp_path: Path, **contents: str | bytes) -> Files:
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    return Files(tmp_path)


def test_the_command_line_beats_the_file(tmp_path: Path) -> None:
    there = files(tmp_path, destination="byteback@file:\n", io_timeout="60\n")
    assert read_destination(there, None).host == "file"
    assert read_destination(there, "given").host == "given"
    assert read_io_timeout(there, None, 9) == 60
    assert read_io_timeout(there, 5, 9) == 5


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_an_empty_destination_is_not_set_up(tmp_path: Path, content: str) -> None:
    with pytest.raises(NotSetUpError, match="empty"):
        read_destination(files(tmp_path, destination=content), None)


def test_a_missing_destination_is_not_set_up(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError, match="missing"):
        read_destination(Files(tmp_path), None)


@pytest.mark.parametrize(
    "content", [b"\0\1\2", b"\xff\xfe", b"a b c", b"host1:\nhost2:", b"x" * 2_000_000]
)
def test_a_broken_destination_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError):
        read_destination(files(tmp_path, destination=content), None)


@pytest.mark.parametrize("content", ["soon", "-5", "0", "1e9", "99999999999", "٣"])
def test_a_wrong_time_out_file_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="io_timeout"):
        read_io_timeout(files(tmp_path, io_timeout=content), None, 9)


def test_rsync_flags_in_all_their_spellings(tmp_path: Path) -> None:
    text = "--bwlimit=5 --one-file-system\n\n# remark\n--exclude 'a b'\n"
    flags = read_rsync_flags(files(tmp_path, rsync_flags=text))
    assert flags == ["--bwlimit=5", "--one-file-system", "--exclude=a b"]


@pytest.mark.parametrize(
    "text", ["--exclude 'a", "/etc", "--checksum etc", "--files-from=list", "--", "-B"]
)
def test_rsync_flags_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    """A word that is no option would be another source to rsync."""
    with pytest.raises(UsageError, match="rsync_flags"):
        read_rsync_flags(files(tmp_path, rsync_flags=text))


def test_what_every_transfer_has_counts_once(tmp_path: Path) -> None:
    """The manual of 0.4 recommended these; -XX is refused beside --fake-super."""
    text = "--xattrs --acls --hard-links\n-aAXHz --stats"
    assert read_rsync_flags(files(tmp_path, rsync_flags=text)) == ["-z"]
    for options in (push.OPTIONS, pull.OPTIONS):
        assert {f"--{name}" for name in ALWAYS_GIVEN} <= set(options)


def test_a_missing_or_empty_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError) as missing:
        check_key(tmp_path / "key")
    assert "byteback-setup-client" in (missing.value.hint or "")
    with pytest.raises(NotSetUpError, match="empty"):
        check_key(files(tmp_path, key="").key)


def test_a_key_that_others_could_read_is_put_right(tmp_path: Path) -> None:
    key = files(tmp_path, key="x").key
    key.chmod(0o644)
    check_key(key)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_key_of_roots_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ran byteback-restore without sudo was told to move the key away."""
    key = files(tmp_path, key="x").key
    assert check_key(key) == key
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can read everything
    with pytest.raises(NotRootError, match="cannot read") as refused:
        check_key(key)
    assert refused.value.hint == "run this with sudo"


CONNECTION = Connection(Destination("byteback", "server"), Path("key"), None, None)


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        (
            255,
            ("ssh: connect to host x port 22: Connection refused",),
            UnreachableError,
        ),
        (-9, (), UnreachableError),
        (255, ("byteback@x: Permission denied (publickey).",), RefusedError),
        (255, ("Host key verification failed.",), RefusedError),
        (9, ("byteback-receive: error: no",), RefusedError),
        (14, ("byteback-receive: error: too soon",), PolicyError),
        (13, ("byteback-receive: error: btrfs failed", "  ERROR: x"), ToolError),
        (75, ("byteback-receive: busy: full house", "  hint: later"), BusyError),
        (11, ("byteback-receive: error: cannot lock 'x': held by y",), BusyError),
        (143, (), UnreachableError),
        (255, ("No ED25519 host key is known for x and you have",), RefusedError),
        (255, ('Load key "key": error in libcrypto', "x: Perm"), NotSetUpError),
        (127, ("sh: 1: byteback-receive: not found",), RefusedError),
        (254, ("The server goes down.",), UnreachableError),
        (2, ("Usage: byteback-receive [OPTIONS]", "Error: No such"), RefusedError),
        (1, (), RefusedError),
        (
            255,
            ("/etc/ssh/ssh_config: terminating, 1 bad configuration options",),
            UsageError,
        ),
    ],
)
def test_how_a_session_failed(
    status: int, details: tuple[str, ...], kind: type[BytebackError]
) -> None:
    error = CONNECTION.failure(status, details)
    assert type(error) is kind
    assert error.hint or details[0].startswith("byteback-receive: ")
    assert "byteback-receive: " not in error.message or status == 127


@pytest.mark.parametrize(
    ("known_hosts", "first", "words"),
    [
        (
            None,
            "",
            "is not known",
        ),  # as after an upgrade from 0.4, which pinned nothing
        (
            None,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @",
            "another machine may",
        ),
        (Path("known_hosts"), "", "another machine may"),
        (Path("known_hosts"), "No RSA host key is known for x and", "does not hold it"),
    ],
)
def test_a_host_key_that_nobody_pinned_is_no_attack(
    known_hosts: Path | None, first: str, words: str
) -> None:
    connection = replace(CONNECTION, known_hosts=known_hosts)
    error = connection.failure(255, (first, "Host key verification failed."))
    assert words in error.message


def outcome(status: int, *problems: str, stderr_tail: tuple[str, ...] = ()) -> Outcome:
    return Outcome(status, problems=problems, stderr_tail=stderr_tail or problems)


@pytest.mark.parametrize("status", [0, 23, 24])
def test_a_transfer_that_is_done(status: int) -> None:
    verdict.check(outcome(status), CONNECTION)


@pytest.mark.parametrize(
    "status", [5, 10, 11, 12, 16, 20, 21, 22, 30, 35, 255, -9, 137]
)
def test_a_transfer_that_is_worth_another_attempt(status: int) -> None:
    with pytest.raises(BytebackError) as failure:
        verdict.check(outcome(status), CONNECTION)
    assert failure.value.retryable
    # 12 is for the line alone; a disc or a memory that failed is not "unreachable".
    assert failure.value.exit_status == (13 if status in (11, 16, 20, 21, 22) else 12)


@pytest.mark.parametrize("status", [1, 2, 3, 4, 6, 13, 25, 127])
def test_a_transfer_that_another_attempt_does_not_mend(status: int) -> None:
    with pytest.raises(ToolError) as failure:
        verdict.check(outcome(status), CONNECTION)
    assert not failure.value.retryable


def test_a_full_disc_is_no_unreadable_file() -> None:
    full = '[receiver] write failed on "/x": No space left on device (28)'
    with pytest.raises(BusyError, match="is full"):
        verdict.check(outcome(23, full), CONNECTION)


FULL = "No space left on device (28)"


@pytest.mark.parametrize(
    "problem",
    [
        # btrfs takes no attribute of more than 16 KB, on however empty a disc.
        f'[receiver] rsync_xal_set: lsetxattr("/x","user.a") failed: {FULL}',
        f'[sender] send_files failed to open "/{FULL}": Permission denied (13)',
    ],
)
def test_one_file_does_not_make_a_disc_look_full(problem: str) -> None:
    verdict.check(outcome(23, problem), CONNECTION)


def test_a_file_of_too_many_blocks_is_compared_in_larger_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The size of what a transfer that was cut off has left there is not noted."""
    ran: list[Sequence[str]] = []

    def transfer(argv: Sequence[str], **_: object) -> Outcome:
        ran.append(tuple(argv))
        return Outcome(command.NO_MEMORY if "--block-size=4096" in argv else 0)

    monkeypatch.setattr(command, "transfer", transfer)
    argv = ["rsync", "--block-size=4096", "/"]
    assert send(argv, CONNECTION, RetryPolicy(0)).is_success
    assert ran == [tuple(argv), ("rsync", "/")]


def test_a_transfer_that_is_to_come_again_at_once_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ("byteback-receive: busy: links", f"  reason: {failures.Reason.AT_ONCE}")
    ends = [Outcome(75, remote_messages=said), Outcome(0)]
    monkeypatch.setattr(command, "transfer", lambda *_, **__: ends.pop(0))
    assert send(["rsync"], CONNECTION, RetryPolicy(0)).is_success


def test_a_server_that_is_not_waited_for_is_asked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """rsync ends before the server can say that it tells its files apart."""
    line = 'got a block match with no basis file for "/backup/a b" [receiver]'
    failed = Outcome(
        2, remote_messages=(line,), stderr_tail=(line, "rsync error: (code 2)")
    )
    ends = [failed, Outcome(0)]
    monkeypatch.setattr(command, "transfer", lambda *_, **__: ends.pop(0))
    assert send(["rsync"], CONNECTION, RetryPolicy(0)).is_success
    ends = [failed] * 5
    with pytest.raises(BusyError, match="several names"):
        send(["rsync"], CONNECTION, RetryPolicy(0))


USAGE = "rsync error: syntax or usage error (code 1) at main.c(1804) [server=3.2.7]"
CONFLICT = "rsync: --fake-super conflicts with -XX"


@pytest.mark.parametrize("tells", [True, False])
def test_a_server_whose_rsync_refuses_is_not_asked_again(*, tells: bool) -> None:
    said = (
        "byteback-receive: error: the server's rsync refused (rsync status 1)",
        "  status: 9",
        f"  reason: {failures.Reason.RSYNC_REFUSED}",
    )
    lines = (CONFLICT, USAGE, *(said if tells else ()), "rsync error: x (code 12) [s]")
    ended = Outcome(
        12,
        problems=(CONFLICT.removeprefix("rsync: "),),
        stderr_tail=lines,
        remote_messages=said if tells else (),
    )
    with pytest.raises(BytebackError) as failure:
        verdict.check(ended, CONNECTION)
    assert not failure.value.retryable
    assert failure.value.exit_status == (9 if tells else 13)
    assert failure.value.details[0] == CONFLICT


def test_the_servers_word_decides_whether_to_come_back() -> None:
    refused = outcome(12, stderr_tail=("byteback-receive: error: no", "rsync error"))
    with pytest.raises(RefusedError, match=r"no$"):
        verdict.check(refused, CONNECTION)
    busy = outcome(12, stderr_tail=("byteback-receive: busy: later", "rsync error"))
    with pytest.raises(BusyError, match=r"later$"):
        verdict.check(busy, CONNECTION)


@pytest.mark.parametrize("status", [12, 14, 255, -9])
def test_the_status_that_the_server_tells_counts(status: int) -> None:
    """rsync passes it on only if the session's end is there before its own."""
    said = ("byteback-receive: error: stopped", "  hint: do that", "  status: 14")
    with pytest.raises(PolicyError, match="stopped") as failure:
        verdict.check(outcome(status, stderr_tail=(*said, "rsync error")), CONNECTION)
    assert failure.value.hint == "do that"


def test_what_the_server_said_last_is_not_lost_behind_a_banner() -> None:
    banner = tuple(f"Line {number} of the law." for number in range(30))
    said = ("byteback-receive: error: no", "rsync error")
    with pytest.raises(RefusedError, match=r"no$"):
        verdict.check(Outcome(12, remote_messages=banner, stderr_tail=said), CONNECTION)


def test_what_the_server_said_first_is_not_lost_behind_what_rsync_adds() -> None:
    said = ("byteback-receive: error: no such thing", "  hint: do that", *"abcdef")
    buried = Outcome(
        12, remote_messages=said, stderr_tail=("rsync: x", "rsync error: y")
    )
    with pytest.raises(RefusedError, match="no such thing") as failure:
        verdict.check(buried, CONNECTION)
    assert failure.value.hint == "do that"
    failed = Outcome(13, remote_messages=("byteback-receive: error: btrfs failed",))
    with pytest.raises(ToolError, match="btrfs failed"):
        verdict.check(failed, CONNECTION)


def test_a_lost_login_is_told_apart_from_a_lost_line() -> None:
    denied = Outcome(
        255, remote_messages=("byteback@x: Permission denied (publickey).",)
    )
    with pytest.raises(RefusedError, match="does not take this machine's key"):
        verdict.check(denied, CONNECTION)


def test_retries_pause_longer_each_time_and_then_give_up() -> None:
    pauses: list[float] = []
    tries = 0

    def fail() -> None:
        nonlocal tries
        tries += 1
        raise UnreachableError("away")

    with pytest.raises(UnreachableError) as failure:
        retrying(fail, RetryPolicy(3, 100), sleep=pauses.append)
    assert failure.value.message == "away (after 4 attempts)"
    assert tries == 4
    assert 75 <= pauses[0] <= 125
    assert 112 <= pauses[1] <= 188
    assert 168 <= pauses[2] <= 282


def test_a_retry_says_which_attempt_why_and_when_the_next_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = [UnreachableError("cannot reach it", details=["ssh: no route"])]

    def fail_once() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert retrying(fail_once, RetryPolicy(2, 100), sleep=lambda _: None) == "done"
    assert re.search(
        r"attempt 1 of 3 failed: cannot reach it \(ssh: no route\); "
        r"trying again in \d+ seconds, at \d\d:\d\d:\d\d$",
        caplog.text.strip(),
    )


def test_a_tools_failure_that_can_pass_is_retried() -> None:
    failure = ToolError("disc error")
    failure.retryable = True
    tries = []

    def fail() -> None:
        tries.append(1)
        raise failure

    with pytest.raises(ToolError):
        retrying(fail, RetryPolicy(2, 0), sleep=lambda _: None)
    assert len(tries) == 3


def test_what_is_no_broken_line_is_not_retried() -> None:
    def fail() -> None:
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        retrying(fail, RetryPolicy(3, 0), sleep=lambda _: pytest.fail("paused"))


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
        f"#!/bin/sh\nsleep 60 & echo $! >{tmp_path}/pid\nwait\n"
    )
    (tmp_path / "a").chmod(0o755)
    monkeypatch.setattr(hooks, "TIME_LIMIT_S", 0.5)
    with pytest.raises(ToolError, match="did not end"):
        hooks.run_hooks(tmp_path, {})
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    state = (child / "stat").read_text().split()[2] if child.exists() else "gone"
    assert state in ("gone", "Z")


def test_a_hook_may_leave_a_service_behind_that_keeps_its_output_open(
    tmp_path: Path,
) -> None:
    script = f"setsid sleep 600 & echo $! >{tmp_path}/p; sleep 0.5"
    (tmp_path / "a").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "a").chmod(0o755)
    hooks.run_hooks(tmp_path, {})
    os.kill(int((tmp_path / "p").read_text()), 9)  # there still: it was not waited for


@pytest.mark.parametrize("name", ["excludes", "rsync_filter"])
def test_rules_that_are_no_text_are_named(tmp_path: Path, name: str) -> None:
    there = files(tmp_path, **{name: b"\0\1"})
    with pytest.raises(UsageError, match=f"{name}' is no text file"):
        rules.check(there, rules.Request())
    rules.check(files(tmp_path, **{name: b"- /caf\xe9\n"}), rules.Request())


@pytest.mark.parametrize(
    ("completion", "words"),
    [
        (Completion("2026-01-01T00:00+0000", None), "snapshot 2026-01-01T00:00+0000"),
        (Completion(None, "2026-01-01T00:00+0000"), "no new snapshot was due"),
        (None, "nothing was changed"),
    ],
)
def test_the_summary(completion: Completion | None, words: str) -> None:
    summary = run.Summary(Outcome(0, 10, 2, 2048), 3.0, completion)
    assert words in summary.sentence()
    assert "2 of 10 files sent (2 KiB) in 3 seconds" in summary.sentence()
    assert " in 1 second;" in replace(summary, duration_s=1.2).sentence()


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
