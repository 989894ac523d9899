"""What sealing promises to searches, on kernels whose clock for files is coarse."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback.server import sealing


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
