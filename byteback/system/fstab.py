"""/etc/fstab, edited line by line: what is not ours stays as it is, byte for byte."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.system import files

PATH = Path("/etc/fstab")
# Stands on the line before an entry that byteback added: only such an entry is
# changed later.
MARK = "# The store of byteback, added by byteback-setup-server."
ENCODED = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}


@dataclass(frozen=True)
class Entry:
    """One mount that the file describes; fields are decoded."""

    spec: str  # device, UUID=..., or the file of a loop mount
    mount_point: str
    fs_type: str
    options: tuple[str, ...]
    line: int = -1  # index of its line, -1 for an entry that is in no file yet
    is_ours: bool = False


def read(path: Path = PATH) -> list[Entry]:
    """All entries; a missing file has none, a broken line is none."""
    lines = _lines(path)
    entries = []
    for index, line in enumerate(lines):
        fields = line.split()
        if len(fields) < 4 or fields[0].startswith("#"):
            continue
        spec, point, fs_type, options = (decode(field) for field in fields[:4])
        marked = index > 0 and lines[index - 1].strip() == MARK
        point = os.path.normpath(point) if point.startswith("/") else point
        entries.append(
            Entry(spec, point, fs_type, tuple(options.split(",")), index, marked)
        )
    return entries


def find(mount_point: str, path: Path = PATH) -> Entry | None:
    """The last entry for a mount point, which is the one on top after boot."""
    found = [entry for entry in read(path) if entry.mount_point == mount_point]
    return found[-1] if found else None


def add(entry: Entry, path: Path = PATH) -> None:
    """Append an entry, marked as ours. Raises OSError."""
    lines = _lines(path)
    end = [""] if not lines or lines[-1] == "" else ["", ""]
    body = lines[:-1] if end == [""] else lines
    _write(path, [*body, MARK, format_line(entry), ""])


def add_options(entry: Entry, options: Collection[str], path: Path = PATH) -> None:
    """Add mount options to an entry that ``read`` found. Raises OSError.

    Only the field of options changes; the spaces around it stay.
    """
    lines = _lines(path)
    wanted = ",".join((*entry.options, *options))
    lines[entry.line] = re.sub(
        r"^(\s*(?:\S+\s+){3})\S+",
        lambda match: match.group(1) + encode(wanted),
        lines[entry.line],
        count=1,
    )
    _write(path, lines)


def change(
    entry: Entry, spec: str, options: Collection[str], path: Path = PATH
) -> None:
    """Give an entry that ``read`` found another device and other options.

    Raises OSError.
    """
    lines = _lines(path)
    lines[entry.line] = re.sub(
        r"^(\s*)\S+((?:\s+\S+){2}\s+)\S+",
        lambda match: match[1] + encode(spec) + match[2] + encode(",".join(options)),
        lines[entry.line],
        count=1,
    )
    _write(path, lines)


def format_line(entry: Entry) -> str:
    """An entry as a line of fstab(5), never dumped and never checked at boot."""
    words = (entry.spec, entry.mount_point, entry.fs_type, ",".join(entry.options))
    for word in words:
        if not word or "\n" in word:
            raise UsageError(f"{quote(word)} cannot stand in {quote(str(PATH))}")
    return " ".join([*(encode(word) for word in words), "0", "0"])


def encode(field: str) -> str:
    """Blanks and backslashes as octal escapes, as fstab(5) wants them."""
    text = "".join(ENCODED.get(character, character) for character in field)
    return "\\043" + text[1:] if text.startswith("#") else text


def decode(field: str) -> str:
    """Octal escapes undone."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def _lines(path: Path) -> list[str]:
    """The text between the newlines; the last is empty if the file ends in one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content.decode("utf-8", "surrogateescape").split("\n")


def _write(path: Path, lines: list[str]) -> None:
    text = "\n".join(lines)
    files.write_atomically(path, text.encode("utf-8", "surrogateescape"))
