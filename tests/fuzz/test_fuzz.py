"""Without a fuzzer: the examples, and recorded requests with something changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.server_side import read_request
from tests.fuzz.targets import SHARES, TARGETS, examples, recorded_requests

LINES = recorded_requests()
WORDS = sorted({word for line in LINES for word in line.split()})


@pytest.mark.parametrize("name", TARGETS)
def test_examples(name: str) -> None:
    assert examples(name)
    for example in examples(name):
        TARGETS[name](example)
        TARGETS[name](example[1:])


def test_shares_are_of_targets() -> None:
    assert SHARES.keys() <= TARGETS.keys()


@given(st.sampled_from(LINES), st.data())
def test_recorded_with_something_changed(line: bytes, data: st.DataObject) -> None:
    words = line.split(b" ")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(words) - 1))
        other = data.draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=12)))
        words[at : at + data.draw(st.integers(0, 1))] = [other]
    read_request(b" ".join(words))
