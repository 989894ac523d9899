"""A backup that covers less than the last one: what it loses, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.client.backup import narrowing
from byteback.errors import BytebackError, RefusedError
from byteback.model import coverage as model
from byteback.server.store import coverage as store_coverage
from byteback.server.store.layout import Store
from byteback.wire import coverage, replies, requests


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        (["/"], ["/"], None),
        (["/home"], ["/"], None),
        (["/home", "/etc"], ["/etc", "/home"], None),
        (["/home/joe"], ["/home"], None),
        (["/"], ["/home"], "'/', all but '/home'"),
        (["/home", "/etc"], ["/etc"], "'/home'"),
        (["/home"], ["/home2"], "'/home'"),
        (["/a", "/b", "/c", "/d"], ["/x"], "'/a'; '/b'; '/c'; more"),
        (["/a", model.MORE], ["/x"], None),
    ],
)
def test_what_leaves_the_servers_copy(
    before: list[str], now: list[str], lost: str | None
) -> None:
    assert model.lost(before, now) == lost


def test_a_tree_is_marked_for_what_another_one_has() -> None:
    assert model.narrower({"a": ["/home"], "b": ["/home"], "current": ["/home"]}) == []
    known = {"a": ["/"], "b": ["/home"], "c": ["/home", "/etc"], "current": ["/"]}
    assert model.narrower(known) == ["b", "c"]
    assert model.narrower({"a": ["/etc"], "b": ["/home"]}) == ["a", "b"]
    assert model.narrower({"a": ["/etc", model.MORE], "b": ["/home"]}) == []


def test_a_person_is_asked_and_a_log_is_told() -> None:
    told: list[str] = []
    narrowing.check(["/"], ["/"], None, told.append)
    narrowing.check(None, ["/home"], None, told.append)
    assert told == []
    narrowing.check(["/"], ["/home"], None, told.append)
    assert len(told) == 1
    assert "'/', all but '/home' goes from the server's current copy" in told[0]
    narrowing.check(["/"], ["/home"], lambda _: True, told.append)
    with pytest.raises(BytebackError, match="nothing was backed up"):
        narrowing.check(["/"], ["/home"], lambda _: False, told.append)
    assert len(told) == 1


def test_discs_that_are_not_mounted_any_more_are_named(tmp_path: Path) -> None:
    state = tmp_path / "discs"
    assert narrowing.unmounted(["/"], state) is None
    narrowing.note_discs(["/proc", "/no/such"], state)
    said = narrowing.unmounted(["/"], state)
    assert said is not None
    assert "'/no/such'" in said
    assert "'/proc'" not in said, "that is mounted"
    assert narrowing.unmounted(["/home"], state) is None
    state.write_text("{broken")
    assert narrowing.unmounted(["/"], state) is None


@pytest.mark.parametrize(
    "sources",
    [("/",), ("/a b", "/c,d", "/\udcff%"), tuple(f"/{n}" for n in range(90))],
)
def test_sources_travel_as_they_are(sources: tuple[str, ...]) -> None:
    word = coverage.format_sources(sources)
    assert " " not in word
    assert coverage.parse_sources(word) == sources
    request = requests.Complete(json=True, sources=sources)
    command = requests.format_request(request).encode()
    assert requests.parse_request(command) == request


def test_too_many_sources_are_cut_and_said_to_be() -> None:
    for sources in (
        tuple(f"/{n}" for n in range(200)),
        tuple(f"/{'x' * 3000}{n}" for n in range(10)),
    ):
        found = coverage.parse_sources(coverage.format_sources(sources))
        assert found[-1] == model.MORE
        assert sources[: len(found) - 1] == found[:-1]


@pytest.mark.parametrize(
    "word",
    [
        *(
            "",
            ",",
            "relative",
            "/a,,/b",
            "/a,relative",
            "%00",
            "/a%00",
            "/" + "x" * 5000,
        ),
        ",".join(["/a"] * 200),
        "/" + "x" * 20_000,
    ],
)
def test_a_hostile_word_is_refused(word: str) -> None:
    with pytest.raises(RefusedError):
        coverage.parse_sources(word)


def test_a_hostile_servers_answer_counts_as_not_told() -> None:
    for told in ('"/"', "[1]", "[]", '["x"]', '[["/"]]', "null", '{"a": 1}'):
        text = f'{{"byteback": "1", "protocol": 1, "host": "h", "sources": {told}}}'
        assert replies.parse_hello(text).sources is None


def test_the_server_remembers_and_forgets(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.state / "hosts").mkdir(parents=True)
    assert store_coverage.read(store, "web") is None
    store_coverage.note(store, "web", ("/home", "/etc"))
    assert store_coverage.read(store, "web") == ("/home", "/etc")
    store_coverage.note(store, "web", None)
    assert store_coverage.read(store, "web") is None
    for rubbish in (b"", b"relative", b"\xff\xfe", b"/a\n/b"):
        (store.state / "hosts/web.sources").write_bytes(rubbish)
        found = store_coverage.read(store, "web")
        assert found is None or all(source.startswith("/") for source in found)
