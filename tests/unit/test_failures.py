"""The client understands what the server prints when it fails."""

from __future__ import annotations

import pytest

from byteback.cli import _boundary
from byteback.cli import receive as program
from byteback.errors import BusyError, BytebackError, RefusedError, ToolError
from byteback.server.session import dispatch
from byteback.wire import failures

NOISE = ("Warning: of ssh's", "byteback-receive is busy", "rsync error: (code 12)")


@pytest.mark.parametrize(
    ("error", "is_busy"),
    [
        (RefusedError("no such thing", hint="ask for another"), False),
        (BusyError("too many transfers: 4", hint="try again in 300 seconds"), True),
        (BytebackError("something without a hint"), False),
    ],
)
def test_what_is_printed_is_understood(
    error: BytebackError, is_busy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _boundary.print_error("byteback-receive", error)
    printed = capsys.readouterr().err.splitlines()
    assert [failures.is_failure(line) for line in printed][:1] == [True]
    assert failures.is_busy(printed[0]) is is_busy
    said = failures.parse_failure([*NOISE, *printed])
    assert said[0] == error.message
    assert failures.parse_hint(said[1:]) == error.hint
    assert failures.parse_status(printed) == (75 if is_busy else None)
    assert failures.parse_reason(printed) is None
    error.reason = failures.Reason.AT_ONCE
    fields = failures.format_fields(error).splitlines()
    told = [*NOISE, *printed, *fields, "rsync error: x", "  status: ", "  reason: "]
    assert failures.parse_status(told) == error.exit_status
    assert failures.parse_reason(told) == failures.Reason.AT_ONCE
    assert not set(fields) & set(failures.parse_failure(told))


def test_other_words_are_no_failure() -> None:
    assert not any(failures.is_failure(line) for line in NOISE)
    assert failures.parse_failure(NOISE) == NOISE
    assert failures.parse_hint(NOISE) is None
    assert failures.parse_status([*NOISE, "  status: 9"]) is None
    assert failures.parse_reason([*NOISE, "  reason: at-once"]) is None


def test_the_last_failure_counts() -> None:
    """An attempt before may have left its own."""
    lines = ("byteback-receive: busy: one", "byteback-receive: error: two", "  more")
    assert failures.parse_failure(lines) == ("two", "  more")
    assert failures.parse_status(lines) is None
    assert failures.parse_reason([lines[0], "  reason: at-once", lines[1]]) is None
    assert failures.parse_status(["byteback-receive: error: 0", *lines[:1]]) == 75


@pytest.mark.parametrize(
    "error", [ToolError("btrfs was killed", status=-9), OSError(28, "No space left")]
)
def test_what_can_pass_has_the_status_of_a_busy_server(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By that alone a client tries its --complete again."""

    def serve(_host: str, _command: bytes, *, by_root: bool) -> int:
        assert not by_root
        raise error

    monkeypatch.setattr(dispatch, "serve", serve)
    monkeypatch.setattr(program, "_discard_output", lambda: None)
    assert program._serve("a", b"") == BusyError.exit_status
    said = capfd.readouterr().err.splitlines()
    assert failures.is_busy(said[0])
    assert failures.parse_status(said) == BusyError.exit_status
