"""A sample is restored where no other user can come, whatever the server sends."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from byteback.client.restore import drill, pull, query, verify
from byteback.client.restore.pull import Pull
from byteback.client.restore.query import Server
from byteback.model.listing import Entry


def test_a_sender_cannot_open_the_place_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was taken over sends an entry "." with a mode of its choice."""
    modes: list[int] = []

    def run_pull(job: Pull, names: Sequence[str]) -> object:
        target = job.directory / names[0]
        target.write_bytes(b"x")
        os.utime(target, ns=(5, 5))
        job.directory.chmod(0o777)
        target.chmod(0o4755)
        above = [one for one in target.parents if tmp_path in one.parents]
        modes.extend(stat.S_IMODE(one.stat().st_mode) for one in above)
        return SimpleNamespace(problems=())

    entry = Entry("now", "/file", stat.S_IFREG | 0o644, 1, 0, 0, 5, None, None)
    monkeypatch.setattr(drill, "PLACE", tmp_path)
    monkeypatch.setattr(query, "connected", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(verify, "newest_snapshot", lambda _: "now")
    monkeypatch.setattr(verify, "random_entries", lambda *_: [entry])
    monkeypatch.setattr(drill, "read_io_timeout", lambda *_: 5)
    monkeypatch.setattr(pull, "run_pull", run_pull)
    monkeypatch.setattr(pull, "problems_of", lambda _: [])
    server = SimpleNamespace(files=None, io_timeout_s=None)
    drill.restore_sample(cast("Server", server), 1)
    assert modes == [0o777, 0o700]
    assert list(tmp_path.iterdir()) == []
