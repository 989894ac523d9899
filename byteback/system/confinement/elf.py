"""Finds a program's loader and its shared libraries."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from byteback.errors import ToolError
from byteback.system import process

_PT_INTERP = 3
_LISTED = re.compile(r"(?:=>\s+|^\s*)(/\S+) \(0x")
# Character sets and messages come from beside the C library.
_BESIDE_LIBC = ("gconv",)
_LOCALES = (Path("/usr/lib/locale/C.utf8"), Path("/usr/lib/locale/C.UTF-8"))
_LIBRARY_DIRECTORIES = tuple(
    Path(name)
    for name in ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")
)


def loader(program: Path) -> Path | None:
    """The dynamic loader that a 64-bit little-endian program names, or None."""
    with program.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return None
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
        for start in range(0, len(table) - 55, size):
            kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", table, start)
            if kind == _PT_INTERP:
                file.seek(at)
                return Path(file.read(min(length, 4096)).rstrip(b"\0").decode())
    return None


def libraries(program: Path, its_loader: Path) -> list[Path]:
    """The shared libraries that the loader would load for ``program``.

    Only for programs that root installed: the loader maps what they name. Where the
    loader cannot tell, all directories of libraries.
    """
    try:
        listed = process.run([its_loader, "--list", program], timeout_s=10).text
    except ToolError:
        return list(_LIBRARY_DIRECTORIES)
    found = [
        Path(match[1])
        for line in listed.splitlines()
        if (match := _LISTED.search(line))
    ]
    if not found:
        return list(_LIBRARY_DIRECTORIES)
    for path in tuple(found):
        if path.name.startswith("libc.so"):
            found += [path.parent / name for name in _BESIDE_LIBC]
    return [*found, *(path for path in _LOCALES if path.is_dir())]
