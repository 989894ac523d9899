"""What a first server lists is read, compared and refused, without any server."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import RefusedError
from byteback.model.replication import (
    ENOUGH_TOLD,
    Held,
    Offer,
    OfferedSnapshot,
    Plan,
    plan,
    same_history,
)
from byteback.model.snapshot import Snapshot, parse_snapshot_name
from byteback.wire import replication
from byteback.wire.replication import Fetch, ListAll

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HEADER = '{"byteback":"1.0.0","replication":1}'


def name(days: int) -> str:
    return f"{NOW - timedelta(days=days):%Y-%m-%dT%H:%M}+0000"


def time(of: str) -> datetime:
    found = parse_snapshot_name(of)
    assert found is not None
    return found


def planned(
    offered: Mapping[str, str], here: Mapping[str, str], tokens: Mapping[str, str]
) -> Plan:
    offer = Offer("a", tuple(OfferedSnapshot(n, t) for n, t in offered.items()))
    held = Held(tuple(sorted(Snapshot("a", time(n), n) for n in here)), tokens)
    return plan(offer, {n: time(n) for n in offered}, held, NOW)


def test_the_missing_ones_are_brought_oldest_first() -> None:
    offered = {name(1): "c", name(3): "a", name(2): "b"}
    found = planned(offered, {}, {})
    assert [one.name for one in found.missing] == [name(3), name(2), name(1)]
    assert found.refused == ()


def test_what_was_pruned_here_does_not_come_back() -> None:
    offered = {name(3): "a", name(2): "b", name(1): "c"}
    found = planned(offered, {name(2): ""}, {name(3): "a", name(2): "b"})
    assert [one.name for one in found.missing] == [name(1)]
    assert found.refused == ()


def test_what_contradicts_is_told_and_never_brought() -> None:
    offered = {name(3): "x", name(4): "old", name(-2): "ahead", name(2): ""}
    found = planned(offered, {name(3): "", name(2): ""}, {name(3): "a", name(2): "b"})
    assert found.missing == ()
    assert len(found.refused) == 3
    assert "is another snapshot there" in " ".join(found.refused)
    assert "was never here" in " ".join(found.refused)
    assert "dated more than a day ahead" in " ".join(found.refused)


def test_a_flood_of_contradictions_is_told_shortly() -> None:
    offered = {name(-day): "" for day in range(2, 200)}
    found = planned(offered, {}, {})
    assert len(found.refused) == ENOUGH_TOLD + 1
    assert "193 more snapshots of 'a'" in found.refused[-1]


def test_a_renamed_client_is_known_by_its_snapshots() -> None:
    offer = Offer("new", (OfferedSnapshot(name(1), "t"), OfferedSnapshot(name(2), "")))
    assert same_history(offer, {"old": ["x", "t"], "other": ["", "y"]}) == "old"
    assert same_history(offer, {"new": ["t"], "other": [""]}) is None


def test_requests_come_back_as_they_were() -> None:
    fetch = Fetch("a.example", name(1), ("--server", "--sender", "-lr", ".", "./"))
    base = OfferedSnapshot(name(2), "00ff")
    since = (fetch._replace(base=base), fetch._replace(base=base._replace(token="")))
    for request in (ListAll(), fetch, *since):
        text = replication.format_request(request)
        assert replication.parse_request(text.encode()) == request


@given(st.binary(max_size=200))
def test_no_request_breaks_the_parser(command: bytes) -> None:
    for start in (b"", b"byteback-replicate ", b"byteback-replicate --fetch a "):
        with contextlib.suppress(RefusedError):
            replication.parse_request(start + command)


def listing(*lines: str, end: int | None = None) -> bytes:
    last = f'{{"clients":{len(lines) if end is None else end}}}'
    return "".join(f"{line}\n" for line in (HEADER, *lines, last)).encode()


def test_a_listing_comes_back_as_it_was() -> None:
    offers = (
        Offer("a", (OfferedSnapshot(name(1), "00ff", incomplete=True),)),
        Offer("b", ()),
    )
    lines = [replication.format_offer(offer) for offer in offers]
    text = "\n".join(
        [replication.format_header(), *lines, replication.format_end(2), ""]
    )
    assert replication.parse_listing(text.encode()).offers == offers
    assert replication.parse_listing(text.encode()).strange == ()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n\n",
        b"rubbish",
        b"\xff\xfe" * 1000,
        b"[" * 100_000,
        f"{HEADER}\n".encode(),
        f"motd\n{HEADER}\n{{'clients':0}}\n".encode(),
        listing(end=1),
        listing('{"client":"a","snapshots":[]}', end=0),
        listing()[:-1],
        listing().replace(b":1}", b":2}"),
    ],
)
def test_what_is_no_listing_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError):
        replication.parse_listing(text)


def test_snapshots_are_counted_over_all_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replication, "MAX_SNAPSHOTS", 10)
    offers = [
        Offer(client, tuple(OfferedSnapshot(name(day), "") for day in range(1, 6)))
        for client in ("a", "b", "c")
    ]
    lines = [replication.format_offer(offer) for offer in offers]
    assert len(replication.parse_listing(listing(*lines[:2])).offers) == 2
    with pytest.raises(RefusedError, match="too many snapshots"):
        replication.parse_listing(listing(*lines))


def test_strange_names_are_left_out_and_told() -> None:
    good = f'["{name(1)}","aa",false]'
    bad = (
        '"../x"',
        '".ssh"',
        '"a/b"',
        '"-r"',
        '""',
        '"x\\n"',
        "7",
        "null",
        '"\\u001b"',
    )
    lines = [f'{{"client":{one},"snapshots":[{good}]}}' for one in bad]
    snapshots = ['["current","",0]', '["../..","",0]', f'["{name(1)}","../t",0]', "[]"]
    lines += [
        f'{{"client":"a","snapshots":[{",".join([*snapshots, good, good])}]}}',
        '{"client":"A","snapshots":[]}',
        "[]",
    ]
    found = replication.parse_listing(listing(*lines))
    assert found.offers == (Offer("a", (OfferedSnapshot(name(1), "aa"),)),)
    assert len(found.strange) == len(bad) + len(snapshots) + 3
    assert all(sentence.isprintable() for sentence in found.strange)


def test_a_flood_of_strange_entries_take_no_memory() -> None:
    text = listing(f'{{"client":"a","snapshots":[{",".join("7" * 200_000)}]}}')
    tracemalloc.start()
    try:
        found = replication.parse_listing(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.strange) == replication.ENOUGH_STRANGE
    assert found.offers == (Offer("a", ()),)
    assert peak < 10 << 20


def test_a_listing_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "MAX_CLIENTS", 2)
    lines = [replication.format_offer(Offer(client, ())) for client in "abc"]
    assert len(replication.parse_listing(listing(*lines[:2])).offers) == 2
    with pytest.raises(RefusedError, match="too many clients"):
        replication.parse_listing(listing(*lines))


@given(st.binary(max_size=300))
def test_no_listing_breaks_the_parser(middle: bytes) -> None:
    for text in (middle, HEADER.encode() + b"\n" + middle + b'\n{"clients":1}\n'):
        with contextlib.suppress(RefusedError):
            replication.parse_listing(text)
