"""Finds what an old client's restore asks for, in a process of its own.

That process confines itself before it looks at the first pattern, which the one that
will start rsync cannot do. It tells what it found through a pipe.
"""

from __future__ import annotations

import os
from typing import NoReturn

from byteback.errors import RefusedError
from byteback.server import limits
from byteback.server.search import run
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.wire import requests

_FOUND, _REFUSED = b"+", b"-"
_CHUNK = 1 << 20


def resolve_apart(
    store: Store,
    client: str,
    request: requests.Pull,
    settings: ServerSettings,
    *,
    current_is_whole: bool,
) -> list[str]:
    """search.resolve, by a process that can read the client's trees and nothing else.

    Raises RefusedError as that does, and where the process fails.
    """
    limits.check_can_confine_search(settings)
    with limits.search_place(store, client):
        answer = _ask(store, client, request, settings, current_is_whole)
    text = answer[1:].decode("utf-8", "surrogateescape")
    if answer[:1] == _FOUND:
        return text.split("\0")
    message, _, hint = text.partition("\0")
    raise RefusedError(message or "the search failed", hint=hint or None)


def _ask(
    store: Store,
    client: str,
    request: requests.Pull,
    settings: ServerSettings,
    current_is_whole: bool,
) -> bytes:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(writer, store, client, request, settings, current_is_whole)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return answer


def _answer(
    writer: int,
    store: Store,
    client: str,
    request: requests.Pull,
    settings: ServerSettings,
    current_is_whole: bool,
) -> NoReturn:
    """In the child: answer, and end without a word to any other process."""
    try:
        chains, index = run.read_history(store, client)
        limits.confine_search(store.host_directory(client), settings)
        names = run.resolve(
            *(store, client, request),
            current_is_whole=current_is_whole,
            chains=chains,
            index=index,
        )
        answer = _FOUND + "\0".join(names).encode("utf-8", "surrogateescape")
    except RefusedError as error:
        text = f"{error.message}\0{error.hint or ''}"
        answer = _REFUSED + text.encode("utf-8", "surrogateescape")
    except BaseException:  # noqa: BLE001 # whatever it is, the parent must go on alone
        answer = b""
    while answer:
        answer = answer[os.write(writer, answer[:_CHUNK]) :]
    os._exit(0)
