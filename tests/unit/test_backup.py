"""The decisions of a backup about its transfers and attempts, and its summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from byteback.cli.backup import spread_greedy
from byteback.client.backup import run, verdict
from byteback.client.backup.sending import send
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import (
    BusyError,
    BytebackError,
    PolicyError,
    RefusedError,
    ToolError,
    UnreachableError,
)
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome
from byteback.wire import failures
from byteback.wire.replies import Completion
from tests.unit.test_connection import CONNECTION


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
