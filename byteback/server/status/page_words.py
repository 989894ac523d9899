"""Words of the status page: titles, sentences, names of files."""

from __future__ import annotations

import hashlib

from byteback.model.hostname import is_host_name
from byteback.model.size import format_count, format_size
from byteback.model.status import Report

LONGEST_NAME = 200  # of a client, in a file's name


def href(client: str) -> str:
    """The file of a client's page, below the directory of index.html."""
    if len(client) > LONGEST_NAME or not is_host_name(client):
        digest = hashlib.sha256(client.encode("utf-8", "surrogateescape")).hexdigest()
        client = f"~{digest}"  # no client's name begins so
    return f"client/{client}.html"


def title(report: Report) -> str:
    """The title of the browser's tab: how many alarms there are."""
    number = len(report.alarms)
    return f"{number or 'no'} alarm{'' if number == 1 else 's'}: {report.server}"


def summary(report: Report, wrong: set[str]) -> str:
    """The first sentence of the page. ``wrong`` are the clients that have alarms."""
    clients = len(report.clients)
    if not wrong:
        if not clients:
            return "No client is enrolled yet."
        return f"All backups are well: {format_count(clients, 'client')}."
    stores = {name for name in wrong if not name or name.endswith("/")}
    ill = len(wrong - stores)
    said = []
    if "" in wrong:
        said.append("The store needs attention.")
    elif stores:
        verb = "needs" if len(stores) == 1 else "need"
        said.append(f"{len(stores)} of {report.server} {verb} attention.")
    if ill:
        verb = "needs" if ill == 1 else "need"
        said.append(f"{ill} of {format_count(clients, 'client')} {verb} attention.")
    return " ".join(said)


def sentence(text: str) -> str:
    """A message as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def direction(order: str) -> str:
    """How the rows go by an order."""
    return "ascending" if order in ("name", "age") else "descending"


def size(size: float | None) -> str:
    """A size, or nothing where it is not known."""
    return "" if size is None else format_size(max(int(size), 0))


def known(value: object) -> str:
    """A value as text, or nothing where it is not known."""
    return "" if value is None else str(value)
