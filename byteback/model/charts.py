"""Numbers as the ``d`` of SVG paths: short, and free of what needs escaping."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import NamedTuple

WEEK = 7


class Strip(NamedTuple):
    """Which of the last days have a snapshot."""

    path: str  # one unit a day, the oldest at 0; a run of days is one rectangle
    days: int
    present: int


class Curve(NamedTuple):
    """A line over time, in a box of ``width`` by ``height`` units."""

    line: str
    area: str  # the same, closed along the bottom


class Bars(NamedTuple):
    """A bar chart: the bars of good and of failed values, each one unit wide."""

    good: str
    failed: str
    width: int


def draw_strip(present: Collection[date], today: date, days: int, height: int) -> Strip:
    """The last ``days`` days up to today, those in ``present`` filled."""
    first = today - timedelta(days=days - 1)
    filled = [first + timedelta(days=n) in present for n in range(days)]
    parts, start = [], None
    for number, is_filled in enumerate([*filled, False]):
        if is_filled and start is None:
            start = number
        elif not is_filled and start is not None:
            parts.append(f"M{start} 0h{number - start}v{height}h-{number - start}z")
            start = None
    return Strip("".join(parts), days, sum(filled))


def draw_calendar(present: Collection[date], today: date, weeks: int) -> Strip:
    """A grid of weeks, Monday on top, each day with a snapshot a square.

    A cell is 1 by 1 unit, of which the square takes 0.8.
    """
    monday = today - timedelta(days=today.weekday())
    first = monday - timedelta(weeks=weeks - 1)
    parts = []
    days = (today - first).days + 1
    found = 0
    for number in range(days):
        if first + timedelta(days=number) in present:
            found += 1
            parts.append(f"M{number // WEEK} {number % WEEK}h.8v.8h-.8z")
    return Strip("".join(parts), days, found)


def draw_curve(
    points: Sequence[tuple[float, float]],
    *,
    since: float,
    until: float,
    top: float,
    width: int,
    height: int,
) -> Curve:
    """A line through points of time and value; ``top`` is the value at the upper edge.

    Of many points in one column the lowest stays: shortage is what matters.
    """
    if not points or until <= since or top <= 0:
        return Curve("", "")
    lowest: dict[int, float] = {}
    for time, value in points:
        column = round(width * (time - since) / (until - since))
        if 0 <= column <= width:
            lowest[column] = min(value, lowest.get(column, value))
    if not lowest:
        return Curve("", "")
    columns = sorted(lowest)
    steps = [
        f"{column} {_plain(height * (1 - min(max(lowest[column] / top, 0), 1)))}"
        for column in columns
    ]
    line = "M" + "L".join(steps)
    return Curve(line, f"{line}L{columns[-1]} {height}L{columns[0]} {height}z")


def draw_bars(
    values: Sequence[tuple[float | None, bool]], *, height: int, least_width: int
) -> Bars:
    """One bar for each value, which was good or not, the newest at the right.

    The largest is as high as the box. A value that is not known has no bar, and any
    other at least one unit of height, so that it can be seen.
    """
    top = max((value for value, _ in values if value is not None), default=0) or 1
    width = max(len(values), least_width)
    good: list[str] = []
    failed: list[str] = []
    for place, (value, is_good) in enumerate(values, start=width - len(values)):
        if value is not None:
            tall = _plain(max(height * value / top, 1.0))
            bar = f"M{place} {height}v-{tall}h.8v{tall}z"
            (good if is_good else failed).append(bar)
    return Bars("".join(good), "".join(failed), width)


def _plain(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
