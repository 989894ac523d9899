"""The remote shell of a confined rsync: it copies between rsync and two descriptors.

An rsync that fetches starts a remote shell, and would need a network for it. Confined
(sandbox.py) it has none: ssh runs outside, and this stands in its place inside. It is
given to Python as text, for none of byteback's files are there. rsync needs
--blocking-io: the ioctl by which Python would undo what rsync does to the pipe between
them is denied.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from byteback.system.confinement import bubblewrap
from byteback.system.confinement.landlock import READ, Grant
from byteback.system.confinement.sandbox import program_grants

# What stands behind it, a host and a command, is rsync's, and of no use here.
_CODE = """\
import os, sys
a, b = map(int, sys.argv[1:3])
s, d = (0, b) if os.fork() == 0 else (a, 1)
os.close(a if s == 0 else b)
os.close(1 if s == 0 else 0)
while True:
    m = os.read(s, 262144)
    if not m:
        break
    m = memoryview(m)
    while m:
        m = m[os.write(d, m):]
"""
_SHOW = "import sys; sys.stderr.write(chr(10) + chr(32).join(sys.argv[1:]) + chr(10))"


def words(from_there: int, to_there: int) -> list[str]:
    """The remote shell's command line, without the host and what follows it."""
    return [*_python(), _CODE, str(from_there), str(to_there)]


def showing_words() -> list[str]:
    """A remote shell that only prints the command which rsync gives it, and ends."""
    return [*_python(), _SHOW]


def grants() -> Sequence[Grant]:
    """Grants for running it where nothing but rsync could be run."""
    python = Path(bubblewrap.interpreter())
    library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return (
        *program_grants(python),
        *(Grant(Path(path), READ) for path in sorted(library) if path),
    )


def _python() -> list[str]:
    return [bubblewrap.interpreter(), "-I", "-S", "-c"]
