"""Trying again what a network, a reboot or a full disc has cut off."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from byteback.errors import BytebackError, escape

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

GROWTH = 1.5
LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True)
class RetryPolicy:
    """The number of retries after a failure, and the pause before each."""

    number: int = 3
    delay_s: float = 300.0

    def pause_s(self, attempt: int) -> float:
        """The pause after failed attempt ``attempt`` (from 1): growing, and jittered.

        The jitter keeps a thousand clients from knocking at once when their server
        is back from a reboot.
        """
        grown = min(self.delay_s * GROWTH ** (attempt - 1), LONGEST_PAUSE_S)
        return grown * random.uniform(0.75, 1.25)  # noqa: S311 # no secret


def retrying(
    action: Callable[[], Value],
    policy: RetryPolicy,
    *,
    renew: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Value:
    """Call ``action``, and again after every error that can pass; return its result.

    Before each further attempt ``renew`` is called: Connection.renew, so that no
    attempt depends on a connection over which another one failed.
    Raises the last error when there is no attempt left, which its message then says;
    everything else at once, a user's interrupt included.
    """
    attempts = policy.number + 1
    for attempt in range(1, attempts):
        try:
            return action()
        except BytebackError as error:
            if not error.retryable:
                raise
            pause_s = policy.pause_s(attempt)
            logger.warning(
                "attempt %d of %d failed: %s; trying again in %.0f seconds, at %s",
                attempt,
                attempts,
                describe(error),
                pause_s,
                time.strftime("%H:%M:%S", time.localtime(time.time() + pause_s)),
            )
        renew()
        sleep(pause_s)
    try:
        return action()
    except BytebackError as error:
        if error.retryable and attempts > 1:
            error.message += f" (after {attempts} attempts)"
        raise


def describe(error: BytebackError) -> str:
    """The message, and the reason that the failing program itself gave."""
    if not error.details:
        return error.message
    return f"{error.message} ({escape(error.details[0].strip())})"
