"""Compares snapshots here with those of the first server, byte by byte.

rsync compares checksums in a dry run, confined, and with no right to write. What it
would change is a difference.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from byteback.errors import BytebackError, escape
from byteback.model.hostname import is_same_host
from byteback.model.replication import Offer
from byteback.server.replicate import bring
from byteback.server.replicate.line import Line, connected
from byteback.server.replicate.sources import Source
from byteback.server.store import replica_note, settings
from byteback.server.store.layout import Store
from byteback.server.transfer import runner
from byteback.system.confinement import sandbox
from byteback.wire.replication import Fetch

logger = logging.getLogger(__name__)

ENOUGH_TOLD = 5
# A change of a file, or one that is here alone (rsync(1), --itemize-changes).
_CHANGES = (*"<>ch.", "*deleting ")
OPTIONS = ("--dry-run", "--checksum", "--itemize-changes")


def verify(store: Store, source: Source, only: Sequence[str] = ()) -> list[str]:
    """Compare one snapshot of each client, or of those named, drawn at random.

    Lines about what was compared. Raises BytebackError if any is not the same.
    """
    lines, wrong = [], []
    with connected(source) as line:
        for offer in line.read_listing().offers:
            if only and not any(is_same_host(offer.client, name) for name in only):
                continue
            name = _draw(store, source, offer)
            if name is None:
                continue
            found = _compare(store, line, offer.client, name)
            if found:
                wrong.append(f"{offer.client}/{name}")
                for text in found[:ENOUGH_TOLD]:
                    logger.error("%s/%s: %s", offer.client, name, escape(text))
            else:
                lines.append(f"{offer.client}/{name} is the same on both servers")
    if wrong:
        raise BytebackError(
            f"{len(wrong)} of {len(wrong) + len(lines)} snapshots that were compared "
            "are not what the first server has",
            hint="the system log names the files. A disc may be failing: look at "
            "'byteback-status' on both servers",
            details=wrong,
        )
    return lines


def _draw(store: Store, source: Source, offer: Offer) -> str | None:
    """One of the snapshots that both servers have, by name and token."""
    note = replica_note.read(store, offer.client)
    if note is None or note.source not in (source.name, ""):
        return None
    if not store.is_client(offer.client):
        return None  # its place is not made yet
    here = {snapshot.name for snapshot in store.snapshots(offer.client)}
    both = [
        one.name
        for one in offer.snapshots
        if one.name in here and note.tokens.get(one.name, one.token) == one.token
    ]
    return random.choice(both) if both else None  # noqa: S311 # a sample, no secret


def _compare(store: Store, line: Line, client: str, name: str) -> list[str]:
    """What rsync would change to make the snapshot here what it is there."""
    options = (*bring.OPTIONS, *OPTIONS)
    request = Fetch(client, name, bring.words_of_sender(options))
    directory = store.host_directory(client) / name
    limits = settings.load(client)
    with line.fetching(request) as fetching:
        command = bring.command(options, fetching)
        measured = runner.run(command, directory, sandbox.READ, limits, None)
    if measured.status != 0:
        raise bring.failure(line, client, name, measured.status, fetching.said)
    return [text for text in fetching.said.lines if text.startswith(_CHANGES)]
