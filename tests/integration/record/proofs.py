"""A client with a record, and how a test asks whether it was right."""

from __future__ import annotations

import time

from byteback.client.record import keeper
from tests.integration.record.machine import Machine

SURE_S = 0.1  # after that a ctime is old enough, in these tests


def record(machine: Machine) -> None:
    """Have everything sent and recorded."""
    time.sleep(SURE_S)
    assert machine.back_up().is_usable
    assert not machine.differences()


def assert_right(machine: Machine, *, in_part: bool = True) -> None:
    """The next backup brings what there is."""
    round_ = machine.back_up()
    assert (round_.partial is not None) == in_part, round_.reason
    assert not machine.differences()


def names(machine: Machine) -> set[str]:
    """The names that the next backup would send; nothing is sent."""
    with keeper.Round(
        machine.selected, machine.token, None, place=machine.place
    ) as round_:
        assert round_.partial is not None, round_.reason
        return set(round_.partial.names)
