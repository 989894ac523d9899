"""Proves on the server that a client's files can be restored: a sample of them is.

The machine itself is not there to be compared with. btrfs compares what it reads with
its checksums, and rsync what arrives with what was sent.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from byteback.client.restore import pull, query, verify
from byteback.client.restore.damaged import DamagedNoteError
from byteback.client.restore.query import Server
from byteback.client.restore.run import DEFAULT_IO_TIMEOUT_S
from byteback.client.settings import read_io_timeout
from byteback.errors import BytebackError, escape
from byteback.model.listing import Entry
from byteback.model.size import format_count

logger = logging.getLogger(__name__)

SHOWN = 5
PLACE = Path("/var/tmp")  # noqa: S108 # the directory in it is made for this run
SHARE = 2  # of the room there, one half is left


def restore_sample(server: Server, sample: int) -> None:
    """Restore ``sample`` random files of the newest snapshot, and remove them again.

    Raises BytebackError for what does not arrive, or is not the size that is listed;
    else as Connection and run_pull.
    """
    with (
        query.connected(server) as connection,
        tempfile.TemporaryDirectory(prefix="byteback-verify-", dir=PLACE) as closed,
    ):
        # A sender that was taken over could open the directory that it fills, by an
        # entry "." with another mode; not the one above, which keeps others out.
        place = Path(closed, "files")
        place.mkdir(mode=0o700)
        snapshot = verify.newest_snapshot(connection)
        found = verify.random_entries(connection, snapshot, sample)
        entries = list(_with_room([one for one in found if stat.S_ISREG(one.mode)]))
        if not entries:
            raise BytebackError(f"no file of {snapshot} could be tried")
        entries = entries[:sample]
        job = pull.Pull(
            connection,
            snapshot,
            place,
            read_io_timeout(server.files, server.io_timeout_s, DEFAULT_IO_TIMEOUT_S),
        )
        said = _restore(job, [entry.path[1:] for entry in entries])
        lacking = [e.path for e in entries if not _has_arrived(place, e)]
    if said or lacking:
        raise BytebackError(
            f"not all of {len(entries)} files of {snapshot} can be restored",
            hint="'btrfs scrub start' finds what the store's discs do not give any "
            "more; other snapshots may have the files",
            details=[*map(escape, said[:SHOWN]), *map(escape, lacking[:SHOWN])],
        )
    files = format_count(len(entries), "file")
    size = sum(entry.size for entry in entries)
    logger.info("%s, %d bytes: restored from %s", files, size, snapshot)


def _restore(job: pull.Pull, names: Sequence[str]) -> Sequence[str]:
    """rsync's problems with single files; one that ends the transfer is one."""
    try:
        return pull.problems_of(pull.run_pull(job, names))
    except DamagedNoteError as error:
        return [f"{error.path}: its owner and mode are damaged"]


def _with_room(entries: Sequence[Entry]) -> Iterator[Entry]:
    """As many as there is room for, without filling the disc."""
    view = os.statvfs(PLACE)
    left = view.f_bavail * view.f_frsize // SHARE
    for entry in entries:
        if entry.size <= left:
            left -= entry.size
            yield entry


def _has_arrived(place: Path, entry: Entry) -> bool:
    try:
        found = (place / entry.path[1:]).lstat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)
