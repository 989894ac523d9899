"""Lets a program write below some directories and nowhere else (Landlock; D31).

It may read and run what its user may, and so start ssh with all that this needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from byteback.system.confinement import confine, landlock
from byteback.system.confinement.landlock import MAKES, WRITES, Grant

# What programs open for writing without meaning to keep anything.
_DEVICES = ("/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts")


def only_below(directories: Collection[Path]) -> Callable[[], None] | None:
    """For a child, before it becomes the program; None where the kernel cannot.

    Chmod, chown, utime and setxattr of what it can name are not held back, nor is what
    others do at its word. Should the kernel refuse after all, the program runs without:
    a restore must not fail of this.
    """
    version = landlock.abi()
    if version < landlock.MIN_ABI:
        return None
    ruleset = landlock.writing_ruleset(version)
    wanted = [Grant(path, WRITES | MAKES) for path in directories]
    wanted += [Grant(Path(name), WRITES) for name in _DEVICES]
    grants = [landlock.encode(one, version) for one in wanted if one.path.exists()]

    def apply() -> None:
        with contextlib.suppress(OSError):
            confine.enter(ruleset, grants, b"")

    return apply
