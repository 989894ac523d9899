"""This machine's own notes: when a backup was last good, and what has failed since.

They answer byteback-backup --last and --check without a network, and keep a failure
that lasts from being mailed every day.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from byteback.errors import BytebackError, IncompleteBackupError, escape
from byteback.system import host, mail
from byteback.system.files import write_atomically

NOTES = Path("/var/lib/byteback/last-backup")
MAX_SIZE = 1 << 20  # bytes
REMIND_S = 7 * 86400.0
REMEMBERED = 10  # intervals between good backups, as byteback-status goes by
OK, WARNING, CRITICAL = range(3)  # statuses of monitoring plugins


@dataclass(frozen=True)
class Notes:
    """Notes about this machine's backups; times are seconds since 1970."""

    good: tuple[float, ...] = ()  # when the last good ones ended, oldest first
    is_incomplete: bool = False  # the last good one lacks files
    snapshot: str | None = None  # the newest that was made
    failing_since: float | None = None
    failure: str | None = None  # the last one, as it was told
    told: float | None = None  # when a mail was last sent about it


def read(path: Path = NOTES) -> Notes:
    """The notes; empty ones where there are none, or damaged ones."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        with path.open("rb") as file:
            fields = json.loads(file.read(MAX_SIZE))
        notes = Notes(**fields)
        return replace(notes, good=tuple(float(time) for time in notes.good))
    return Notes()


def note_success(snapshot: str | None, path: Path = NOTES) -> None:
    """Note that a backup is complete; a failure to do so is passed over."""
    _note_good(snapshot, is_incomplete=False, path=path)


def note_failure(error: BaseException, path: Path = NOTES) -> None:
    """Note how a backup failed, or that it is there but lacks files."""
    if isinstance(error, IncompleteBackupError):
        _note_good(None, is_incomplete=True, path=path)
    elif isinstance(error, BytebackError):
        before = read(path)
        since = before.failing_since or time.time()
        _write(path, replace(before, failing_since=since, failure=_in_words(error)))


def _note_good(snapshot: str | None, *, is_incomplete: bool, path: Path) -> None:
    before = read(path)
    notes = Notes(
        good=(*before.good, time.time())[-REMEMBERED - 1 :],
        is_incomplete=is_incomplete,
        snapshot=snapshot or before.snapshot,
        # A backup that lacks files each day is mailed no more often than a failed one.
        told=before.told if is_incomplete else None,
    )
    _write(path, notes)


def _in_words(error: BytebackError) -> str:
    hint = [f"hint: {error.hint}"] if error.hint else []
    return "\n".join([error.message, *hint, *map(escape, error.details[:5])])


def _write(path: Path, notes: Notes) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(notes)).encode("ascii"), mode=0o600)


def describe(notes: Notes, now: float) -> list[str]:
    """The lines of --last."""
    # Late, here and below: a backup that only takes notes needs less memory.
    from byteback.model.alarms import format_age

    if not notes.good:
        lines = ["no backup of this machine has succeeded yet, as far as it remembers"]
    else:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(notes.good[-1]))
        line = f"last good backup: {when}, {format_age(now - notes.good[-1])} ago"
        if notes.is_incomplete:
            line += ", but it lacks files that could not be read"
        lines = [line]
    if notes.snapshot is not None:
        lines.append(f"newest snapshot: {notes.snapshot}")
    if notes.failing_since is not None:
        lines.append(f"failing for {format_age(now - notes.failing_since)}:")
        lines += [f"  {line}" for line in (notes.failure or "").splitlines()]
    return lines


def check(notes: Notes, now: float) -> tuple[str, int]:
    """One line for a monitoring system, and its status.

    Stale means what it means to byteback-status on the server.
    """
    from byteback.model.alarms import format_age, stale_at
    from byteback.model.status import Client, Snapshots

    if not notes.good:
        return "BYTEBACK CRITICAL - no backup has succeeded yet", CRITICAL
    age_s = now - notes.good[-1]
    newest = Snapshots(len(notes.good), notes.good[0], notes.good[-1], notes.good)
    due = stale_at(Client("", snapshots=newest))
    said = f"the last good backup is {format_age(age_s)} old"
    data = f"age={age_s:.0f}s"
    if due is not None and now > due:
        return f"BYTEBACK CRITICAL - {said} | {data}", CRITICAL
    if notes.failing_since is not None:
        said += ", and the last attempt failed"
        return f"BYTEBACK WARNING - {said} | {data}", WARNING
    if notes.is_incomplete:
        return f"BYTEBACK WARNING - {said}, and lacks files | {data}", WARNING
    return f"BYTEBACK OK - {said} | {data}", OK


def mail_failure(notes: Notes, now: float, path: Path = NOTES) -> None:
    """Mail root about a run that failed under systemd, as cron mails what it prints.

    Nothing is sent where there is no mail transport: the journal has the failure.
    Raises ToolError if the transport refuses.
    """
    if not mail.is_available():
        return
    found = failure_mail(notes, host.full_host_name(), now)
    if found is not None:
        subject, text = found
        mail.send("root", subject, text)
        note_told(notes, now, path)


def failure_mail(notes: Notes, machine: str, now: float) -> tuple[str, str] | None:
    """Subject and text of a mail about a failed run; None if it was told lately.

    A run that was killed has left no words. A failure that lasts is told once a week.
    """
    is_new = notes.told is None or not 0 <= now - notes.told < REMIND_S
    if not is_new:
        return None
    subject = f"byteback on {machine}: the backup failed"
    if notes.is_incomplete and notes.failing_since is None:
        subject = f"byteback on {machine}: the backup lacks files"
    text = describe(notes, now)
    if notes.failing_since is None and not notes.is_incomplete:
        text.append("the last run did not come to its end")
    text += [
        "",
        "The whole of it: journalctl -u byteback-backup.service",
        "This mail comes when backups begin to fail, and then once a week.",
    ]
    return subject, "\n".join(text) + "\n"


def note_told(notes: Notes, now: float, path: Path = NOTES) -> None:
    """Remember that a mail was sent; the next good backup forgets it."""
    _write(path, replace(notes, told=now))
