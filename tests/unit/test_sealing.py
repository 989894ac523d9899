"""Sealing where no real store shows it: coarse clocks, odd mounts."""

from __future__ import annotations

import errno
import logging
import os
import syslog
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback import log
from byteback.server.snapshots import sealing


def test_no_two_sealed_snapshots_have_the_same_ctime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within the tick of an earlier one gets its time before Linux 6.13."""
    fd = os.open(tmp_path, os.O_RDONLY)
    directory = sealing._Directory(fd, "a", 0, 0)
    modes: list[int] = []

    def fchmod(fd: int, mode: int) -> None:
        modes.append(mode)

    def fstat(fd: int) -> object:
        return SimpleNamespace(st_ctime_ns=1000 if len(modes) < 4 else 2000)

    fakes = {**vars(os), "fchmod": fchmod, "fstat": fstat}
    monkeypatch.setattr(sealing, "os", SimpleNamespace(**fakes))
    directory._set_mode(fd, 0o550)
    assert modes == [0o550]
    directory._set_mode(fd, 0o750)
    assert modes == [0o550] + [0o750] * 3
    os.close(fd)


def test_what_root_cannot_open_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user's FUSE, mounted over a snapshot, keeps even root out."""
    fd = os.open(tmp_path, os.O_RDONLY)
    directory = sealing._Directory(fd, "a", 0, 0)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sealing, "os", SimpleNamespace(**{**vars(os), "open": refuse}))
    assert directory.put_names_right(["2026-01-01T00:00+0000"], set()) == [
        "2026-01-01T00:00+0000"
    ]
    assert "cannot open 'a/2026-01-01T00:00+0000': Permission denied" in caplog.text
    os.close(fd)


def test_a_warning_of_break_ins_goes_where_watchers_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, _: told.append(priority))
    handler = log._syslog_handler("byteback-prune")
    for extra in (None, log.AUTH):
        record = logging.getLogger("x").makeRecord(
            *("x", logging.WARNING, "", 0, "text", (), None), extra=extra
        )
        handler.emit(record)
    assert told == [syslog.LOG_WARNING, syslog.LOG_WARNING | syslog.LOG_AUTH]
