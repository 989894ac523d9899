"""The client's files in /etc/byteback, and what they say."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import NotRootError, NotSetUpError, UsageError, quote
from byteback.model.destination import (
    Destination,
    format_destination,
    parse_destination,
)
from byteback.model.rsync_flags import StrayWordError, collapse

logger = logging.getLogger(__name__)

DIRECTORY = Path("/etc/byteback")
RUN_DIRECTORY = Path("/run/byteback")  # root's: no other user can put files there
AUTO, ZSTD, NONE = "auto", "zstd", "none"
COMPRESSION = (AUTO, ZSTD, NONE)  # whether rsync compresses what it sends
FULL_EVERY_DAYS = 7
MAX_FULL_DAYS = 366
MAX_FILE = 1024 * 1024  # bytes; a larger configuration file is none
# What every rsync of ours is given, by the options' long names.
ALWAYS_GIVEN = frozenset(
    {"archive", "acls", "xattrs", "hard-links", "numeric-ids", "relative", "stats"}
)


@dataclass(frozen=True)
class Files:
    """The paths of all files. Only tests use another directory than the default."""

    directory: Path = DIRECTORY

    @property
    def key(self) -> Path:
        """The private key of this machine, made by byteback-setup-client."""
        return self.directory / "key"

    @property
    def destination(self) -> Path:
        """One line: the server."""
        return self.directory / "destination"

    @property
    def known_hosts(self) -> Path:
        """The server's host key as it was seen at set-up."""
        return self.directory / "known_hosts"

    def existing(self, name: str) -> Path | None:
        """The path of an optional file if it is there."""
        path = self.directory / name
        return path if path.is_file() else None


def read_destination(files: Files, given: str | None) -> Destination:
    """The server: the command line's if ``given``, else the file's.

    Raises NotSetUpError if neither says, UsageError if it is no destination.
    """
    if given is not None:
        return parse_destination(given)
    text = read_text(files.destination)
    if text is None or not text.strip():
        raise NotSetUpError(
            f"no destination: {quote(str(files.destination))} is "
            + ("missing" if text is None else "empty"),
            hint="run byteback-setup-client --destination byteback@SERVER: once, "
            "or give --destination",
        )
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        if len(lines) > 1:
            raise UsageError("it holds more than one line")
        return parse_destination(lines[0])
    except UsageError as error:
        raise UsageError(
            f"{quote(str(files.destination))}: {error.message}", error.hint
        ) from None


def setup_command(
    files: Files,
    destination: Destination | None = None,
    *options: str,
    key: Path | None = None,
) -> str:
    """The command that sets this machine up again, as a shell takes it.

    What set-up remembers by itself is left out. ``destination`` of None is the
    remembered one.
    """
    words = ["byteback-setup-client"]
    if destination is not None and destination != _remembered_destination(files):
        words += ["--destination", format_destination(destination)]
    if key is not None and key != files.key:
        words += ["--ssh-key", str(key)]
    return shlex.join([*words, *options])


def _remembered_destination(files: Files) -> Destination | None:
    with contextlib.suppress(NotSetUpError, UsageError):
        return read_destination(files, None)
    return None


def check_key(key: Path) -> Path:
    """``key`` itself if it can be read. Raises NotSetUpError or NotRootError if not.

    One that others can read after a ``chmod -R``, say, or a restore without modes, ssh
    would not use: its mode is put right.
    """
    try:
        status = key.stat()
        is_empty = status.st_size == 0
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            logger.warning("others could read %s: set its mode to 0600", key)
            with contextlib.suppress(OSError):  # a read-only disc
                key.chmod(0o600)
    except FileNotFoundError:
        raise NotSetUpError(
            f"this machine has no key: {quote(str(key))} is missing",
            hint="run byteback-setup-client --destination byteback@SERVER: once",
        ) from None
    except PermissionError:  # not even its directory; os.access says no as well
        is_empty = False
    except OSError as error:
        raise NotSetUpError(
            f"cannot use the key {quote(str(key))}: {error.strerror}",
            hint="see what is at that path",
        ) from None
    # ssh would go on without a key that it cannot read, and be refused.
    if not os.access(key, os.R_OK):
        raise NotRootError(f"cannot read the key {quote(str(key))}")
    if is_empty:
        raise NotSetUpError(
            f"the key {quote(str(key))} is empty",
            hint=f"have a new one made: rm {key} && byteback-setup-client "
            "--replace-key",
        )
    return key


def read_io_timeout(files: Files, given: int | None, default: int) -> int:
    """Seconds of silence after which a transfer is given up: option, file, default."""
    if given is not None:
        return given
    path = files.directory / "io_timeout"
    text = read_text(path)
    if text is None or not text.strip():
        return default
    line = text.split()[0]
    if not (line.isascii() and line.isdigit() and 0 < int(line) < 10**7):
        raise UsageError(
            f"{quote(str(path))} holds {quote(line[:40])}, which is no time in seconds",
            hint=f"write one number there, or remove the file for {default}",
        )
    return int(line)


def read_compression(files: Files, given: str | None) -> str:
    """One of COMPRESSION: option, file, AUTO. Raises UsageError for another word."""
    path = files.directory / "compress"
    word = ((read_text(path) or "").strip() or AUTO) if given is None else given
    if word not in COMPRESSION:
        where = "--compress" if given is not None else quote(str(path))
        raise UsageError(
            f"{where}: {quote(word[:40])} is no way to compress",
            hint=f"it is one of {', '.join(COMPRESSION)}",
        )
    return word


def read_full_every_days(files: Files) -> int:
    """After how many days a backup compares everything; 1 for each one."""
    path = files.directory / "full_every_days"
    text = (read_text(path) or "").strip()
    if not text:
        return FULL_EVERY_DAYS
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_FULL_DAYS):
        raise UsageError(
            f"{quote(str(path))} holds {quote(text[:40])}, which is no number of days",
            hint=f"write a number from 1 to {MAX_FULL_DAYS} there, or remove the file "
            f"for {FULL_EVERY_DAYS}",
        )
    return int(text)


def read_follow_moves(files: Files) -> bool:
    """False if this machine stays where it is, when its server moves it to another."""
    path = files.directory / "follow_moves"
    word = (read_text(path) or "").strip() or "true"
    if word not in ("true", "false"):
        raise UsageError(
            f"{quote(str(path))} holds {quote(word[:40])}",
            hint="write true or false there, or remove the file for true",
        )
    return word == "true"


def read_rsync_flags(files: Files) -> list[str]:
    """Extra words for rsync: one or several a line, quoted as for a shell.

    An option that is given twice, by them or by them and us, counts once: rsync would
    take -XX for something else than -X.
    """
    path = files.directory / "rsync_flags"
    text = read_text(path) or ""
    try:
        words = collapse(shlex.split(text, comments=True), ALWAYS_GIVEN)
    except StrayWordError as error:
        raise UsageError(
            f"{quote(str(path))}: {quote(str(error))} is no option of rsync's",
            hint="write an option and its value as one word: --option=value",
        ) from None
    except ValueError as error:
        raise UsageError(f"{quote(str(path))}: {error}") from None
    if any(word.startswith("--files-from") for word in words):
        raise UsageError(
            f"{quote(str(path))}: --files-from is byteback's own",
            hint="say what is to be backed up with byteback-backup --source",
        )
    return words


def read_text(path: Path) -> str | None:
    """A configuration file's text, or None if there is no such file.

    Raises UsageError for one that is no text, or far too large to be one of ours.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {quote(str(path))}: {error.strerror}") from None
    try:
        if len(data) > MAX_FILE or b"\0" in data:
            raise ValueError
        return data.decode("utf-8")
    except ValueError:
        raise UsageError(
            f"{quote(str(path))} is no text file", hint="restore or remove it"
        ) from None
