"""Waiting without judging by the clock: a busy machine may stand still for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

# Long enough for any machine; a test waits so long only when it is about to fail.
PATIENCE_S = 180.0


def wait_until(
    condition: Callable[[], object], reason: str = "it did not come about"
) -> None:
    """Return once the condition holds; fail with the reason if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(reason)
        time.sleep(0.05)
