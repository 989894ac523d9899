"""Mounts the store as /etc/fstab says, and records its mark where there is none.

Only root does this: at set-up, and at the start of each pruning run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from byteback.errors import StoreElsewhereError, StoreError, ToolError
from byteback.server.store import presence
from byteback.server.store.layout import STATE, Store
from byteback.system.btrfs.identity import identify
from byteback.system.diary import Diary

if TYPE_CHECKING:
    from byteback.system import fstab

logger = Diary(__name__)

# systemd itself waits up to 90 seconds for a device that is not there.
MOUNT_TIMEOUT_S = 120.0
BY_HAND = "noauto"  # an administrator mounts it, after fencing other machines say


def mount_if_missing(store: Store) -> None:
    """Mount the store once if it is not there. Raises StoreError if it stays away."""
    try:
        check(store)
    except StoreError as error:
        entry = find_unmounted(store.root)
        if entry is None or isinstance(error, StoreElsewhereError):
            raise
        try:
            _mount(Path(entry.mount_point))
        except ToolError as failed:
            error.details += (f"it could not be mounted: {failed.message}",)
            error.details += failed.details
            raise error from None
        check(store)
        logger.warning("the store was not mounted, and is mounted now: %s", store.root)


def check(store: Store) -> None:
    """Raise StoreError unless the store is mounted, also where it has no mark yet.

    StoreElsewhereError where an administrator mounts it by hand.
    """
    is_missing = presence.look(store) is presence.Condition.MISSING
    if not is_missing and presence.read_mark() is not None:
        return
    entry = find_unmounted(store.root)
    if entry is not None and BY_HAND in entry.options:
        raise elsewhere(store, entry)
    if is_missing or entry is not None:
        raise presence.missing(store)


def elsewhere(store: Store, entry: fstab.Entry) -> StoreElsewhereError:
    """The error for a store that ``entry`` of fstab leaves to the administrator."""
    from byteback.system import fstab

    missing = presence.missing(store)
    return StoreElsewhereError(
        missing.message,
        hint=f"{fstab.PATH} has {BY_HAND} for it: it is mounted by hand. Make sure "
        "that no other machine has it mounted, for two mounts destroy it; then "
        f"'mount {entry.mount_point}' mounts it here",
        details=missing.details,
        reason=missing.reason,
    )


def find_unmounted(directory: Path) -> fstab.Entry | None:
    """The line of fstab that should be mounted for ``directory``, and is not."""
    from byteback.system import fstab, mounts

    path = Path(os.path.realpath(directory))
    mounted = {mount.point for mount in mounts.read()}
    for point in (path, *path.parents):
        if str(point) in mounted:
            return None
        entry = fstab.find(str(point))
        if entry is not None:
            return entry
    return None


def adopt(store: Store) -> bool:
    """Record the mark of a store that has none: an older byteback made it.

    Only what is mounted and looks like a store is taken for one; the caller is root and
    has called ``check``. True if a mark was recorded.
    """
    if presence.read_mark() is not None:
        return False
    found = identify(store.root)
    is_used = (store.root / STATE).exists() or store.authorized_keys.exists()
    if found is None or not is_used:
        return False
    presence.write_mark(found)
    logger.info("recorded the store's file system in %s", presence.PATH)
    return True


def _mount(point: Path) -> None:
    """Mount what fstab names. Raises ToolError.

    systemd is asked where it runs: a service with a mount namespace of its own would
    mount the store for itself alone.
    """
    from byteback.system import host, systemd
    from byteback.system.btrfs import filesystem

    if host.is_systemd_running():
        systemd.start_mount(point, timeout_s=MOUNT_TIMEOUT_S)
    else:
        filesystem.mount_from_fstab(point, timeout_s=MOUNT_TIMEOUT_S)
