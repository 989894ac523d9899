"""The transfer itself: rsync's command line, and what its end means."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.client.backup.excludes import automatic_excludes
from byteback.client.record import keeper as record
from byteback.client.settings import MAX_FILE, Files, read_rsync_flags
from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.errors import UsageError, quote
from byteback.model.rsync_filter import source_rules
from byteback.system import host
from byteback.wire import requests

logger = logging.getLogger(__name__)

# --sparse is missing on purpose: with --inplace it rewrites whole files for a small
# change, and the snapshots could share nothing of them (D7).
OPTIONS = (
    "--archive",
    "--acls",
    "--xattrs",
    "--hard-links",
    "--numeric-ids",
    # Times to the nanosecond: else a file that is changed twice in one second passes
    # for unchanged, and times that differ by less are not set (rsync(1); D13).
    "--modify-window=-1",
    "--delete-excluded",
    "--delete-during",
    "--inplace",
    "--relative",
    "--no-protect-args",  # the server must see what is asked for
    "--stats",
    "--no-human-readable",
)
SENT_FORMAT = "--out-format=%l %i %n"  # own_files and largest_file read it
BLOCK_SIZE = "--block-size="
PROGRAM = "--rsync-path="


@dataclass(frozen=True)
class Selection:
    """What is to be sent: sources, and the rules that rsync applies to them."""

    rules: tuple[str, ...]  # rsync words: --filter=..., --exclude=...
    sources: tuple[str, ...] = ()  # absolute, without links above them


def select(
    files: Files, sources: Sequence[str], excludes: Sequence[str] | None
) -> Selection:
    """Check the sources and turn all that says what to send into rsync's words.

    ``excludes`` of None means the automatic ones. The first rule that matches wins:
    the administrator's files, then the excludes, then the sources.
    Raises UsageError for a source that does not exist.
    """
    return _rules(files, _resolve(sources), excludes)


def select_again(
    files: Files, sources: Sequence[str], excludes: Sequence[str] | None
) -> Selection:
    """What was sent in a backup of these sources, some of which may be gone now."""
    gone = [source for source in sources if not os.path.lexists(source)]
    there = _resolve([source for source in sources if source not in gone])
    both = [(source, is_directory) for source in gone for is_directory in (True, False)]
    return _rules(files, [*there, *both], excludes)


def _rules(
    files: Files,
    sources: Sequence[tuple[str, bool]],
    excludes: Sequence[str] | None,
) -> Selection:
    words = []
    filter_file = files.existing("rsync_filter")
    if filter_file is not None:
        words.append(f"--filter=merge {filter_file}")
    exclude_file = files.existing("excludes")
    for file in (filter_file, exclude_file):
        if file is not None:
            _check_rules(file)
    if exclude_file is not None:
        words.append(f"--exclude-from={exclude_file}")
    if excludes is None:
        excludes = automatic_excludes(host.mounts())
    # Of no use on any other machine, nor on this one after a restore.
    words.insert(0, f"--exclude={record.PLACE}*")
    words += [f"--exclude={pattern}" for pattern in excludes]
    words += [f"--filter={rule}" for rule in source_rules(sources)]
    return Selection(tuple(words), tuple(source for source, _ in sources))


def push_argv(
    connection: Connection,
    selection: Selection,
    files: Files,
    io_timeout_s: int,
    *,
    dry_run: bool = False,
    with_progress: bool = False,
    with_sizes: bool = True,
    block_size: int | None = None,
    compress: bool = False,
    number: str | None = None,
    base: str | None = None,
) -> list[str]:
    """rsync's command line for one attempt; ``block_size`` of None is rsync's choice.

    ``number`` and ``base`` are what format_push_program makes of them.
    ``with_sizes`` prints the size of each file that changes, how, and its name.
    """
    machine = connection.machine
    return [
        "rsync",
        *OPTIONS,
        f"--timeout={io_timeout_s}",
        *([f"{BLOCK_SIZE}{block_size}"] if block_size is not None else []),
        *(["--dry-run", "--itemize-changes"] if dry_run else []),
        *([SENT_FORMAT] if with_sizes and not dry_run else []),
        *(["--info=progress2"] if with_progress else []),
        *([compression.OPTION] if compress else []),
        *selection.rules,
        *read_rsync_flags(files),
        f"{PROGRAM}{requests.format_push_program(number, base, machine)}",
        f"--rsh={connection.remote_shell}",
        "--",
        "/",
        f"{connection.destination.rsync_host}:",
    ]


def again_argv(
    connection: Connection,
    files: Files,
    io_timeout_s: int,
    list_file: str,
    *,
    with_new: bool = False,
    number: str | None = None,
    base: str | None = None,
) -> list[str]:
    """rsync's command line to compare once more the names that a file lists.

    Of a directory, that is its own owner, mode and attributes: nothing in it is sent,
    and nothing deleted, whatever rsync_flags may say. Without ``with_new`` what was
    left out of the backup is not made there either: rules say nothing about names in
    a list.
    """
    argv = push_argv(
        *(connection, Selection(()), files, io_timeout_s), number=number, base=base
    )
    kept = [word for word in argv if not word.startswith(("--del", "--recursive"))]
    words = [f"--files-from={list_file}", "--from0"]
    return [kept[0], *words, *([] if with_new else ["--existing"]), *kept[1:]]


def _check_rules(file: Path) -> None:
    """Raise UsageError for a file of rules that holds none: rsync would not notice.

    It may be in any encoding, as file names are.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {quote(str(file))}: {error.strerror}") from None
    if len(data) > MAX_FILE or b"\0" in data:
        raise UsageError(
            f"{quote(str(file))} is no text file", hint="restore or remove it"
        )


def _resolve(sources: Sequence[str]) -> list[tuple[str, bool]]:
    """Absolute paths without links above them, each with whether it is a directory.

    A source that is a link itself stands for the link and for what it points to.
    """
    found: dict[str, bool] = {}
    for source in sources:
        path = Path(source)
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "it is a loop of links"
            raise UsageError(
                f"cannot back up {quote(source)}: {reason}",
                hint="give --source paths that exist on this machine",
            ) from None
        if path.is_symlink():
            found[str(path.parent.resolve() / path.name)] = False
        found[str(real)] = real.is_dir()
    return list(found.items())
