"""The treatment of each kind of mount, by the mount table."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from byteback.client.backup import mount_points
from byteback.client.backup.mount_points import Found, Wanted, examine
from byteback.system import time_limit
from byteback.system.mounts import Mount
from byteback.system.time_limit import SILENT, Failed


def mount(point: str, fs_type: str, *options: str, root: str = "/") -> Mount:
    return Mount(1, 1, "0:1", root, point, fs_type, "x", frozenset(options))


USERS = mount("/home/joe/far", "fuse.sshfs", "user_id=1000")
TABLE = [
    mount("/", "overlay"),
    mount("/boot/efi", "vfat"),
    mount("/data", "btrfs"),
    mount("/etc/resolv.conf", "tmpfs", root="/resolv"),
    USERS,
    mount("/mnt/nfs share", "nfs4"),
    mount("/proc", "proc"),
    mount("/proc/sys/fs/binfmt_misc", "binfmt_misc"),
    mount("/run", "tmpfs"),
    mount("/run/netns/a", "nsfs", root="net:[1]"),
    mount("/run/user/1000/doc", "fuse.portal", "user_id=1000"),
    mount("/share", "autofs"),
    mount("/srv", "ext4"),
    mount("/var/lib/docker/x", "overlay"),
]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mount points that were looked at; all of them answer."""
    seen: list[str] = []

    def ask(questions: Sequence[Callable[[], object]], _: float) -> list[object]:
        seen.extend(question.args[0] for question in questions)  # type: ignore[attr-defined]
        return [None] * len(questions)

    monkeypatch.setattr(time_limit, "ask", ask)
    monkeypatch.setattr(mount_points, "_can_hide", tuple)
    return seen


def found(*sources: str, **words: object) -> Found:
    return examine(TABLE, Wanted(sources or ("/",), **words))  # type: ignore[arg-type]


def test_a_whole_machine(looked: list[str]) -> None:
    result = found()
    assert looked == ["/mnt/nfs share"]
    assert set(result.first) == {
        *("- /home/joe/far/*", "- /run/user/1000/doc/*", "- /proc/*"),
        *("+ /run/netns/a/", "- /run/netns/a", "- /run/netns/a/*"),
    }
    assert set(result.automatic) == {
        *("- /boot/efi/*", "- /run/*", "- /var/lib/docker/x/*"),
        *("+ /etc/resolv.conf/", "- /etc/resolv.conf", "- /etc/resolv.conf/*"),
        *("+ /mnt/nfs share/", "- /mnt/nfs share", "- /mnt/nfs share/*"),
        *("+ /share/", "- /share", "- /share/*"),
    }
    assert set(result.hidden) == {"/home/joe/far", "/run/user/1000/doc", "/share"}
    assert set(result.unusable) == {"/home/joe/far"}
    assert "/data" not in result.foreign
    assert {"/run", "/mnt/nfs share", "/proc"} <= result.foreign


def test_what_the_kernel_shows_is_left_out_whatever_is_asked(
    looked: list[str],
) -> None:
    result = found(is_automatic=False)
    assert result.automatic == ()
    assert "- /proc/*" in result.first
    assert "- /run/netns/a" in result.first
    assert set(looked) == {"/mnt/nfs share", "/share"}
    assert "/run/user/1000/doc" in result.unusable


def test_what_is_asked_for_is_sent(looked: list[str]) -> None:
    result = found("/proc", "/home/joe/far/away", "/mnt/nfs share")
    assert looked == []
    assert result.unusable == {}
    assert "/home/joe/far" not in result.hidden
    assert "/home/joe/far" not in result.foreign
    assert "- /proc/*" not in result.first
    assert "- /proc/sys/fs/binfmt_misc/*" in result.first
    assert "- /mnt/nfs share/*" not in result.automatic
    rules = found("/", "/proc/sys/kernel").first
    assert rules.index("+ /proc/sys/kernel") < rules.index("- /proc/sys/*")


def test_nothing_is_looked_at_that_rsync_does_not_meet(looked: list[str]) -> None:
    found("/etc/fstab")
    found("/srv")
    found(left_out=["/mnt"])
    assert looked == []
    found("/mnt/other")
    assert looked == ["/mnt/nfs share"]
    found(left_out=["/mnt"], may_include=True)
    assert looked == ["/mnt/nfs share"] * 2


@pytest.mark.parametrize("trouble", [Failed(errno.ENOTCONN), SILENT])
def test_what_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, trouble: object, looked: list[str]
) -> None:
    monkeypatch.setattr(time_limit, "ask", lambda asked, _: [trouble] * len(asked))
    result = found()
    assert "- /mnt/nfs share/*" in result.first
    assert "/mnt/nfs share" in result.hidden
    assert set(result.unusable) == {"/mnt/nfs share", "/home/joe/far"}
    # Where it cannot be kept out of rsync's sight.
    monkeypatch.setattr(mount_points, "_can_hide", lambda _: ())
    if trouble is SILENT:
        with pytest.raises(Exception, match="does not answer"):
            found()
    else:
        first = found().first
        assert "- /mnt/nfs share" in first
        assert "- /home/joe/far" in first
    assert not looked
