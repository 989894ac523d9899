"""Retires a client: its key is refused with a word, and its history ages.

The note in the store, which makes byteback-receive refuse the client, is the store's
user's. Until when the newest backup stays is in root's own record, beside the mark:
what is deleted by it may be sealed (D29).
"""

from __future__ import annotations

import contextlib
import logging
import time

from byteback import log
from byteback.errors import BytebackError, LockedError, quote
from byteback.server.fleet import ends, removal, roster, sessions
from byteback.server.store import retirement
from byteback.server.store.layout import Store
from byteback.server.store.retirement import Retired
from byteback.system import privilege

logger = logging.getLogger(__name__)

DAY_S = 86400.0
LEAST_DAYS = 7  # in which a mistake can be noticed, as with pruning


def retire(
    store: Store, name: str, keep_days: int | None, *, dry_run: bool
) -> list[str]:
    """Refuse a client from now on; lines about what was done.

    After ``keep_days`` root's pruning removes what is left of it; None: it stays until
    it is removed. Done again, it sets that anew. The caller is root, acting as the
    store's user. Raises NotSetUpError if there is no such client, LockedError while a
    transfer of it is under way.
    """
    client = roster.client_named(store, name)
    now = time.time()
    until = None if keep_days is None else now + keep_days * DAY_S
    told = _tell(until)
    if dry_run:
        return [f"would refuse {client} from now on", f"would keep its backups {told}"]
    with contextlib.ExitStack() as stack:
        try:
            wait_s = sessions.ALONE_WAIT_S
            stack.enter_context(store.lock_host(client, wait_s=wait_s))
        except LockedError as error:
            raise sessions.under_way(client, error) from None
        before = retirement.read(store, client)
        since = now if before is None else before.since
        ends.write(client, until)
        retirement.write(store, client, Retired(since, until))
    log.audit("RETIRE", host=client, keep_days=keep_days)
    return [f"retired {client}: it is refused, and its backups are kept {told}"]


def take_back(store: Store, name: str, *, dry_run: bool) -> list[str]:
    """Make a retired client one like any other again; lines about what was done."""
    client = roster.client_named(store, name)
    if retirement.read(store, client) is None:
        return [f"{client} is not retired"]
    if dry_run:
        return [f"would let {client} in again"]
    ends.forget(client)
    retirement.forget(store, client)
    log.audit("RETIRE", host=client, undone=True)
    return [f"{client} is no longer retired"]


def remove_due(store: Store) -> None:
    """Remove the retired clients whose time is over; for root's pruning runs.

    Where root's record and the note in the store do not agree, nothing is removed. What
    an administrator has put beside the snapshots stays. What fails is logged.
    """
    if not privilege.is_root_within_reach():
        return
    now = time.time()
    for client, until in ends.read().items():
        noted = retirement.read(store, client)
        if until > now or noted is None or noted.until is None or noted.until > now:
            continue
        try:
            if store.is_client(client):
                for line in removal.remove(store, client, keep_others=True):
                    logger.info("retired: %s", line)
            ends.forget(client)
        except LockedError:
            continue  # the next run does it
        except (OSError, BytebackError) as error:
            logger.warning("cannot remove %s: %s", quote(client), error)


def _tell(until: float | None) -> str:
    if until is None:
        return "by the rules for all, the newest until it is removed"
    day = time.strftime("%Y-%m-%d", time.localtime(until))
    return f"by the rules for all until {day}, and removed then"
