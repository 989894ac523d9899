"""The mount table is read rightly, whatever is mounted over what."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.system import mounts
from byteback.system.mounts import Mount

TABLE = rb"""
20 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
21 20 0:5 / /proc rw shared:5 master:1 - proc proc rw
22 20 0:40 / /mnt/a\040b\134c rw - fuse.sshfs joe@host: rw,user_id=1000,group_id=1000
23 20 8:1 /home /home rw - ext4 /dev/sda1 rw
24 20 0:41 / /srv rw - nfs4 host:/x rw
25 24 0:42 / /srv/hidden rw - tmpfs none rw
26 24 8:2 / /srv rw - xfs /dev/sdb rw
27 26 0:43 / /srv/seen rw - tmpfs none rw
28 20 8:3 / /data/deep rw - ext4 /dev/sdc rw
29 20 8:4 / /data rw - ext4 /dev/sdd rw
30 20 0:44 net:[4026532] /run/netns/x rw - nsfs nsfs rw
31 20 0:45 / /no\377utf8 rw - fuse x rw,user_id=0
broken line
"""


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Mount]:
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE)
    return {mount.point: mount for mount in mounts.read(table)}


def test_what_is_hidden_is_not_there(found: dict[str, Mount]) -> None:
    assert set(found) == {
        *("/", "/proc", "/mnt/a b\\c", "/home", "/srv", "/srv/seen", "/data"),
        *("/run/netns/x", "/no\udcffutf8"),
    }
    assert found["/srv"].fs_type == "xfs"


def test_fields_are_read(found: dict[str, Mount]) -> None:
    home = found["/home"]
    assert (home.device, home.root, home.source) == ("8:1", "/home", "/dev/sda1")
    assert (home.number, home.parent) == (23, 20)
    assert home.is_disc
    assert home.is_local
    assert found["/proc"].is_kernel
    assert found["/srv/seen"].is_local
    assert not found["/srv/seen"].is_disc
    assert found["/mnt/a b\\c"].is_of_user
    assert not found["/mnt/a b\\c"].is_local
    assert not found["/no\udcffutf8"].is_of_user


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/", "/"),
        ("/etc", "/"),
        ("/home", "/home"),
        ("/homes", "/"),
        ("/srv/seen/x", "/srv/seen"),
        ("/srv/x", "/srv"),
    ],
)
def test_which_mount_holds_a_path(
    found: dict[str, Mount], path: str, point: str
) -> None:
    assert mounts.at(path, found.values()) == found[point]


def test_this_machines_own_table_is_read() -> None:
    # In a chroot "/" need not be one.
    assert "/proc" in {mount.point for mount in mounts.read()}


def test_parents() -> None:
    assert list(mounts.parents("/a/b c/d")) == ["/a/b c", "/a", "/"]
    assert list(mounts.parents("/")) == []


def test_a_root_that_is_its_own_parent() -> None:
    root = Mount(1, 1, "0:1", "/", "/", "rootfs", "none")
    below = Mount(2, 1, "0:2", "/", "/proc", "proc", "none")
    over = Mount(3, 1, "8:1", "/", "/", "ext4", "/dev/sda")
    assert list(mounts.visible([root, below])) == [root, below]
    assert list(mounts.visible([root, below, over])) == [over]
