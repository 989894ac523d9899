"""Three years of 200 clients on a disc that never grows: what pruning leaves of them.

    python3 -m tests.simulate_pruning [--hosts N] [--days N] [--room N] [--seed N]

Time and space are pretended, the order is the real one. Each snapshot takes what its
client changed that day; a snapshot that goes gives that back. Some backups fail, some
clients retire or come late, and summer time comes and goes.
It ends with a summary, and with an error if a host ever lost its newest snapshot.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from byteback.model import retention  # noqa: E402 # the checkout's own
from byteback.model.snapshot import Snapshot, format_snapshot_name  # noqa: E402

ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2026, 11, 23, tzinfo=UTC)
MIN_FREE, MAX_FREE = 0.05, 0.10


@dataclass
class Client:
    """A machine that is backed up each night, more or less."""

    name: str
    minute: int  # of the night
    daily: float  # what it changes in a day
    reliability: float
    first_day: int
    last_day: int


@dataclass
class Simulation:
    """The store from day to day."""

    hosts: int = 200
    days: int = 3 * 365
    room: float = 8000.0  # in days' changes of an average client
    seed: int = 1
    sizes: dict[Snapshot, float] = field(default_factory=dict)
    deleted: int = 0
    youngest_deleted: timedelta = timedelta.max
    tightest: float = 1.0
    now: datetime = START

    def run(self) -> None:
        """Live through all the days; raises AssertionError on a broken promise."""
        chance = random.Random(self.seed)  # noqa: S311 # nothing secret
        clients = list(self._clients(chance))
        for day in range(self.days):
            self.now = START + timedelta(days=day + 1)
            for client in clients:
                self.back_up(client, day, chance)
            before = newest(self.sizes)
            self._prune()
            assert newest(self.sizes) == before, "a host lost its newest snapshot"

    def used(self) -> float:
        """Of the room."""
        return sum(self.sizes.values())

    def ages(self) -> dict[str, int]:
        """How many days back each living host's history reaches."""
        oldest: dict[str, datetime] = {}
        for snapshot in self.sizes:
            seen = oldest.get(snapshot.host, snapshot.time)
            oldest[snapshot.host] = min(seen, snapshot.time)
        return {host: (self.now - time).days for host, time in oldest.items()}

    def _clients(self, chance: random.Random) -> Iterator[Client]:
        for number in range(self.hosts):
            is_late, is_retired = number % 5 == 3, number % 10 == 7
            yield Client(
                f"h{number:03}",
                chance.randrange(0, 360),
                chance.lognormvariate(-0.35, 0.8),
                1.0 if number % 3 else 0.9,
                chance.randrange(self.days // 2) if is_late else 0,
                self.days // 2 + chance.randrange(self.days // 3)
                if is_retired
                else self.days,
            )

    def back_up(self, client: Client, day: int, chance: random.Random) -> None:
        """Send what a client has changed, if it is there and nothing is in the way."""
        if not client.first_day <= day < client.last_day:
            return
        if chance.random() > client.reliability:
            return
        time = START + timedelta(days=day, minutes=client.minute)
        local = time.astimezone(ZONE)
        snapshot = Snapshot(client.name, time, format_snapshot_name(local))
        self.sizes[snapshot] = self.size_of(client, day, time, chance)

    def size_of(
        self, client: Client, _day: int, _time: datetime, chance: random.Random
    ) -> float:
        """The room that one backup takes."""
        return client.daily * chance.uniform(0.3, 2.0)

    def _prune(self) -> None:
        free = 1 - self.used() / self.room
        self.tightest = min(self.tightest, free)
        if self.is_short(free):
            self._make_room(free)

    def is_short(self, free: float) -> bool:
        """Whether pruning starts with so much of the room left."""
        return free <= MIN_FREE

    def _make_room(self, free: float) -> None:
        places = retention.order_by_importance(self.sizes, self.now, ZONE)
        kept = retention.protections(self.sizes, self.now)
        # One order for the whole run: what goes from its end changes little of it.
        for snapshot, _ in reversed(places):
            if free >= MAX_FREE:
                return
            if snapshot not in kept:
                free += self.sizes.pop(snapshot) / self.room
                self.deleted += 1
                age = self.now - snapshot.time
                self.youngest_deleted = min(self.youngest_deleted, age)


def newest(snapshots: dict[Snapshot, float]) -> dict[str, datetime]:
    """When each host's newest snapshot was made."""
    found: dict[str, datetime] = {}
    for snapshot in snapshots:
        seen = found.get(snapshot.host, snapshot.time)
        found[snapshot.host] = max(seen, snapshot.time)
    return found


def summary(simulation: Simulation) -> list[str]:
    """Show what is left at the end."""
    ages = sorted(simulation.ages().values())
    per_host = sorted(
        sum(s.host == host for s in simulation.sizes) for host in simulation.ages()
    )
    middle = len(ages) // 2
    free = 1 - simulation.used() / simulation.room
    left = f"{len(simulation.sizes)} snapshots of {len(ages)} hosts"
    reach = f"least {ages[0]}, median {ages[middle]}, most {ages[-1]}"
    counts = f"least {per_host[0]}, median {per_host[middle]}, most {per_host[-1]}"
    room = f"room for {simulation.room:g} average days, seed {simulation.seed}"
    return [
        f"{simulation.hosts} hosts, {simulation.days} days, {room}",
        f"left: {left}; deleted: {simulation.deleted}",
        f"history reaches back (days): {reach}",
        f"snapshots of a host: {counts}",
        f"youngest that was ever deleted: {simulation.youngest_deleted.days} days",
        f"free: {100 * free:.1f} % now, {100 * simulation.tightest:.1f} % at worst",
    ]


def main() -> None:
    """Run it with the options given."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = Simulation()
    parser.add_argument("--hosts", type=int, default=defaults.hosts)
    parser.add_argument("--days", type=int, default=defaults.days)
    parser.add_argument("--room", type=float, default=defaults.room)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    simulation = Simulation(**vars(parser.parse_args()))
    simulation.run()
    sys.stdout.write("".join(f"{line}\n" for line in summary(simulation)))


if __name__ == "__main__":
    main()
