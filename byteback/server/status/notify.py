"""Tells people and other programs of alarms, as ``[status]`` of server.toml asks.

Each way is tried, whatever becomes of the others. What was told is remembered outside
the store, which may be what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from byteback.errors import BytebackError, NotSetUpError, StoreElsewhereError
from byteback.model import alarms, metrics, notification
from byteback.model.notification import Change, Key, Known
from byteback.model.status import Alarm, Report, StoreState
from byteback.server.status import collect, publish
from byteback.server.status.page import PageFile
from byteback.server.store import settings
from byteback.server.store.layout import Store
from byteback.server.store.settings import StatusSettings
from byteback.system import files, hooks, mail

logger = logging.getLogger(__name__)

MEMORY = Path("/var/lib/byteback/alarms.json")
PROGRAMS = Path("/etc/byteback/alarm.d")
MAX_MEMORY = 16 << 20  # bytes
MOST_WORDS = 1000  # an environment must fit into 2 MiB


def notify(opened: Callable[[], contextlib.AbstractContextManager[Store]]) -> None:
    """Look at the store once, and tell what has changed since the last time.

    ``opened`` opens the store; where that fails, the failure is the alarm. Raises the
    first failure to tell after all ways were tried. A store that is mounted by hand and
    not here, is another machine's to tell of.
    """
    now = time.time()
    wanted = settings.load_status()
    failures: list[BytebackError] = []
    page_files: list[PageFile] = []
    try:
        with opened() as store:
            report = collect.collect(store, now)
            if wanted.html_directory:
                with _noted(failures):
                    page_files = publish.render_page(store, now)
    except StoreElsewhereError as error:
        logger.info("%s", error.message)
        if wanted.prometheus_file:
            publish.remove_metrics(Path(wanted.prometheus_file))
        return
    except NotSetUpError as error:
        report = _without_store(error, now)
    if wanted.prometheus_file:
        with _noted(failures):
            text = metrics.format_metrics(report)
            publish.write_metrics(Path(wanted.prometheus_file), text)
    if page_files:
        with _noted(failures):
            publish.write_page(Path(wanted.html_directory), page_files)
    _tell_changes(report, wanted, failures)
    if failures:
        raise failures[0]


def _without_store(error: NotSetUpError, now: float) -> Report:
    state = StoreState(is_mounted=False)
    found = [
        Alarm(alarm.client, alarm.kind, alarm.level, error.message, error.hint or "")
        for alarm in alarms.store_alarms(state, now)
    ]
    return collect.empty_report(state, tuple(found), now)


def _tell_changes(
    report: Report, wanted: StatusSettings, failures: list[BytebackError]
) -> None:
    known = read_memory(MEMORY)
    # Without the store nothing is known of the clients: their alarms do not end.
    hidden = {} if report.store.is_mounted else _of_clients(known)
    seen = {key: was for key, was in known.items() if key not in hidden}
    change = notification.compare(report.alarms, seen, report.time)
    if change.is_empty or _tell(change, report, wanted, failures):
        write_memory(MEMORY, {**hidden, **change.known})


def _of_clients(known: Mapping[Key, Known]) -> dict[Key, Known]:
    return {(client, kind): was for (client, kind), was in known.items() if client}


def _tell(
    change: Change,
    report: Report,
    wanted: StatusSettings,
    failures: list[BytebackError],
) -> bool:
    """Tell a change in every way; False if none worked, so that it is told later."""
    subject = notification.format_subject(change, report.server)
    body = notification.format_body(change, report.server, report.time)
    for alarm in change.begun:
        logger.warning("%s: %s", alarm.client or "the store", alarm.message)
    ways: list[Callable[[], None]] = []
    if wanted.mail_to:
        ways.append(lambda: mail.send(wanted.mail_to, subject, body))
    for warning in hooks.ignored_hooks(PROGRAMS):
        logger.warning("%s", warning)
    if hooks.find_hooks(PROGRAMS):
        told = environment(change, report, subject, body)
        ways.append(lambda: hooks.run_all_hooks(PROGRAMS, told))
    failed = len(failures)
    for way in ways:
        with _noted(failures):
            way()
    return not ways or len(failures) - failed < len(ways)


def environment(
    change: Change, report: Report, subject: str, body: str
) -> dict[str, str]:
    """The environment of the programs in alarm.d; byteback-status(1) describes it."""
    return {
        "BYTEBACK_SERVER": report.server,
        "BYTEBACK_SUBJECT": subject,
        "BYTEBACK_MESSAGE": body,
        "BYTEBACK_BEGUN": _words((a.client, a.kind) for a in change.begun),
        "BYTEBACK_LASTING": _words((a.client, a.kind) for a, _ in change.lasting),
        "BYTEBACK_ENDED": _words(key for key, _ in change.ended),
        "BYTEBACK_LEVEL": str(report.worst or "ok"),
    }


def _words(keys: Iterable[Key]) -> str:
    """``CLIENT/KIND`` words, ``/KIND`` for the store; a storm is cut off."""
    words = [f"{client}/{kind}" for client, kind in keys]
    return " ".join(words[:MOST_WORDS])


@contextlib.contextmanager
def _noted(failures: list[BytebackError]) -> Iterator[None]:
    """Keep a failure of one way of telling from stopping the others."""
    try:
        yield
    except BytebackError as error:
        if failures:
            logger.error("%s", error.message)
        failures.append(error)


def read_memory(path: Path) -> dict[Key, Known]:
    """The alarms that were told; none where the file is lost or damaged."""
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(MAX_MEMORY))
        return {
            (str(row["client"]), str(row["kind"])): Known(
                float(row["since"]), float(row["told"]), str(row["message"])
            )
            for row in rows
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is damaged, and is made anew: %s", path, error)
        return {}


def write_memory(path: Path, known: Mapping[Key, Known]) -> None:
    """Remember what was told. Raises BytebackError if that cannot be written."""
    rows = [
        {"client": client, "kind": kind, **was._asdict()}
        for (client, kind), was in sorted(known.items())
    ]
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.write_atomically(path, json.dumps(rows).encode("ascii"), mode=0o600)
    except OSError as error:
        raise BytebackError(
            f"cannot remember which alarms were told: {path}: {error.strerror}",
            hint="make room there; until then alarms are told every hour",
        ) from None
