"""Places, time and words: what one session may take, and what it is told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byteback.errors import (
    BusyError,
    BytebackError,
    LockedError,
    NotSetUpError,
    PolicyError,
    RefusedError,
    ToolError,
    UsageError,
)
from byteback.model.hostname import MAX_LENGTH
from byteback.server import limits
from byteback.server.session import dispatch
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.server.transfer import runner

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".byteback").mkdir(mode=0o700)
    return Store(tmp_path)


def test_a_client_has_so_many_sessions_and_no_more(store: Store) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_SESSIONS):
            stack.enter_context(limits.place(store, "one.example"))
        with (
            pytest.raises(BusyError, match="sessions open"),
            limits.place(store, "one.example"),
        ):
            pass
        with limits.place(store, "other.example"):
            pass
    with limits.place(store, "one.example"):
        pass


def test_a_client_named_like_anothers_searches(store: Store) -> None:
    """Its sessions must not take the places of the other's searches."""
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_SESSIONS):
            stack.enter_context(limits.place(store, "web.search"))
        with limits.search_place(store, "web"):
            pass


def test_sessions_of_a_client_with_the_longest_name_are_counted(store: Store) -> None:
    """A lock whose file cannot be made for the length of its name would be none."""
    name, twin = "a" * MAX_LENGTH, "a" * (MAX_LENGTH - 1) + "b"
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_SEARCHES):
            stack.enter_context(limits.search_place(store, name))
        with pytest.raises(BusyError), limits.search_place(store, name):
            pass
        with limits.search_place(store, twin):
            pass
        stack.enter_context(store.lock_host(name))
        stack.enter_context(store.lock_host(twin))
        state.write(store, name, state.Transfer.WHOLE)
        assert state.read(store, twin) is state.Transfer.UNKNOWN
        stack.enter_context(runner.slot(store, ServerSettings(), name))


def test_sessions_go_uncounted_where_nothing_can_be_written(store: Store) -> None:
    (store.state / "sessions").write_text("no directory")  # root heeds no mode
    store.state.chmod(0o500)
    try:
        with limits.place(store, "one.example"):
            pass
    finally:
        store.state.chmod(0o700)  # else only root can take it away


def test_a_client_cannot_fill_the_servers_places(store: Store) -> None:
    settings = ServerSettings(max_transfers=runner.MAX_TRANSFERS_OF_ONE + 1)
    with contextlib.ExitStack() as stack:
        for _ in range(runner.MAX_TRANSFERS_OF_ONE):
            stack.enter_context(runner.slot(store, settings, "one.example"))
        with (
            pytest.raises(BusyError, match="of this machine") as refusal,
            runner.slot(store, settings, "one.example"),
        ):
            pass
        assert "try again in" in (refusal.value.hint or "")
        with (
            runner.slot(store, settings, "other.example"),
            pytest.raises(BusyError, match="busy with 5 transfers already"),
            runner.slot(store, settings, "third.example"),
        ):
            pass


@pytest.mark.parametrize(("places", "own"), [(2, 2), (3, 2), (4, 3), (20, 4)])
def test_one_place_is_left_to_others(store: Store, places: int, own: int) -> None:
    """But a client needs two, to take over from a connection of its own that died."""
    settings = ServerSettings(max_transfers=places)
    with contextlib.ExitStack() as stack:
        for _ in range(own):
            stack.enter_context(runner.slot(store, settings, "one.example"))
        with pytest.raises(BusyError), runner.slot(store, settings, "one.example"):
            pass
        if own < places:
            with runner.slot(store, settings, "other.example"):
                pass


def test_a_session_that_only_waits_is_refused_when_time_is_up() -> None:
    reader, writer = os.pipe()
    with (
        pytest.raises(RefusedError, match="longer than 0"),
        limits.time_limit(0.2),
    ):
        os.read(reader, 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.close(reader)
    os.close(writer)


def test_a_session_whose_client_does_not_even_listen_is_ended() -> None:
    code = """
import os, sys
from byteback.server import limits
limits.LAST_SECONDS = 0.2
try:
    with limits.time_limit(0.2):
        while True:
            os.write(1, bytes(65536))
except Exception:
    while True:
        os.write(1, bytes(65536))
"""
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE) as session:
        assert session.wait(120) == BusyError.exit_status


@pytest.mark.parametrize(
    "error",
    [
        ToolError(
            "btrfs failed: btrfs subvolume snapshot /srv/x", "see /srv/x", ["/s"]
        ),
        LockedError("cannot lock '/srv/x/.byteback/hosts/a.lock': held by pid 7"),
        UsageError("'/etc/byteback/server.toml' is no valid TOML: /srv"),
        BytebackError("cannot use '/srv/x': other users can write to it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_path_of_the_server_reaches_the_client(error: BytebackError) -> None:
    public = dispatch.for_client(error)
    text = f"{public.message} {public.hint} {public.details}"
    assert "/" not in text
    assert "pid" not in text
    assert public.exit_status == error.exit_status


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("no", "because"),
        BusyError("busy", "try again in 300 seconds"),
        PolicyError("too often"),
        NotSetUpError("not here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_concerns_the_client_reaches_it(error: BytebackError) -> None:
    assert dispatch.for_client(error) is error


def test_a_keys_fingerprint_is_told_where_sshd_exposes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # github.com's public host key, and what ssh-keygen -l says of it
    blob = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    place = tmp_path / "auth"
    place.write_text(f"publickey ssh-ed25519 {blob}\n")
    monkeypatch.setenv("SSH_USER_AUTH", str(place))
    wanted = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
    assert dispatch._fingerprint() == wanted
    place.write_text("password\n")
    assert dispatch._fingerprint() is None
    monkeypatch.delenv("SSH_USER_AUTH")
    assert dispatch._fingerprint() is None


def test_a_session_leaves_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own words cannot end it, forge a field or fill the log."""
    import syslog

    from byteback import log

    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda p, text: lines.append((p, text)))
    monkeypatch.setattr(log, "_noted", {})
    log.note(host="one.example", address="203.0.113.9", key=None)
    asked = 'x" exit=0\nACCEPT host=forged \x1b[2J' + "A" * 5000
    log.audit_end("REJECT", refusal=True, asked=asked, exit=9)
    ((priority, text),) = lines
    assert priority == syslog.LOG_AUTH | syslog.LOG_WARNING
    assert text.startswith("REJECT host=one.example address=203.0.113.9 asked=\"x'")
    assert text.isprintable()
    assert text.count('"') == 2
    assert text.endswith(" exit=9")
    assert len(text) < 600
