"""The word of a client about itself, with its last push in the ledger: for people.

Nothing is decided by it, for a client can say anything.
"""

from __future__ import annotations

from byteback.server.accounting.ledger_file import opened
from byteback.server.store.layout import Store

CLOCK_NOISE_S = 60  # between two clocks that are right

_CLOCK_AHEAD = """
SELECT clock_ahead FROM transfer
WHERE host = ? AND clock_ahead IS NOT NULL ORDER BY started DESC LIMIT 1
"""


def note_missed(store: Store, client: str, count: int) -> None:
    """Record with a host's last push what its comparison found; see ledger_file.

    A ledger of an older version, on a disc without room for new columns, is left alone.
    """
    with opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET missed = ? WHERE id = (SELECT MAX(id) FROM transfer"
            " WHERE host = ? AND kind = 'push')",
            (count, client),
        )


def note_clock(store: Store, client: str, ahead_s: int) -> None:
    """Record by how much a client's clock is ahead of this one, with its last push.

    A clock that is right, and was right the last time, costs no transaction.
    """
    with opened(store, short_timeout=True) as ledger:
        row = ledger.execute(_CLOCK_AHEAD, (client,)).fetchone()
        if max(abs(ahead_s), abs(row[0]) if row else 0) <= CLOCK_NOISE_S:
            return
        ledger.execute(
            "UPDATE transfer SET clock_ahead = ? WHERE id = (SELECT MAX(id)"
            " FROM transfer WHERE host = ? AND kind = 'push')",
            (ahead_s, client),
        )
