"""Sends messages to the terminal if there is one, else to the system log.

Under cron standard error is read only if something went wrong, so progress goes
to syslog there. Forced commands use :func:`audit` alone: it needs no ``logging``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from byteback.errors import escape

if TYPE_CHECKING:
    import logging


MAX_LINE = 2000  # characters; syslog daemons cut or split longer lines
# extra= of a record that is for those who look for break-ins.
AUTH = {"to_auth": True}


def set_up(program: str, *, verbose: bool) -> None:
    """Send this program's log records to where its user will find them.

    On a terminal they go to standard error, from INFO on or DEBUG with ``verbose``.
    Otherwise they go to syslog, and to standard error as well only with ``verbose``.
    """
    import logging

    root = logging.getLogger("byteback")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.handlers.clear()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if on_terminal or verbose:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    if not on_terminal:
        root.addHandler(_syslog_handler(program))


def _syslog_handler(program: str) -> logging.Handler:
    import logging
    import syslog

    priorities = {
        logging.DEBUG: syslog.LOG_DEBUG,
        logging.INFO: syslog.LOG_INFO,
        logging.WARNING: syslog.LOG_WARNING,
        logging.ERROR: syslog.LOG_ERR,
        logging.CRITICAL: syslog.LOG_CRIT,
    }

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            priority = priorities.get(record.levelno, syslog.LOG_INFO)
            if getattr(record, "to_auth", False):
                priority |= syslog.LOG_AUTH
            syslog.syslog(priority, escape(record.getMessage())[:MAX_LINE])

    syslog.openlog(program, syslog.LOG_PID, syslog.LOG_DAEMON)
    return Handler()


_noted: dict[str, object] = {}


def note(**fields: object) -> None:
    """Keep facts about the session for its one line in the log, whatever its end."""
    _noted.update(fields)


def audit_end(verdict: str, *, refusal: bool = False, **fields: object) -> None:
    """The line with which a session ends: :func:`audit`, and all that was noted."""
    audit(verdict, refusal=refusal, **(_noted | fields))


def audit(verdict: str, *, refusal: bool = False, **fields: object) -> None:
    """One line about one request in the system log: ``VERDICT key=value ...``.

    Refusals go to the auth facility, where intrusion watchers look. Values come from
    clients, so that they are escaped, quoted and cut; None is left out.
    """
    import syslog

    words = [verdict]
    for key, value in fields.items():
        if value is not None:
            text = escape(str(value)).replace('"', "'")[:400]
            words.append(
                f'{key}="{text}"' if " " in text or not text else f"{key}={text}"
            )
    facility = syslog.LOG_AUTH if refusal else syslog.LOG_DAEMON
    priority = syslog.LOG_WARNING if refusal else syslog.LOG_INFO
    syslog.openlog("byteback-receive", syslog.LOG_PID, facility)
    syslog.syslog(facility | priority, " ".join(words)[:MAX_LINE])
