"""Tells whether the store is mounted and can be written to.

A mount point with nothing mounted on it looks like an empty store. The mark tells them
apart: the identity of the store's subvolume, which root records outside of the store
(D42). The user byteback reads it. Nothing is written below a bare mount point, so each
program asks here before it uses the store.
"""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path

from byteback.errors import StoreError, quote
from byteback.server.store.layout import Store
from byteback.system.btrfs.identity import Identity, identify
from byteback.wire.failures import Reason

PATH = Path("/var/lib/byteback/store")
MAX_BYTES = 1000
_COMMENT = (
    "# Where the backup store is; written by byteback-setup-server. See byteback(7)."
)


class Condition(enum.Enum):
    """The condition of the store."""

    READY = "ready"
    READ_ONLY = "read-only"  # mounted so, or by btrfs itself after errors of the disc
    MISSING = "missing"  # not mounted, or something else is in its place


def look(store: Store) -> Condition:
    """The store's condition now. It costs a few system calls, and no privilege."""
    if not _is_mark(identify(store.root)):
        return Condition.MISSING
    return Condition.READ_ONLY if _is_read_only(store.root) else Condition.READY


def check_mounted(store: Store) -> None:
    """Raise StoreError unless the store is mounted."""
    if not _is_mark(identify(store.root)):
        raise missing(store)


def check_writable(store: Store) -> None:
    """Raise StoreError unless the store is mounted and can be written to."""
    check_mounted(store)
    if _is_read_only(store.root):
        raise StoreError(
            f"the store {quote(str(store.root))} is read-only",
            hint="the kernel's log (dmesg) says why: btrfs does this itself after disc "
            "errors. Put that right, then mount the store anew",
            reason=Reason.STORE_FAILED,
        )


def read_mark() -> Identity | None:
    """The recorded identity of the store; None if root has recorded none yet."""
    try:
        with PATH.open(encoding="ascii") as file:
            lines = file.read(MAX_BYTES).splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    with contextlib.suppress(KeyError, ValueError):
        return Identity(fields["filesystem"], int(fields["subvolume"]))
    return None


def write_mark(mark: Identity) -> None:
    """Record which subvolume is the store, for every user to read. Raises OSError."""
    from byteback.system import files

    PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    text = f"{_COMMENT}\nfilesystem {mark.filesystem}\nsubvolume {mark.subvolume}\n"
    files.write_atomically(PATH, text.encode("ascii"))


def missing(store: Store) -> StoreError:
    """The error for a store that is not mounted: what should be there, and what is."""
    found, mark = identify(store.root), read_mark()
    details = []
    if mark is not None:
        details.append(f"the store is {_describe(mark)}")
        there = "no btrfs" if found is None else _describe(found)
        details.append(f"what is there now is {there}")
    return StoreError(
        f"the store is not mounted at {quote(str(store.root))}",
        hint=f"'mount {store.root}' mounts it. If its disc was replaced, or the store "
        "was moved, run byteback-setup-server and name the new place",
        details=details,
        reason=Reason.STORE_MISSING,
    )


def _is_mark(found: Identity | None) -> bool:
    """True if what is at the store's place is the store, as far as that is known."""
    mark = read_mark()
    return found is not None and mark in (None, found)


def _is_read_only(directory: Path) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _describe(identity: Identity) -> str:
    return f"subvolume {identity.subvolume} of the btrfs {identity.filesystem}"
