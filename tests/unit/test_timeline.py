"""The picture of which days each host still has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from byteback.model.snapshot import Snapshot, format_snapshot_name
from byteback.model.timeline import draw

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


def made(host: str, *days_old: float) -> list[Snapshot]:
    times = [NOW - timedelta(days=days) for days in days_old]
    return [Snapshot(host, time, format_snapshot_name(time)) for time in times]


def test_golden_picture_of_a_few_weeks() -> None:
    picture = draw([*made("a", 0, 1, 1.1, 3), *made("long.name", 9, 29)], NOW, UTC, 60)
    assert picture == [
        "           2026-10-25          2026-11-14",
        "a          ..........................|.#|",
        "long.name  |...................|.........",
        "each column is a day: | one snapshot, # several, . none",
    ]


def test_long_histories_take_whole_weeks_and_fit() -> None:
    days = range(0, 1000, 10)
    for width in (20, 40, 80, 200):
        head, line, legend = draw(made("host", *days), NOW, UTC, width)
        assert max(len(head), len(line)) <= width
        assert "days" in legend
        assert line[-1] != "."


def test_days_are_the_servers() -> None:
    late = Snapshot("a", datetime(2026, 11, 22, 23, 30, tzinfo=UTC), "x")
    assert draw([late], NOW, UTC, 80)[1].endswith("|.")


def test_strays_of_wrong_clocks_stay_at_the_edges() -> None:
    picture = draw(made("a", 0, 5, 20000, -400), NOW, UTC, 80)
    assert picture[1] == "a  #....#"
    assert draw(made("a", 20000), NOW, UTC, 80)[1] == "a  |"


def test_long_host_names_are_cut_and_nothing_is_nothing() -> None:
    picture = draw(made("x" * 60, 1), NOW, UTC, 80)
    assert picture[1].startswith("x" * 27 + "...  ")
    assert draw([], NOW, UTC, 80) == []
