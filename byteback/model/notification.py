"""Decides what to tell people about alarms: changes only, in one message.

An alarm is told when it begins and when it ends. As long as it lasts it is told again
once a week. Many at once, after an outage of the server say, are still one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from byteback.model.alarms import format_age
from byteback.model.size import format_count
from byteback.model.status import DAY_S, Alarm, Level

REMIND_S = 7 * DAY_S
CLOCK_SLACK_S = 60.0
MOST_LINES = 50  # alarms that one message spells out


class Known(NamedTuple):
    """An alarm that was told before; times are seconds since 1970."""

    since: float
    told: float
    message: str


Key = tuple[str, str]  # client, kind


class Change(NamedTuple):
    """The changes to be told now, and the memory for the next time."""

    begun: tuple[Alarm, ...]
    ended: tuple[tuple[Key, Known], ...]
    lasting: tuple[tuple[Alarm, Known], ...]  # those that get their weekly reminder
    known: dict[Key, Known]

    @property
    def is_empty(self) -> bool:
        """There is nothing to tell."""
        return not (self.begun or self.ended or self.lasting)


def compare(alarms: Iterable[Alarm], known: Mapping[Key, Known], now: float) -> Change:
    """The changes between what was told before and what is wrong now."""
    first_of: dict[Key, Alarm] = {}
    for alarm in alarms:
        first_of.setdefault((alarm.client, alarm.kind), alarm)
    begun, lasting, remembered = [], [], {}
    for key, alarm in first_of.items():
        before = known.get(key)
        if before is None:
            begun.append(alarm)
            remembered[key] = Known(now, now, alarm.message)
        elif now - before.told >= REMIND_S or before.told > now + CLOCK_SLACK_S:
            lasting.append((alarm, before))
            remembered[key] = Known(min(before.since, now), now, alarm.message)
        else:
            remembered[key] = before
    ended = tuple((key, was) for key, was in known.items() if key not in first_of)
    return Change(tuple(begun), ended, tuple(lasting), remembered)


def format_subject(change: Change, server: str) -> str:
    """The subject of the message: the numbers, and a name where there is one alone."""
    said = []
    if change.begun:
        worst = any(alarm.level is Level.CRITICAL for alarm in change.begun)
        word = "critical alarm" if worst else "warning"
        said.append(_count_or_name(change.begun, word))
    if change.lasting:
        said.append(f"{len(change.lasting)} still there")
    if change.ended:
        said.append(f"{len(change.ended)} over")
    return f"byteback on {server}: {', '.join(said)}"


def format_body(change: Change, server: str, now: float) -> str:
    """The message's text: what began with what to do, what lasts, what is over."""
    lines: list[str] = []
    lines += _section("Now wrong:", [_describe(alarm) for alarm in change.begun])
    lines += _section(
        "Still wrong (told once a week):",
        [
            f"{_describe(alarm)}\n  for {format_age(now - was.since)}"
            for alarm, was in change.lasting
        ],
    )
    lines += _section(
        "Over:",
        [
            f"{client or 'the store'}: {kind}, after {format_age(now - was.since)}"
            for (client, kind), was in change.ended
        ],
    )
    lines.append(f"byteback-status on {server} shows everything.")
    return "\n".join(lines) + "\n"


def _section(heading: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    shown = list(entries[:MOST_LINES])
    if len(entries) > MOST_LINES:
        shown.append(f"and {len(entries) - MOST_LINES} more")
    return [heading, "", *shown, ""]


def _describe(alarm: Alarm) -> str:
    name = alarm.client or "the store"
    return f"{name}: {alarm.kind}: {alarm.message}\n  {alarm.hint}"


def _count_or_name(alarms: Sequence[Alarm], word: str) -> str:
    if len(alarms) == 1:
        return f"{alarms[0].client or 'the store'}: {alarms[0].kind}"
    return format_count(len(alarms), word)
