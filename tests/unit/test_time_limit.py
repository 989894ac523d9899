"""A look at a file that may never answer costs a limited time, and nothing else."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from byteback.system import time_limit
from byteback.system.time_limit import SILENT, Failed


def test_answers_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    def fail() -> object:
        raise ZeroDivisionError

    questions: list[Callable[[], object]] = [
        lambda: {"a": ["b\udcff", 1]},
        partial(os.listdir, tmp_path / "none"),
        fail,
        lambda: None,
    ]
    answers = time_limit.ask(questions, 60)
    assert answers == [{"a": ["b\udcff", 1]}, Failed(2), Failed(None), None]
    assert isinstance(answers[1], Failed)
    assert answers[1].reason == "No such file or directory"
    assert time_limit.ask([], 60) == []


def test_large_answers_come_whole() -> None:
    assert time_limit.ask([lambda: "x" * 1_000_000] * 3, 60) == ["x" * 1_000_000] * 3


def test_one_that_is_silent_holds_up_nobody(tmp_path: Path) -> None:
    place = tmp_path / "pid"

    def hang() -> object:
        place.write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)

    assert time_limit.ask([hang, lambda: 1, hang], 5.0) == [SILENT, 1, SILENT]
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


def test_one_that_cannot_be_ended_keeps_no_lock(tmp_path: Path) -> None:
    """It may sleep in the kernel for ever, with all that it inherited."""
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "said").open("w") as said:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (answer,) = time_limit.ask(
            [lambda: [Path(f"/proc/self/fd/{n}").exists() for n in range(3, 64)]], 60
        )
        # Its pipe, and what listing opens at the moment.
        assert isinstance(answer, list)
        assert answer.count(True) <= 1
        assert said.fileno()


def test_one_that_dies_is_silent() -> None:
    assert time_limit.ask([lambda: os._exit(3)], 60) == [SILENT]
