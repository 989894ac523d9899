"""A store of many clients: directories and a ledger.

byteback-status is content with plain empty directories as snapshots, for which neither
btrfs nor root is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from byteback.model.snapshot import CURRENT
from byteback.server.accounting import ledger_file
from byteback.server.store.layout import Store

MIB = 1 << 20
HOUR_S = 3600.0

_TRANSFER = """
INSERT INTO transfer (host, address, kind, started, ended, result, exit_status,
    bytes_received, bytes_written, data_taken, metadata_taken, names, is_full)
VALUES (?, '::1', 'push', ?, ?, 'whole', 0, ?, ?, ?, 0, 1000, 1)
"""
_SNAPSHOT = """
INSERT INTO snapshot (host, name, made, incomplete, files, size)
VALUES (?, ?, ?, 0, 1000, ?)
"""


def make_store(
    root: Path,
    clients: int,
    snapshots: int,
    *,
    megabytes: int = 1,
    make_tree: Callable[[Path], None] = Path.mkdir,
) -> Store:
    """A store of daily clients, with so many backups each, and snapshots of them.

    Each backup took ``megabytes`` from the disc. As in a real ledger, the rows of one
    client lie apart. ``make_tree`` makes ``current``, and then each snapshot.
    """
    store = Store(root)
    (store.state / "hosts").mkdir(parents=True)
    transfers: list[tuple[str, float, float, int, int, int]] = []
    made: list[tuple[str, str, float, int]] = []
    for number in range(clients):
        name = f"host{number:05}.example.net"
        (root / name).mkdir()
        make_tree(root / name / CURRENT)
        newest = time.time() - HOUR_S * (1 + number % 20)
        for day in range(snapshots):
            ended = newest - 24 * HOUR_S * day
            tree = datetime.fromtimestamp(ended, UTC).strftime("%Y-%m-%dT%H:%M+0000")
            make_tree(root / name / tree)
            sizes = (500 * MIB, 400 * MIB, megabytes * MIB)
            transfers.append((name, ended - 300, ended, *sizes))
            made.append((name, tree, ended + 2, (20_000 + day) * MIB))
    transfers.sort(key=lambda row: row[2])
    made.sort(key=lambda row: row[2])
    with ledger_file.opened(store) as ledger:
        ledger.executemany(_TRANSFER, transfers)
        ledger.executemany(_SNAPSHOT, made)
    return store
