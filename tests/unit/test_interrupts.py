"""Signals that end a program, and the moments in which they wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from byteback.errors import InterruptedBySignalError
from byteback.system import process, signals


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handlers of the module, and a state of its own; put back afterwards."""
    monkeypatch.setattr(signals, "_state", signals._State())
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    # As in a program of the foreground: a package's build may run with Ctrl-C ignored.
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises(number: int) -> None:
    with pytest.raises(InterruptedBySignalError) as raised:
        send(number)
    assert raised.value.exit_status == 128 + number


def test_control_c_is_what_python_makes_of_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_cleaning_up_after_the_first_is_not_disturbed() -> None:
    with pytest.raises(InterruptedBySignalError):
        send(signal.SIGTERM)
    send(signal.SIGTERM)
    send(signal.SIGINT)


def test_what_asks_for_more_time_can_be_stopped_too() -> None:
    with pytest.raises(InterruptedBySignalError):
        send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), signals.rearm_signals():
        send(signal.SIGINT)
    send(signal.SIGTERM)


def test_a_held_signal_waits_for_the_end_of_the_block() -> None:
    steps = []

    def run() -> None:
        with signals.block_signals():
            send(signal.SIGTERM)
            steps.append("went on")
        steps.append("never here")

    with pytest.raises(InterruptedBySignalError):
        run()
    assert steps == ["went on"]


def test_the_long_wait_in_a_held_block_is_interrupted() -> None:
    steps = []

    def run() -> None:
        with signals.block_signals():
            try:
                with signals.allow_signals():
                    send(signal.SIGTERM)
                    steps.append("never here")
            finally:
                send(signal.SIGTERM)
                steps.append("cleaned up")

    with pytest.raises(InterruptedBySignalError):
        run()
    assert steps == ["cleaned up"]


def test_what_is_written_down_is_not_disturbed_at_all() -> None:
    """Nor the programs that this takes, which a held signal ends."""
    steps = []

    def run() -> None:
        with signals.defer_signals():
            send(signal.SIGTERM)
            steps.append(process.run(["echo", "went on"]).text)
            send(signal.SIGHUP)
        steps.append("never here")

    with pytest.raises(InterruptedBySignalError):
        run()
    assert steps == ["went on\n"]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1) does
    signals.install()
    send(signal.SIGHUP)


def test_a_signal_stops_the_program_that_is_waited_for() -> None:
    signal.signal(signal.SIGALRM, lambda *_: send(signal.SIGTERM))
    started = []
    real = process.start

    def note(*args: object, **options: object) -> object:
        running = real(*args, **options)  # type: ignore[arg-type] # passed through
        started.append(running)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        return running

    process.start = note  # type: ignore[assignment] # put back below
    try:
        with pytest.raises(InterruptedBySignalError):
            process.run(["sleep", "60"])
    finally:
        process.start = real
    assert started[0].returncode == -signal.SIGTERM
