"""btrfs subvolumes, by way of btrfs-progs.

All of this works for the unprivileged owner of a subvolume when the file system is
mounted with ``user_subvol_rm_allowed`` (kernel 4.18 or later).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from byteback.errors import ToolError, quote
from byteback.model.free_space import FreeSpace, has_settled
from byteback.system import privilege, process
from byteback.system.btrfs import space

SUBVOLUME_INODE = 256  # the root directory of each subvolume, see btrfs(5)
DELETE_TRIES = 4
RETRY_DELAY_S = 1.0

# One compaction: block groups, of 1 GiB on a large disc, that are at most half full.
COMPACT_USAGE = 50
COMPACT_GROUPS = 8
COMPACT_TIMEOUT_S = 600.0

# Watching free space settle: one reading every SETTLE_POLL_S, done when it grew over
# SETTLE_WINDOW of them by no more than one in SETTLE_SHARE, and SETTLE_BYTES at most.
# On a large store even a slow cleaner returns more than that in the time.
SETTLE_POLL_S = 1.0
SETTLE_WINDOW = 8
SETTLE_SHARE = 2000
SETTLE_BYTES = 16 * 2**20


def _is_any(_: int) -> bool:
    return True


def is_subvolume(path: Path) -> bool:
    """True if ``path`` itself (never a link to it) is the root of a subvolume."""
    try:
        status = path.lstat()
        parent = path.parent.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_ino == SUBVOLUME_INODE
        and status.st_dev != parent.st_dev
    )


def create_subvolume(path: Path) -> None:
    """Make an empty subvolume at ``path``, whose parent must be on btrfs."""
    process.run(["btrfs", "subvolume", "create", "--", path])


def take_snapshot(source: Path, target: Path, *, read_only: bool = True) -> None:
    """Snapshot the subvolume ``source`` as ``target``, which must not exist.

    btrfs would put the snapshot *inside* an existing directory, so that is refused.
    The caller holds the lock that keeps others from making ``target`` meanwhile.
    """
    if target.exists() or target.is_symlink():
        raise ToolError(f"cannot make snapshot {quote(str(target))}: it exists already")
    flags = ["-r"] if read_only else []
    process.run(["btrfs", "subvolume", "snapshot", *flags, "--", source, target])


def is_read_only(path: Path) -> bool:
    """True if the subvolume's read-only flag is set."""
    shown = process.run(["btrfs", "property", "get", "-t", "subvol", path, "ro"])
    return shown.text.strip() == "ro=true"


def set_read_only(path: Path, read_only: bool) -> None:
    """Set or clear the subvolume's read-only flag; its owner may do both."""
    value = "true" if read_only else "false"
    process.run(["btrfs", "property", "set", "-t", "subvol", path, "ro", value])


def delete_subvolume(path: Path, check: Callable[[int], bool] = _is_any) -> None:
    """Delete a subvolume and wait until the deletion itself is on disc.

    Its space comes back later, when the kernel's cleaner has been through it; without
    ``--commit-after`` it would not even begin before the next periodic commit, 30 s.
    btrfs prints its success before it knows of a failure: only the status counts.
    Root asks ``check`` about the very directory that it is about to delete.
    """
    if not privilege.is_root_within_reach():
        _delete_by_path(path)
        return
    with privilege.raised():
        try:
            _delete_by_number(path, check)
        except OSError as error:  # a link, for one, where a directory was
            raise ToolError(
                f"cannot delete {quote(str(path))}: {error.strerror}"
            ) from None


def _delete_by_path(path: Path) -> None:
    """As the owner, who can delete nothing here that he could not delete anyway.

    He must clear the read-only flag first; what cannot be deleted gets it back.
    """
    was_read_only = is_read_only(path)
    if was_read_only:
        set_read_only(path, False)
    try:
        process.run(["btrfs", "subvolume", "delete", "--commit-after", "--", path])
    except ToolError:
        if was_read_only and is_subvolume(path):
            with contextlib.suppress(ToolError):
                set_read_only(path, True)
        raise


def _delete_by_number(path: Path, check: Callable[[int], bool]) -> None:
    """As root, who could delete anything: what was looked at, and nothing else (D15).

    The two directories above ``path`` belong to the store's user, and btrfs resolves
    paths anew. So they are opened once, without following links, and the subvolume is
    named by its number. Root can delete a read-only one as it is.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        opened: list[int] = []
        for name in (path.parent.parent, path.parent.name, path.name):
            directory = opened[-1] if opened else None
            opened.append(os.open(name, flags, dir_fd=directory))
            stack.callback(os.close, opened[-1])
        _, parent, fd = opened
        status = os.fstat(fd)
        is_root_directory = status.st_ino == SUBVOLUME_INODE
        if not is_root_directory or status.st_dev == os.fstat(parent).st_dev:
            raise ToolError(f"{quote(str(path))} is no subvolume")
        if not check(fd):
            raise ToolError(f"{quote(str(path))} is not what was to be deleted")
        above = _surrounding_subvolume(parent)
        stack.callback(os.close, above)
        show = ["btrfs", "inspect-internal", "rootid", f"/proc/self/fd/{fd}"]
        number = process.run(show, pass_fds=[fd]).text.strip()
        delete = ["btrfs", "subvolume", "delete", "--commit-after"]
        process.run(
            [*delete, "--subvolid", number, f"/proc/self/fd/{above}"],
            pass_fds=[above],
        )


def _surrounding_subvolume(directory: int) -> int:
    """A descriptor of the subvolume that holds a directory; btrfs asks for one."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    up = os.dup(directory)
    while os.fstat(up).st_ino != SUBVOLUME_INODE:
        here = up
        up = os.open("..", flags, dir_fd=here)
        is_top = os.path.sameopenfile(here, up)
        os.close(here)
        if is_top:  # of all, and not on btrfs
            os.close(up)
            raise ToolError("cannot find the subvolume that holds the store")
    return up


def sync(path: Path) -> None:
    """Commit the file system that holds ``path``; open to any user."""
    process.run(["btrfs", "filesystem", "sync", path])


def delete_on_full_disc(
    path: Path,
    make_room: Callable[[], object],
    check: Callable[[int], bool] = _is_any,
) -> None:
    """Delete a subvolume even where the deletion itself finds no space at first.

    btrfs keeps a reserve for this, which a commit fills up again; from the second
    failure on ``make_room`` is called as well. Raises ToolError as delete_subvolume.
    """
    for tries in range(1, DELETE_TRIES + 1):
        try:
            delete_subvolume(path, check)
        except ToolError as error:
            if tries == DELETE_TRIES or not is_out_of_space(error):
                raise
            if tries > 1:
                make_room()
            with contextlib.suppress(ToolError):
                sync(path.parent)
            time.sleep(RETRY_DELAY_S)
        else:
            return


def compact(path: Path, kind: str) -> bool:
    """Move together what lies scattered in half-empty block groups of one kind.

    ``kind`` is "data" or "metadata"; what comes free can serve the other. Only root
    can; False where that failed or took too long, and was stopped.
    """
    if not privilege.is_root_within_reach():
        return False
    choice = f"-{kind[0]}usage={COMPACT_USAGE},limit={COMPACT_GROUPS}"
    with privilege.raised():
        try:
            process.run(
                ["btrfs", "balance", "start", choice, path], timeout_s=COMPACT_TIMEOUT_S
            )
        except ToolError as error:
            if error.status is not None:  # it may be an administrator's that runs now
                return False
            # The kernel goes on without the program that was stopped.
            process.run(["btrfs", "balance", "cancel", path], tolerate=range(256))
            return False
    return True


def free_space(path: Path) -> FreeSpace:
    """The room in the file system that holds ``path``, as the kernel has it now.

    What btrfs says of its metadata is left out where it cannot be had.
    """
    view = os.statvfs(path)
    return FreeSpace(
        free_bytes=view.f_bavail * view.f_frsize,
        total_bytes=view.f_blocks * view.f_frsize,
        metadata=space.read_metadata_room(path),
    )


def wait_for_deletions(path: Path, timeout_s: float) -> bool:
    """Wait until the space of all deleted subvolumes is back; False if it is not yet.

    ``btrfs subvolume sync`` knows for certain, but serves root alone before kernel
    6.13 and btrfs-progs of that time. Where it fails, free space is watched until it
    grows no more.
    """
    deadline = time.monotonic() + timeout_s
    _try_sync(path)  # a commit also wakes the kernel's cleaner
    try:
        with privilege.raised():
            process.run(["btrfs", "subvolume", "sync", path], timeout_s=timeout_s)
    except ToolError:
        if time.monotonic() >= deadline:
            return False
        return _watch_settling(path, deadline)
    _try_sync(path)  # what the cleaner freed can be used after the next commit
    return True


def _watch_settling(path: Path, deadline: float) -> bool:
    readings: list[int] = []
    while True:
        _try_sync(path)
        view = os.statvfs(path)
        readings.append(view.f_bfree * view.f_frsize)
        total = view.f_blocks * view.f_frsize
        tolerance = min(total // SETTLE_SHARE, SETTLE_BYTES)
        if has_settled(readings, SETTLE_WINDOW, tolerance):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(SETTLE_POLL_S)


def _try_sync(path: Path) -> None:
    with contextlib.suppress(ToolError):
        sync(path)


def is_out_of_space(error: ToolError) -> bool:
    """True if a program failed because the disc is full."""
    return any("No space left on device" in line for line in error.details)
