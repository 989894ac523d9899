"""Takes the screenshots of the status page that the documents show.

    sudo tests/screenshots

runs this on a copy of the machine, with Debian's Chromium, and unpacks what it prints,
a tar archive, in docs/monitoring/. The data are made up.
"""

from __future__ import annotations

import base64
import io
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selenium import webdriver as untyped
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from byteback.model import alarms
from byteback.model.snapshot import format_snapshot_name
from byteback.model.status import (
    DAY_S,
    HOUR_S,
    Backup,
    Client,
    FreeReading,
    Report,
    Result,
    Snapshots,
    StoreState,
)
from byteback.server.status import page, publish

GIB = 1 << 30
TIB = 1 << 40
# Name, gibibytes of its files, of its history and of a day; days since its last backup.
CLIENTS = (
    ("backup-test.example.net", 12, 3, 0.2, 0),
    ("db1.example.net", 410, 260, 9.5, 0),
    ("db2.example.net", 395, 240, 8.7, 0),
    ("files.example.net", 2900, 700, 14.0, 0),
    ("laptop-maria", 210, 40, 1.1, 6),
    ("mail.example.net", 640, 310, 6.2, 0),
    ("monitor.example.net", 18, 9, 0.4, 0),
    ("shop.example.net", 95, 55, 2.3, 0),
    ("web1.example.net", 44, 12, 0.6, 0),
    ("web2.example.net", 46, 13, 0.6, 0),
)
NEW = "printer.example.net"
# Name of the picture, the page, width, scheme.
PICTURES = (
    ("status-desk-light.png", "index.html", 1280, "light"),
    ("status-desk-dark.png", "index.html", 1280, "dark"),
    ("status-phone-light.png", "index.html", 360, "light"),
    ("status-phone-dark.png", "index.html", 360, "dark"),
    ("status-client.png", "client/db1.example.net.html", 1280, "light"),
)
BLAMED = (
    "host 'shop.example.net' has taken 210 GiB by a backup that is suddenly larger "
    "than its earlier ones, and no history is deleted for that"
)
MOST_HEIGHT = 1500
DICE = random.Random(7)  # noqa: S311 # made-up data


def snapshot_name(moment: float) -> str:
    """The name of a snapshot of that time."""
    return format_snapshot_name(datetime.fromtimestamp(moment, UTC))


def made_up_client(
    now: float, name: str, size: float, history: float, daily: float, away: int
) -> Client:
    """A client of a year, with what its backups took."""
    backups = []
    for day in range(120, away - 1, -1):
        wave = DICE.uniform(0.6, 1.4) * (0.4 if day % 7 in (0, 6) else 1)
        ended = now - day * DAY_S - 7 * HOUR_S
        sent = int(daily * wave * GIB)
        failed = day == 9 and daily > 5
        backups.append(
            Backup(
                ended - 60 - 90 * daily * wave,
                ended,
                Result.FAILED if failed else Result.WHOLE,
                sent,
                sent,
                sent // 2,
                int(2000 * wave * daily),
                None if failed else snapshot_name(ended),
                is_full=day % 7 == 0,
            )
        )
    kept = [backup.ended for backup in backups if backup.ended and backup.snapshot]
    older = [now - day * DAY_S for day in range(365, 120, -28)]
    times = (*older, *kept[:-60:4], *kept[-60:])
    return Client(
        name,
        tuple(backups),
        Snapshots(len(times), times[0], times[-1], times),
        current_bytes=int(size * GIB),
        history_bytes=int(history * GIB),
        suddenly=(BLAMED,) if name.startswith("shop") else (),
    )


def made_up_report() -> tuple[Report, list[FreeReading]]:
    """A store of a small company on a day on which some things are wrong."""
    now = time.time()
    clients = [made_up_client(now, *values) for values in CLIENTS]
    clients.append(Client(NEW, enrolled=now - 3 * DAY_S))
    clients.sort(key=lambda client: client.name)
    store = StoreState(
        free_bytes=int(0.78 * TIB),
        total_bytes=8 * TIB,
        scrub_finished=now - 51 * DAY_S,
        in_use_since=now - 365 * DAY_S,
        pruned=now - 300,
        sealed=now - 300,
        seals=True,
        oldest_snapshot=now - 365 * DAY_S,
    )
    found = alarms.store_alarms(store, now)
    for client in clients:
        found += alarms.client_alarms(client, now)
    readings = [
        FreeReading(
            now - day * DAY_S,
            int(TIB * (0.6 + 0.012 * day + 0.1 * ((day * 31) % 7) / 7)),
            8 * TIB,
        )
        for day in range(300, 0, -1)
    ]
    return Report("vault", "1.0.0", now, store, tuple(clients), tuple(found)), readings


def take(driver: Any, file: Path, width: int, scheme: str) -> bytes:
    """A picture of a page, as PNG."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get(file.as_uri())
    height = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, MOST_HEIGHT)}
    words = {"captureBeyondViewport": True, "clip": {**clip, "scale": 1}}
    answer = driver.execute_cdp_cmd("Page.captureScreenshot", words)
    return base64.b64decode(answer["data"])


def smaller(picture: bytes) -> bytes:
    """The same picture with few colours, and fewer bytes."""
    argv = ["pngquant", "--speed", "1", "--strip", "32", "-"]
    return subprocess.run(argv, input=picture, capture_output=True, check=True).stdout


def main() -> None:
    """Print an archive of all pictures."""
    webdriver: Any = untyped
    options = webdriver.ChromeOptions()
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    options.add_argument("--disable-dev-shm-usage")
    with tempfile.TemporaryDirectory() as place:
        publish.write_page(Path(place), page.render(*made_up_report()))
        driver = webdriver.Chrome(
            service=Service("/usr/bin/chromedriver"), options=options
        )
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            for name, file, width, scheme in PICTURES:
                content = smaller(take(driver, Path(place, file), width, scheme))
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        driver.quit()


if __name__ == "__main__":
    main()
