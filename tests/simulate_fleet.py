"""A year of many clients on several servers: queues, outages, alarms and history.

    python3 -m tests.simulate_fleet [--clients N] [--servers N] [--days N] [--minutes M]

Time is pretended; the times of the timer, the places for transfers, the pauses between
attempts, the alarms, the order of pruning and the judgement of growth are the product's
own. Servers know nothing of each other, so a fleet is the sum of its servers: of many
the first few are lived through, and the worst is shown. The first of them is down for
a day, and one night its clients have no power.
"""

from __future__ import annotations

import argparse
import heapq
import random
import re
import statistics
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from byteback.client.transport.retry import RetryPolicy  # noqa: E402 # the checkout's
from byteback.model import alarms  # noqa: E402
from byteback.model.status import Backup, Client, Result, Snapshots  # noqa: E402
from byteback.server.store.settings import ServerSettings  # noqa: E402
from tests.simulated_history import History  # noqa: E402

DAY_S, HOUR_S = 86400.0, 3600.0
TIMER = CHECKOUT / "byteback/client/setup/units/byteback-backup.timer"
START = datetime(2026, 11, 23, tzinfo=UTC).timestamp()  # midnight, a Monday
FULL_EVERY = 7  # days: a comparison of everything, by each client's own weekday
FULL_TIMES = 8  # as long as one of what has changed
SPREAD = 1.0  # of the logarithm of durations
DESKTOPS, LAPTOPS = 0.10, 0.05  # off at weekends; away for two weeks, too
OFFICE_H = (8, 18)
LOOK_H = 12  # of the day, when the alarms are looked at
KEPT = 12  # backups of a client that alarms go by


def timer_jitter_s() -> float:
    """The time over which the timer that ships spreads the clients."""
    found = re.search(r"^RandomizedDelaySec=(\d+)h$", TIMER.read_text(), re.MULTILINE)
    assert found is not None, "the timer spreads clients in another unit"
    return int(found[1]) * HOUR_S


@dataclass
class Machine:
    """A client: when it comes, how long it takes, and what the server knows of it."""

    name: str
    kind: str  # "server", "desktop" or "laptop"
    delay_s: float  # after midnight, or after it was switched on
    usual_s: float  # for a transfer of what has changed
    weekday: int  # of its full comparison
    away: int  # first of 14 days
    backups: deque[Backup] = field(default_factory=lambda: deque(maxlen=KEPT))
    is_busy: bool = False

    def start_s(self, day: int) -> float | None:
        """Seconds after midnight at which its timer runs out; None if it is off."""
        if self.kind == "server":
            return self.delay_s
        is_away = self.kind == "laptop" and self.away <= day < self.away + 14
        if day % 7 >= 5 or is_away:
            return None
        return OFFICE_H[0] * HOUR_S + self.delay_s  # Persistent=true: made up for


@dataclass
class Day:
    """What one server saw in a day."""

    wanted: int = 0
    done: int = 0
    full: int = 0  # gave up: all places were taken at each attempt
    down: int = 0  # gave up: nothing answered
    busy_answers: int = 0
    waits_s: list[float] = field(default_factory=list)  # from the timer to a place
    running: Counter[int] = field(default_factory=Counter)  # the most, by hour
    waiting: Counter[int] = field(default_factory=Counter)
    stale: int = 0  # alarms at noon
    stale_for_nothing: int = 0  # of clients that are switched off on purpose


@dataclass
class Server:
    """One server and its clients, from event to event."""

    clients: int
    days: int
    minutes: float  # for a usual transfer, the median of clients
    seed: int
    places: int = ServerSettings().max_transfers
    jitter_s: float = field(default_factory=timer_jitter_s)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    outage: int | None = None  # a day without the server
    power_cut: int | None = None  # a night without power for its clients

    def run(self) -> list[Day]:
        """Live through the days."""
        random.seed(self.seed)  # for the pauses, which the product chooses
        self._chance = random.Random(self.seed)  # noqa: S311 # nothing secret
        self.machines = [self._machine(number) for number in range(self.clients)]
        self._seen = [Day() for _ in range(self.days + 1)]
        self._queue: list[tuple[float, int, str, int, int, float]] = []
        self._running = self._waiting = self._number = 0
        for day in range(self.days):
            self._begin(day)
            self._live_until((day * 24 + LOOK_H) * HOUR_S)
            self._look(day)
            self._live_until((day + 1) * DAY_S)
        return self._seen[: self.days]

    def _machine(self, number: int) -> Machine:
        chance = self._chance
        share = number / self.clients
        kind = "laptop" if share < LAPTOPS else "server"
        kind = "desktop" if LAPTOPS <= share < LAPTOPS + DESKTOPS else kind
        return Machine(
            f"c{number}",
            kind,
            chance.uniform(0, self.jitter_s),  # FixedRandomDelay=true: always the same
            60 * self.minutes * chance.lognormvariate(0, SPREAD),
            chance.randrange(7),
            chance.randrange(max(1, self.days)),
        )

    def _begin(self, day: int) -> None:
        for at, machine in enumerate(self.machines):
            start_s = machine.start_s(day)
            if start_s is None:
                continue
            if day == self.power_cut and machine.kind == "server":
                start_s += 10 * HOUR_S  # they boot at ten, and their timers begin then
            self._seen[day].wanted += 1
            time = day * DAY_S + start_s
            self._push(time, "try", at, 1, time)

    def _push(self, time: float, what: str, at: int, number: int, since: float) -> None:
        self._number += 1
        heapq.heappush(self._queue, (time, self._number, what, at, number, since))

    def _live_until(self, end: float) -> None:
        while self._queue and self._queue[0][0] < end:
            time, _, what, at, number, since = heapq.heappop(self._queue)
            day = self._seen[int(time // DAY_S)]
            machine = self.machines[at]
            if what == "end":
                self._end(day, machine, time, since)
            elif what == "again" or not machine.is_busy:
                self._waiting -= what == "again"
                self._try(day, at, time, number, since)
            hour = int(time % DAY_S // HOUR_S)
            day.running[hour] = max(day.running[hour], self._running)
            day.waiting[hour] = max(day.waiting[hour], self._waiting)

    def _try(self, day: Day, at: int, time: float, number: int, since: float) -> None:
        machine = self.machines[at]
        machine.is_busy = True
        is_down = self.outage is not None and 0 <= time - self.outage * DAY_S < DAY_S
        if not is_down and self._running < self.places:
            day.waits_s.append(time - since)
            self._running += 1
            self._push(time + self._takes_s(machine, time), "end", at, 0, time)
            return
        day.busy_answers += not is_down
        if number <= self.policy.number:
            self._waiting += 1
            again = time + self.policy.pause_s(number)
            self._push(again, "again", at, number + 1, since)
            return
        machine.is_busy = False
        day.down += is_down
        day.full += not is_down

    def _takes_s(self, machine: Machine, time: float) -> float:
        last = machine.backups[-1].started - START if machine.backups else time
        late = min(max((time - last) / DAY_S, 1.0), FULL_TIMES)  # days' changes
        usual = machine.usual_s * late * self._chance.uniform(0.5, 2)
        is_full = int(time // DAY_S) % FULL_EVERY == machine.weekday
        return usual * FULL_TIMES if is_full else usual

    def _end(self, day: Day, machine: Machine, time: float, since: float) -> None:
        self._running -= 1
        machine.is_busy = False
        day.done += 1
        machine.backups.append(Backup(START + since, START + time, Result.WHOLE))

    def _look(self, number: int) -> None:
        """Count the alarms that an administrator sees at noon."""
        now = START + (number * 24 + LOOK_H) * HOUR_S
        day = self._seen[number]
        for machine in self.machines:
            if not machine.backups:
                continue
            ended = machine.backups[-1].ended or 0.0
            if now - ended < alarms.SHORTEST_S:
                continue
            snapshots = Snapshots(1, ended, ended)
            found = Client(machine.name, tuple(machine.backups), snapshots)
            if any(a.kind == "stale" for a in alarms.client_alarms(found, now)):
                day.stale += 1
                day.stale_for_nothing += machine.kind != "server"


def describe(days: list[Day], outage: int | None) -> list[str]:
    """The figures of one server."""
    usual = [day for at, day in enumerate(days) if at != outage and at > 0]
    waits = sorted(wait for day in usual for wait in day.waits_s)
    wanted = sum(day.wanted for day in usual)
    busiest = max(usual, key=lambda day: day.busy_answers)
    median, long, most = (at_share(waits, share) for share in (0.5, 0.99, 1))
    stale = statistics.mean(day.stale for day in usual)
    off = statistics.mean(day.stale_for_nothing for day in usual)
    gave_up = sum(day.full for day in usual)
    return [
        f"backups done: {sum(day.done for day in usual)} of {wanted} wanted",
        f"gave up because all places were taken: {gave_up} ({gave_up / wanted:.2%})",
        f"waited (s): half {median:.0f}, 99 % {long:.0f}, all {most:.0f}",
        f"most transfers at once: {max(max(d.running.values()) for d in usual)}",
        f"answers of 'busy' on the busiest day: {busiest.busy_answers}",
        f"stale at noon: {stale:.2f} a day; {off:.2f} of these are switched off",
    ]


def at_share(values: list[float], share: float) -> float:
    """The value below which so large a part of the sorted values is."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def draw_queue(days: list[Day], first: int, number: int) -> list[str]:
    """Transfers and waiting clients at their most, hour by hour, for some days."""
    lines = ["hour       " + "".join(f"{hour:4}" for hour in range(24))]
    for at in range(first, first + number):
        day = days[at]
        for word, counts in (("running", day.running), ("waiting", day.waiting)):
            row = "".join(f"{counts[hour]:4}" for hour in range(24))
            lines.append(f"{at:3} {word}{row}")
        said = f"    gave up: {day.full} for want of a place, {day.down} unheard"
        lines.append(f"{said}; stale at noon: {day.stale}")
    return lines


def main() -> None:
    """Run it with the options given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--lived-through", type=int, default=10, metavar="SERVERS")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--minutes", type=float, default=1.0, help="usual transfer")
    parser.add_argument("--places", type=int, default=ServerSettings().max_transfers)
    parser.add_argument("--retries", type=int, default=RetryPolicy().number)
    parser.add_argument("--hours", type=float, help="over which the timer spreads")
    parser.add_argument("--room", type=float, default=60.0, help="days' changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-history", action="store_true")
    given = parser.parse_args()
    each = given.clients // given.servers
    outage, power_cut = given.days // 3, given.days // 2
    out = sys.stdout
    out.write(f"{given.clients} clients on {given.servers} servers: {each} on each\n")
    worst: list[Day] = []
    for number in range(min(given.servers, given.lived_through)):
        server = Server(each, given.days, given.minutes, given.seed + number)
        server.places = given.places
        server.policy = RetryPolicy(given.retries)
        if given.hours is not None:
            server.jitter_s = given.hours * HOUR_S
        if number == 0:
            server.outage, server.power_cut = outage, power_cut
        days = server.run()
        if number == 0:
            out.write("\n".join(draw_queue(days, outage - 1, 3)) + "\n")
            out.write("\n".join(draw_queue(days, power_cut, 1)) + "\n")
        if not worst or sum(d.full for d in days) > sum(d.full for d in worst):
            worst = days
    out.write("\n".join(["the worst server:", *describe(worst, outage)]) + "\n")
    if not given.no_history:
        history = History(each, given.days, room=given.room * each, seed=given.seed)
        history.run()
        out.write("\n".join(["a server's history:", *history.summary()]) + "\n")


if __name__ == "__main__":
    main()
