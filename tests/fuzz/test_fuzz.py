"""A minute of fuzzing, where atheris is installed; the recorded requests always."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_requests import RECORDED, check

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = 60
LINES = [
    line.partition("\t")[2].encode()
    for line in RECORDED.read_text().splitlines()
    if line and not line.startswith("#")
]
WORDS = sorted({word for line in LINES for word in line.split()})


@pytest.mark.parametrize("line", LINES)
def test_recorded(line: bytes) -> None:
    check(line)


@given(st.sampled_from(LINES), st.data())
def test_recorded_with_something_changed(line: bytes, data: st.DataObject) -> None:
    words = line.split(b" ")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(words) - 1))
        other = data.draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=12)))
        words[at : at + data.draw(st.integers(0, 1))] = [other]
    check(b" ".join(words))


def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    module = "tests.fuzz.fuzz_requests"
    argv = [sys.executable, "-m", module, f"-max_total_time={SECONDS}", str(tmp_path)]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
