"""bubblewrap: a mount namespace that holds one tree and the system's libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from byteback.system import process
from byteback.system.confinement import confine

# Where the one tree is in that namespace. The store's own path never shows, not even
# in rsync's messages, which go to the client.
TREE = Path("/backup")
FIFO = Path("/log")
SHIM = Path("/confine.py")  # what stands before the program there
_PROBE_TIMEOUT_S = 10.0


def program() -> str | None:
    """The path of bwrap, or None."""
    return process.find_program("bwrap")


def interpreter() -> str:
    """The Python that runs, by its own name and not a virtual environment's link."""
    return os.path.realpath(sys.executable)


def argv(tree: Path, *, is_writable: bool, fifo: Path | None = None) -> list[str]:
    """bwrap and its options, up to the program: ``tree`` is at TREE there.

    And ``fifo`` at FIFO, if there is one.

    There is no /proc, /sys, /tmp or /home, no network, no other process to be seen,
    and no capability; root's files are read-only. It ends with the process that started
    it.
    """
    found = program()
    if found is None:
        raise FileNotFoundError("bwrap")
    return [
        found,
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--hostname", "byteback", "--clearenv"),
        *("--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LC_ALL", "C.UTF-8"),
        *_system(),
        *("--ro-bind", str(Path(confine.__file__)), str(SHIM)),
        *("--bind" if is_writable else "--ro-bind", str(tree), str(TREE)),
        *(("--bind", str(fifo), str(FIFO)) if fifo is not None else ()),
        *("--remount-ro", "/"),
        *("--chdir", str(TREE), "--"),
    ]


def works_as(user: str | None = None) -> bool:
    """True if bwrap can be used here, by ``user`` where the caller is root.

    It cannot inside a chroot, nor where the system keeps its users from making
    namespaces.
    """
    if program() is None:
        return False
    words = [*argv(Path("/usr"), is_writable=False), "/usr/bin/true"]
    if user is not None and os.geteuid() == 0:
        words = ["runuser", "-u", user, "--", *words]
    finished = process.run(words, tolerate=range(-64, 256), timeout_s=_PROBE_TIMEOUT_S)
    return finished.status == 0


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("/lib", "/lib32", "/lib64", "/bin"):
        place = Path(name)
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), name)
        elif place.is_dir():
            yield from ("--ro-bind", name, name)
    prefix = os.path.realpath(sys.base_prefix)
    if not prefix.startswith("/usr"):
        yield from ("--ro-bind", prefix, prefix)
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    for device in ("/dev/null", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
