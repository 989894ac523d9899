"""The machine's own time zone, with its changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from byteback.system.local_zone import LocalZone


@pytest.fixture(params=["Europe/London", "Asia/Kolkata", "America/St_Johns"])
def zone_name(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    name: str = request.param
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield name
    time.tzset()


def test_local_zone_is_the_zone_of_each_day(zone_name: str) -> None:
    known = ZoneInfo(zone_name)
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    for hours in range(0, 366 * 24, 7):
        moment = noon + timedelta(hours=hours)
        local = moment.astimezone(LocalZone())
        assert local.replace(tzinfo=None) == moment.astimezone(known).replace(
            tzinfo=None
        )
        midday = datetime(local.year, local.month, local.day, 12, tzinfo=known)
        assert midday.replace(tzinfo=LocalZone()).astimezone(UTC) == midday
        assert midday.replace(tzinfo=LocalZone()).tzname() == midday.tzname()
