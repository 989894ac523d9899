"""The transfer itself: rsync's command line, and what its end means."""

from __future__ import annotations

from byteback.client.backup.many_links import ALL_AT_ONCE
from byteback.client.backup.rules import Selection
from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.wire import requests

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


def push_argv(
    connection: Connection,
    selection: Selection,
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
        *selection.words,
        f"{PROGRAM}{requests.format_push_program(number, base, machine)}",
        f"--rsh={connection.remote_shell}",
        "--",
        "/",
        f"{connection.destination.rsync_host}:",
    ]


def again_argv(
    connection: Connection,
    selection: Selection,
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
    flags = Selection(flags=tuple(selection.plain_flags))
    argv = push_argv(connection, flags, io_timeout_s, number=number, base=base)
    kept = [word for word in argv if not word.startswith(("--del", "--recursive"))]
    words = [f"--files-from={list_file}", "--from0"]
    words.append(ALL_AT_ONCE if with_new else "--existing")
    return [kept[0], *words, *kept[1:]]
