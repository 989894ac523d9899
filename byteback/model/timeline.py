"""Which days each host still has, drawn with plain characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo

from byteback.model.snapshot import Snapshot

NARROWEST = 10  # days, however narrow the terminal
WIDEST_NAME = 30
NONE, ONE, MANY = ".", "|", "#"
WEEK = 7


def draw(
    snapshots: Iterable[Snapshot], now: datetime, zone: tzinfo, width: int
) -> list[str]:
    """One line for each host, one column for each day or stretch of days.

    Today is at the right. Where there are more days than columns a column stands for
    several, always whole weeks of them. What is older than the rest by far (a clock
    that was wrong) or lies in the future goes to the first or the last column.
    """
    by_host: dict[str, list[date]] = {}
    today = now.astimezone(zone).date()
    for snapshot in snapshots:
        day = min(snapshot.time.astimezone(zone).date(), today)
        by_host.setdefault(snapshot.host, []).append(day)
    if not by_host:
        return []
    label = min(max(map(len, by_host)), WIDEST_NAME)
    columns = max(NARROWEST, width - label - 2)
    first = min(_plausible_start(days, today) for days in by_host.values())
    span = (today - first).days + 1
    step = 1 if span <= columns else WEEK * -(-span // (columns * WEEK))
    used = min(columns, -(-span // step))
    lines = [_head(today, step, used, label)]
    for host in sorted(by_host):
        cells = _cells(by_host[host], today, step, used)
        name = host if len(host) <= label else f"{host[: label - 3]}..."
        lines.append(f"{name:<{label}}  {cells}")
    lines.append(_legend(step))
    return lines


def _plausible_start(days: Sequence[date], today: date) -> date:
    """The oldest day, but for those more than thirty years back."""
    limit = today - timedelta(days=30 * 365)
    return min((day for day in days if day >= limit), default=today)


def _cells(days: Sequence[date], today: date, step: int, used: int) -> str:
    counts: Mapping[int, int] = _counted(
        min((today - day).days // step, used - 1) for day in days
    )
    marks = [NONE, ONE, MANY]
    return "".join(marks[min(counts.get(back, 0), 2)] for back in reversed(range(used)))


def _counted(places: Iterable[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    return counts


def _head(today: date, step: int, used: int, label: int) -> str:
    """Dates above their columns, as many as find room."""
    line = ""
    for column in range(used):
        day = today - timedelta(days=(used - 1 - column) * step)
        text = day.isoformat()
        is_free = len(line) <= column and column + len(text) <= used
        if is_free and column % (2 * len(text)) == 0:
            line = f"{line:<{column}}{text}"
    return f"{'':<{label}}  {line}".rstrip()


def _legend(step: int) -> str:
    what = "a day" if step == 1 else f"{step} days"
    return f"each column is {what}: {ONE} one snapshot, {MANY} several, {NONE} none"
