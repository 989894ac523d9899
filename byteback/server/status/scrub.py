"""Checks the store once a month: btrfs reads everything and compares its checksums.

It gives way to transfers, and to whatever scrubs the store already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from byteback import locking
from byteback.errors import BytebackError, ToolError
from byteback.server.store.layout import Store
from byteback.system import process
from byteback.system.btrfs import health

logger = logging.getLogger(__name__)

LEAST_AGE_S = 20 * 86400.0  # someone else's monthly scrub is enough
MANY_TRANSFERS = 2  # with so many at once the scrub pauses
POLL_S = 30.0


def scrub(store: Store, sleep: Callable[[float], None] = time.sleep) -> None:
    """Scrub the store unless that was done lately; returns when it is through.

    The caller is root. Raises BytebackError if the scrub found errors, ToolError if it
    could not be run.
    """
    root, last = store.root, health.last_scrub(store.root)
    if last is not None and time.time() - last.finished < LEAST_AGE_S:
        logger.info("the store was scrubbed lately")
        return
    _run(root, "start")
    is_paused = False
    try:
        while is_paused or health.is_scrub_running(root):
            sleep(POLL_S)
            is_busy = running_transfers(store) >= MANY_TRANSFERS
            if is_busy and not is_paused and health.is_scrub_running(root):
                process.run(["btrfs", "scrub", "cancel", root], tolerate=range(256))
                is_paused = True
            elif is_paused and not is_busy:
                _run(root, "resume")
                is_paused = False
    except BaseException:
        process.run(["btrfs", "scrub", "cancel", root], tolerate=range(256))
        raise
    done = health.last_scrub(root)
    if done is not None and done.errors:
        raise BytebackError(
            f"the scrub of the store found {done.errors} errors",
            hint="btrfs scrub status and dmesg name the files",
        )


def running_transfers(store: Store) -> int:
    """The number of transfers that run now, by the places that are taken."""
    slots = (store.state / "slots").glob("*.lock")
    return sum(path.stem.isdigit() and locking.is_held(path) for path in slots)


def _run(root: Path, verb: str) -> None:
    """Start or resume in the background, at idle priority (ioprio_set(2), class 3)."""
    try:
        process.run(["btrfs", "scrub", verb, "-c", "3", root])
    except ToolError as error:
        if "already" not in " ".join(error.details).lower():
            raise
