"""A server's history over a year, in which one client fills the disc with rubbish.

It is simulate_pruning with the product's judgement of growth beside its order.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime

from byteback.model import growth
from byteback.model.free_space import Limits, wants_pruning, wants_pruning_for_others
from byteback.model.growth import Push, Rules, Taken
from byteback.server.store.settings import ServerSettings
from tests.simulate_pruning import MIN_FREE, Client, Simulation, summary

GIB = 1 << 30  # what an average client changes in a day
HOSTILE = "h001"
RUBBISH = 0.03  # of the store, each day
RUBBISH_DAYS = 20
REMEMBERED = 45  # backups of each client


def _few() -> deque[Push]:
    return deque(maxlen=REMEMBERED)


@dataclass
class History(Simulation):
    """The store from day to day, with a hostile client in the middle of the time."""

    pushes: dict[str, deque[Push]] = field(default_factory=lambda: defaultdict(_few))
    blamed: set[str] = field(default_factory=set)
    held_days: int = 0  # on which room was short, and nothing went for the rubbish
    rubbish: float = 0.0
    reach_before: int = 0  # days of history that half of the clients have, or more
    reach_after: int = 0

    def reach(self) -> int:
        """Days of history that half of the clients have, or more."""
        return sorted(self.ages().values())[len(self.ages()) // 2]

    def size_of(
        self, client: Client, day: int, time: datetime, chance: random.Random
    ) -> float:
        """The room that one backup takes, which the server measures."""
        size = super().size_of(client, day, time, chance)
        if client.name == HOSTILE and 0 <= day - self.days // 2 < RUBBISH_DAYS:
            self.reach_before = self.reach_before or self.reach()
            # The server stops such a transfer where room is short.
            most = self.room * (1 - MIN_FREE) - self.used()
            size = max(size, min(RUBBISH * self.room, most))
            self.rubbish += size
            self.reach_after = self.reach()
        started = time.timestamp()
        push = Push(started, Taken(int(size * GIB)), 1000, ended=started + 60)
        self.pushes[client.name].append(push)
        return size

    def is_short(self, free: float) -> bool:
        """As Pruner asks: what suddenly larger backups took counts as free (D16)."""
        defaults = ServerSettings()
        limits = Limits(defaults.min_percent, defaults.max_percent)
        if not wants_pruning(100 * free, limits, under_way=False):
            return False
        if wants_pruning_for_others(100 * free, limits, under_way=False):
            return True
        taken = self._judge(defaults)
        supposed = free + taken / GIB / self.room
        is_short = wants_pruning(100 * supposed, limits, under_way=False)
        self.held_days += not is_short
        return is_short

    def _judge(self, defaults: ServerSettings) -> int:
        """The bytes that suddenly larger backups have taken, by all clients' pushes."""
        rules = Rules(
            defaults.growth_factor, defaults.growth_percent, defaults.shrink_factor
        )
        now, taken = self.now.timestamp(), 0
        store = Taken(int(self.room * GIB))
        for client, pushes in self.pushes.items():
            ends = [push.ended for push in pushes]
            verdict = growth.judge(growth.group(pushes, ends, ()), now, store, rules)
            if verdict.blamed_since is not None:
                self.blamed.add(client)
                taken += verdict.blamed.data
        return taken

    def summary(self) -> list[str]:
        """The figures."""
        share = 100 * self.rubbish / self.room
        blamed = ", ".join(sorted(self.blamed)) or "none"
        return [
            *summary(self),
            f"{HOSTILE} sent {share:.1f} % of the store in rubbish; blamed: {blamed}",
            f"days on which nothing was deleted for that: {self.held_days}",
            f"median reach before: {self.reach_before} days, after: {self.reach_after}",
        ]
