"""The limits of free space between which pruning works."""

from __future__ import annotations

from byteback.errors import UsageError
from byteback.model.free_space import Limits
from byteback.server.store import settings


def choose_limits(min_percent: float | None, max_percent: float | None) -> Limits:
    """The limits in force: what is given here beats server.toml beats the defaults.

    Raises UsageError if they contradict each other.
    """
    if min_percent is None or max_percent is None:
        known = settings.load()
        min_percent = known.min_percent if min_percent is None else min_percent
        max_percent = known.max_percent if max_percent is None else max_percent
    if not 0 <= min_percent < max_percent <= 100:
        raise UsageError(
            f"the minimum of free space ({min_percent:g} %) must be below the maximum "
            f"({max_percent:g} %), both between 0 and 100"
        )
    return Limits(min_percent, max_percent)
