"""Destinations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import UsageError
from byteback.model.destination import (
    Destination,
    format_destination,
    parse_destination,
)

WRITTEN = {
    "byteback@backuphost:": Destination("byteback", "backuphost"),
    "backuphost": Destination("byteback", "backuphost"),
    "backuphost:": Destination("byteback", "backuphost"),
    " me@host:/srv/x\n": Destination("me", "host", path="/srv/x"),
    "host:relative/path": Destination("byteback", "host", path="relative/path"),
    "me@[2001:db8::1]:": Destination("me", "2001:db8::1"),
    "2001:db8::1": Destination("byteback", "2001:db8::1"),
    "me@::1": Destination("me", "::1"),
    "[::1]:/x": Destination("byteback", "::1", path="/x"),
    "ssh://me@host:2222/": Destination("me", "host", 2222),
    "ssh://host": Destination("byteback", "host"),
    "ssh://me@[::1]:2222/x": Destination("me", "::1", 2222, "x"),
    "ssh://me@host/2222": Destination("me", "host", path="2222"),
    "me@host:./2222": Destination("me", "host", path="./2222"),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_parse(text: str) -> None:
    assert parse_destination(text) == WRITTEN[text]


@pytest.mark.parametrize("destination", WRITTEN.values(), ids=str)
def test_what_is_formatted_is_read_back(destination: Destination) -> None:
    assert parse_destination(format_destination(destination)) == destination


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@host",
        "me@",
        ":path",
        "-oProxyCommand=id:",
        "me@-oProxyCommand=id",
        "-l@host",
        "two words@host",
        "me@ho[st]:x:y",
        "ho st:",
        "host\x1b[0m:",
        "ssh://host:port/",
        "ssh://host:99999/",
        "[::1",
        "[::1]x",
        "a/b:",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_destination(text)


@pytest.mark.parametrize("server", ["byteback@host", "byteback@[::1]"])
def test_a_port_is_asked_back_for(server: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination(f"{server}:2222")
    url = str(caught.value.hint).split()[-1]
    assert url == f"ssh://{server}:2222/"
    assert parse_destination(url).port == 2222


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        destination = parse_destination(text)
    except UsageError:
        return
    assert not destination.host.startswith("-")
    assert not destination.user.startswith("-")
