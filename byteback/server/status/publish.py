"""Writes the status page and the metrics where others read them, each file whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from byteback.errors import BytebackError, UsageError, quote
from byteback.server.accounting import ledger_report
from byteback.server.status import collect, page
from byteback.server.status.page import PageFile
from byteback.server.store.layout import Store

CLIENTS = "client"
MARK = b'<meta name="generator" content="byteback-status">'
MARKED_WITHIN = 2048  # bytes from the beginning of one of our pages
MODE = 0o644  # a web server or node exporter reads them as another user


def render_page(store: Store, now: float) -> list[PageFile]:
    """The page of the store as it is at ``now``, in seconds since 1970."""
    report = collect.collect(store, now, history=page.CHART_BARS, all_times=True)
    readings = ledger_report.free_readings(store, now - page.YEAR_S)
    return list(page.render(report, readings))


def write_page(directory: Path, files: Iterable[PageFile]) -> None:
    """Write the page's files, and remove pages of clients that are gone.

    Only files that this program wrote are removed. Raises UsageError if ``directory``
    is not one, BytebackError if it cannot be written to.
    """
    if not directory.is_dir():
        raise UsageError(
            f"{quote(str(directory))} is not a directory",
            hint="make it first, readable for the web server",
        )
    written = set()
    with _told(directory):
        (directory / CLIENTS).mkdir(exist_ok=True)
        for file in files:
            write_whole(directory / file.name, file.content)
            written.add(file.name)
        for path in (directory / CLIENTS).iterdir():
            if f"{CLIENTS}/{path.name}" not in written and _is_ours(path):
                path.unlink()


def write_metrics(path: Path, text: str) -> None:
    """Write Prometheus's text file for node exporter's textfile collector.

    The collector reads every ``*.prom`` of its directory, so that a half written one
    must not be there under that name. Raises BytebackError.
    """
    with _told(path):
        write_whole(path, text.encode("utf-8", "replace"))


def remove_metrics(path: Path) -> None:
    """Take the text file away: what it tells is no longer this machine's to tell.

    Raises BytebackError.
    """
    with _told(path):
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step, without waiting for the disc: it can be made again.

    A link in its place is replaced, never followed. Raises OSError.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".byteback-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), MODE)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BytebackError(
            f"cannot write {quote(str(path))}: {error.strerror}",
            hint="check the directory, its owner and the free space there",
        ) from None


def _is_ours(path: Path) -> bool:
    if path.suffix != ".html" or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(MARKED_WITHIN)
