"""Which directories a restore sets the ACLs of a second time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.client.restore import sticky


def test_sticky_directories_with_acls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At, below and above what was restored, and nothing that is beside it."""
    for name in ("a", "a/asked", "a/asked/b", "a/asked/plain", "a/beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755 if name.endswith("plain") else 0o1777)
    (tmp_path / "a/asked/link").symlink_to("../beside")
    tmp_path.chmod(0o1777)

    def listxattr(path: str, *, follow_symlinks: bool) -> list[str]:
        assert not follow_symlinks
        return [] if path.endswith("/b") else ["system.posix_acl_access"]

    monkeypatch.setattr(os, "listxattr", listxattr)
    names = ["a/asked", "a/gone", "a/asked/link"]
    assert set(sticky.find(tmp_path, names, ())) == {"a", "a/asked"}
    assert set(sticky.find(tmp_path, ["./"], ())) >= {"./", "a/beside"}
    assert sticky.find(Path("/"), ["no/such"], ()) == []
