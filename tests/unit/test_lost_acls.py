"""Which files are sent a second time, because the server's rsync lost their ACLs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from byteback.client.backup import lost_acls
from byteback.client.backup.lost_acls import LostAcls, scan

BOTH = ["system.posix_acl_access", "user.x"]


@pytest.mark.parametrize(
    ("flags", "attributes", "is_lost"),
    [
        ("cd+++++++++", BOTH, True),
        ("cd+++++++++", ["system.posix_acl_default", "security.selinux"], True),
        ("cS+++++++++", BOTH, True),
        (".d........x", BOTH, True),
        (".f..t.....x", BOTH, True),
        (".f........x", ["system.posix_acl_access"], True),  # all others are gone
        (".f........x", ["user.x"], False),
        ("cDc.t......", BOTH, True),  # made anew
        ("<f.st......", ["system.posix_acl_access"], True),
        ("<f..t....a.", BOTH, True),
        ("<f.st......", ["user.x"], False),
        (".f..t......", BOTH, False),
        ("hf..t....a.", BOTH, False),
        # What rsync gets right: new files, no other attributes, no ACL at all.
        ("<f+++++++++", BOTH, False),
        ("cd+++++++++", ["system.posix_acl_access"], False),
        ("cd+++++++++", ["user.x"], False),
        (".d..t......", BOTH, False),
        (".d.......a.", BOTH, False),
    ],
)
def test_what_is_sent_again(
    flags: str, attributes: list[str], is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def listxattr(path: str, *, follow_symlinks: bool) -> list[str]:
        assert not follow_symlinks
        asked.append(path)
        return attributes

    monkeypatch.setattr(os, "listxattr", listxattr)
    lost = LostAcls()
    lost.take(f"0 {flags} srv/new\\#012line/")
    assert lost.names == (["srv/new\nline/"] if is_lost else [])
    assert set(asked) <= {"/srv/new\nline"}


def test_a_file_system_that_may_not_answer_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: pytest.fail("it was asked"))
    lost = LostAcls(frozenset({"/mnt/far"}))
    for name in ("mnt/far/", "/mnt/far/"):
        lost.take(f"0 cd+++++++++ {name}")
    assert lost.names == []


@pytest.mark.parametrize(
    "line", ["", "sent 5 bytes", "0 *deleting   x", "x cd+++++++++ x", "0 cd++++ x"]
)
def test_other_lines_mean_nothing(line: str) -> None:
    lost = LostAcls()
    lost.take(line)
    assert lost.names == []


def test_what_is_gone_is_left_out() -> None:
    lost = LostAcls()
    lost.take("0 cd+++++++++ no/such/directory/")
    assert lost.names == []


def test_a_first_backup_looks_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At all but links, and files that have changed too long ago."""
    (tmp_path / "below/deeper").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("below")
    os.mkfifo(tmp_path / "below/fifo")

    def listxattr(path: str, *, follow_symlinks: bool) -> list[str]:
        assert not follow_symlinks
        return BOTH if path != str(tmp_path / "below/deeper") else BOTH[:1]

    monkeypatch.setattr(os, "listxattr", listxattr)
    expected = {tmp_path, tmp_path / "below", tmp_path / "below/fifo"}
    later = time.time() + lost_acls.LATELY_S + 60
    monkeypatch.setattr(time, "time", lambda: later)
    found = scan([str(tmp_path), "/gone"], ())
    assert {Path("/", name) for name in found} == expected
    monkeypatch.undo()
    monkeypatch.setattr(os, "listxattr", listxattr)
    expected.add(tmp_path / "file")
    found = scan([str(tmp_path), "/gone"], ())
    assert {Path("/", name) for name in found} == expected
