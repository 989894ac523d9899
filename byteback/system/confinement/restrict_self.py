"""Takes from this very process what it does not need to read one client's trees.

Apart from the sandbox, for searches: they start no program, and what
starting one takes is longer to load than most of them are at work.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from byteback.system.confinement import confine, landlock, seccomp
from byteback.system.confinement.landlock import READ, Grant


def restrict_self(trees: Collection[Path]) -> None:
    """From here on this process can read ``trees`` and Python's library, no more.

    It can run nothing, write nothing and connect to nothing. It still may write to what
    is open. Where the kernel has no Landlock, system calls alone are denied.
    Raises OSError if the kernel will not have it.
    """
    abi = landlock.abi()
    library = [path for path in sys.path if path]
    zones = ("/usr/share/zoneinfo", "/etc/localtime")
    readable = [*trees, *(Path(path) for path in (*library, *zones))]
    grants = [Grant(path, READ) for path in readable]
    confine.enter(
        landlock.ruleset(abi) if abi else b"",
        [landlock.encode(grant, abi) for grant in grants if grant.path.exists()],
        seccomp.build_filter(),
    )
