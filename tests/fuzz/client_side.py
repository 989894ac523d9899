"""The client's readers of what the server says, which may be in other hands.

Each function reads ``data`` as the client would and fails if it answers by anything but
a typed error, or accepts what leads to where the user did not send it.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

from byteback.cli import _boundary
from byteback.client.backup.largest_file import LargestSeen
from byteback.client.restore import response
from byteback.client.restore.changes import RsyncOutput
from byteback.client.restore.plan import choose_layout, directories_above, plan_batches
from byteback.client.setup import enrol_reply
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError
from byteback.model import listing
from byteback.model.destination import (
    Destination,
    format_destination,
    parse_destination,
)
from byteback.model.difference import parse_difference
from byteback.system.process import last_lines
from byteback.system.rsync import command
from byteback.system.ssh import known_hosts
from byteback.system.ssh.session import RemoteResult
from byteback.wire import replies

SERVER = "'byteback@server.example:'"
HERE = Path("/srv/here")
DESTINATION = Destination("byteback", "server.example")


def read_replies(data: bytes) -> None:
    """The answers to a ping and to --complete."""
    text = data.decode("utf-8", "surrogateescape")
    with checked_errors():
        assert isinstance(replies.parse_hello(text).host, str)
    with checked_errors():
        found = replies.parse_completion(text)
        assert found.snapshot is None or isinstance(found.snapshot, str)


def read_listing(data: bytes) -> None:
    """The answer to --find: it can be shown, and restored below one directory."""
    with checked_errors():
        entries, end = response.parse_answer(data, SERVER)
        for table in (
            listing.format_table(entries, human=True),
            listing.format_table(entries, first_seen=True),
        ):
            assert all(line.isprintable() for line in table)
        assert [
            listing.parse_entry(json.loads(listing.format_json(e))) for e in entries
        ] == entries
        for layout in (choose_layout(HERE), choose_layout(HERE, to=Path("there"))):
            for batch in plan_batches(
                entries, layout, current_is_whole=end.current_is_whole
            ):
                assert batch.directory in (
                    layout.directory / batch.snapshot,
                    HERE / "there",
                )
                assert batch.directory.name not in ("", ".", "..")
                for name in [*batch.names, *directories_above(batch.names)]:
                    assert not name.startswith("/")
                    assert ".." not in name.split("/")
                    assert "\0" not in name


def read_differences(data: bytes) -> None:
    """The answer to --find --since."""
    with checked_errors():
        response.parse_lines(data, SERVER, parse_difference)


def read_rsync_output(data: bytes) -> None:
    """rsync's output, into which the far end can put lines of its own."""
    heard, largest = RsyncOutput(), LargestSeen()
    said = [command._Said(on, heard.take) for on in (None, check_progress)]
    for raw in data.splitlines():
        line = raw.decode("utf-8", "surrogateescape")
        for one in said:
            one.take(line)
        largest.take(line)
    assert all(number >= 0 for one in said for number in one.statistics.values())
    assert largest.size >= 0
    for change in heard.changes:
        assert change.action in ("create", "replace", "adjust", "delete")
        assert change.size >= 0


def check_progress(found: command.Progress) -> None:
    """The numbers can be shown."""
    assert found.transferred >= 0
    assert found.rate.isprintable()


def read_complaints(data: bytes) -> None:
    """Standard error of an ssh session: the server's words, and anybody's."""
    status, said = data[:1] or b"\0", data[1:]
    connection = Connection(DESTINATION, Path("/key"), None, Path("/socket"))
    check_error(connection.failure(status[0] - 64, last_lines(said)))


def read_enrol_reply(data: bytes) -> None:
    """The server's answer when a client is enrolled."""
    stdout, _, stderr = data[1:].decode("utf-8", "replace").partition("\0")
    with checked_errors():
        status = data[0] if data else 0
        reply = enrol_reply.parse_reply(RemoteResult(status, stdout, stderr), SERVER)
        assert reply.result.isascii()


def read_known_hosts(data: bytes) -> None:
    """Lines about hosts, some of them other programs'."""
    for line in data.splitlines():
        known_hosts._parse(line, ["server.example", "[::1]:22"], Path("/known_hosts"))


def read_destination(data: bytes) -> None:
    """Where backups go: both words end up in ssh's command line."""
    with checked_errors():
        found = parse_destination(data.decode("utf-8", "surrogateescape"))
        for word in (found.user, found.host):
            assert not word.startswith("-")
            assert not set(" \n\0") & set(word)
        if not set("@:") & set(found.path):
            assert parse_destination(format_destination(found)) == found


@contextlib.contextmanager
def checked_errors() -> Iterator[None]:
    """Let typed errors pass that can be shown."""
    try:
        yield
    except BytebackError as error:
        check_error(error)


def check_error(error: BytebackError) -> None:
    """No text for a terminal holds anything that drives one."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        _boundary.print_error("byteback-restore", error)
    text = shown.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text)
    json.dumps(text).encode("ascii")
