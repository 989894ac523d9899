"""Makes places for clients of the first server, and takes none that is in use here.

The first server chooses the names, and a round may last for days. So a name is looked
at once more in the moment in which its place is made, under the lock that an enrolment
takes: a machine may have become a client of this server meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from byteback.errors import BytebackError, RefusedError, quote
from byteback.model.key_line import format_client_line
from byteback.server.access import authorized_keys, enrolment, invitations
from byteback.server.access.authorized_keys import KeyFile
from byteback.server.accounting import growth
from byteback.server.store import key_change, machines, move_note, replica_note
from byteback.server.store.layout import Store
from byteback.server.store.replica_note import ReplicaNote
from byteback.wire.moving import Move


def begin(store: Store, client: str, source: str) -> None:
    """Make a place for a client of the first server; nothing if there is one.

    Raises RefusedError for a name that is not that server's to fill.
    """
    note = replica_note.read(store, client)
    if note is None:
        with authorized_keys.editing(store) as key_file:
            if client.lower() in names_in_use(store, key_file):
                raise RefusedError(refusal(client))
            # First: what is cut off here is known as a copy, and goes on as one.
            replica_note.write(store, client, ReplicaNote(source, {}, time.time()))
            enrolment.make_place(store, client)
        return
    if note.source not in (source, ""):
        raise RefusedError(f"{quote(client)} is fetched from {quote(note.source)} now")
    enrolment.make_place(store, client)


def adopt(store: Store, name: str, source: str) -> None:
    """Take a client that is here for a copy of the first server's.

    Where the note of that was lost, or its snapshots came on a disc. Raises
    NotSetUpError if it is not here, RefusedError if it has a key.
    """
    client = growth.check_client(store, name)
    with authorized_keys.editing(store) as key_file:
        if key_file.lines_of_host(client):
            raise RefusedError(
                f"{quote(client)} has a key here, and so makes its own backups",
                hint=f"'byteback-clients key --revoke {client}' takes it away",
            )
        # Its ``current`` may be anything: backups of its own went there last, say.
        unknown = ReplicaNote("", {}, under_way=replica_note.UNKNOWN)
        note = replica_note.read(store, client) or unknown
        replica_note.write(store, client, note._replace(source=source))


def take_over(store: Store, move: Move, source: str, program: Path) -> None:
    """Make a copy of the first server's an own client of this one, with its keys.

    ``program`` is byteback-receive. The copy's note goes last: what is cut off before
    is a copy still, which refuses its client, and this goes on with it when called
    again. Raises RefusedError for a name or key that is in use here.
    """
    client = move.client
    with authorized_keys.editing(store) as key_file:
        note = replica_note.read(store, client)
        if note is None or note.source not in (source, ""):
            raise RefusedError(refusal(client))
        for line in move.lines:
            own = key_file.lines_of_key(line.key.blob)
            if any(one.host != client for one in own.values()):
                raise RefusedError(
                    f"the key {line.key.fingerprint} of {quote(client)} opens this "
                    "account for something else already",
                    hint="byteback-clients list shows the keys here",
                )
            text = format_client_line(line.key, client, program, line.options)
            key_file.put(list(own), text)
    if move.machine is not None:
        machines.claim(store, client, move.machine)
    with contextlib.suppress(BytebackError):  # the disc is full: the key is in
        key_change.note(store, client)
    # It comes back, maybe: what sent it away from here would do so again.
    move_note.forget(store, client)
    replica_note.path(store, client).unlink(missing_ok=True)


def is_taken(store: Store, move: Move) -> bool:
    """True if the client is this server's own already, with the keys that it has."""
    blobs = {
        line.blob
        for line in authorized_keys.read(store).key_lines().values()
        if line.host == move.client
    }
    wanted = {line.key.blob for line in move.lines}
    return (
        bool(wanted)
        and wanted <= blobs
        and not replica_note.is_copy(store, move.client)
    )


def names_in_use(store: Store, key_file: KeyFile) -> set[str]:
    """Names in small letters that no first server may have for a new client.

    Of clients with keys, of those that are invited, and of all that is in the store
    already: an administrator's own directory would become a client, and be pruned.
    """
    lines = key_file.key_lines().values()
    names = {line.host for line in lines if line.host is not None}
    names |= invitations.invited_names(key_file)
    names |= {path.name for path in store.root.iterdir()}
    return {name.lower() for name in names}


def refusal(client: str) -> str:
    """The sentence about a client whose name is in use."""
    return (
        f"{quote(client)} is a client of this server itself, or the name of something "
        "else here, so that its backups on the other one are not fetched"
    )
