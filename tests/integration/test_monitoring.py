"""byteback-status beside what it is for: Prometheus, a mail transport, a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from byteback.model import alarms
from byteback.model.status import (
    Backup,
    Client,
    FreeReading,
    Report,
    Result,
    Snapshots,
    StoreState,
)
from byteback.server.status import notify, page, publish
from tests.integration.conftest import ServerUser
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.monitoring

CHECKOUT = Path(__file__).resolve().parents[2]
MONITORING = CHECKOUT / "docs" / "monitoring"
NODE_PORT, PROMETHEUS_PORT = 19100, 19090
DAY = 86400.0
HOSTILE = "\"><script>document.title='taken'</script>"
# Real requests of a browser that shows what fits and what does not.
OVERFLOW = "return document.documentElement.scrollWidth - window.innerWidth"
CONTRAST = """
const shade = c => { c = c / 255;
  return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number);
  return 0.2126 * shade(r) + 0.7152 * shade(g) + 0.0722 * shade(b); };
const ground = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor;
  if (!c.endsWith(", 0)")) return c; } return "rgb(255, 255, 255)"; };
const poor = [];
for (const e of document.querySelectorAll("h1,h2,p,a,td,th,dt,dd,b,span,summary")) {
  if (!e.textContent.trim() || !e.getClientRects().length) continue;
  const a = light(getComputedStyle(e).color), b = light(ground(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(e.tagName + " " + e.className + " " + ratio.toFixed(2));
}
return poor.slice(0, 5);
"""


def status(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", CHECKOUT / "bin/byteback-status", *words],
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def stale_client(server_user: ServerUser) -> str:
    """A client that was enrolled long ago, never heard of, and not told of yet."""
    notify.MEMORY.unlink(missing_ok=True)
    directory = server_user.home / "silent.example"
    (directory / "current").mkdir(parents=True)
    long_ago = time.time() - 100 * 3600
    os.utime(directory, (long_ago, long_ago))
    for path in (directory, directory / "current"):
        os.chown(path, server_user.uid, server_user.gid)
    return directory.name


@contextmanager
def configured(text: str) -> Iterator[None]:
    file = Path("/etc/byteback/server.toml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def running(*words: str | Path) -> Iterator[None]:
    process = subprocess.Popen(
        list(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def ask(path: str, **values: str) -> Any:
    query = urllib.parse.urlencode(values)
    url = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/{path}?{query}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def wait_for(path: str, expected: str, **values: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = ask(path, **values)
        except OSError:  # it is not there yet
            answer = None
        if expected in json.dumps(answer):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)


def test_prometheus_scrapes_alerts_and_answers_the_dashboard(
    stale_client: str, tmp_path: Path
) -> None:
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    with configured(f'[status]\nprometheus_file = "{textfiles}/byteback.prom"\n'):
        status("--notify")
    text = (textfiles / "byteback.prom").read_bytes()
    subprocess.run(["promtool", "check", "metrics"], input=text, check=True)
    written = set(re.findall(r"^byteback_\w+", text.decode(), re.MULTILINE))
    rules_test = MONITORING / "prometheus-rules-test.yml"
    subprocess.run(["promtool", "test", "rules", rules_test], check=True)
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{MONITORING}/prometheus-rules.yml']\n"
        "scrape_configs:\n"
        "  - job_name: node\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{NODE_PORT}']}}]\n"
    )
    with (
        running(
            "prometheus-node-exporter",
            f"--collector.textfile.directory={textfiles}",
            f"--web.listen-address=127.0.0.1:{NODE_PORT}",
        ),
        running(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
        ),
    ):
        wait_for("query", stale_client, query='byteback_alarm{kind="never"} == 1')
        alerts = wait_for("alerts", "BytebackCritical")["data"]["alerts"]
        assert f"{stale_client}: never" in {a["annotations"]["summary"] for a in alerts}
        dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                answer = ask("query", query=target["expr"])
                assert answer["status"] == "success", target["expr"]
                asked = set(re.findall(r"byteback_\w+", target["expr"]))
                assert answer["data"]["result"] or asked - written, target["expr"]


def test_a_mail_arrives_in_roots_box(stale_client: str) -> None:
    box = Path("/var/mail/root")
    with configured('[status]\nmail_to = "root"\n'):
        status("--notify")
        wait_until(
            lambda: box.exists() and stale_client in box.read_text(), "no mail came"
        )
        first = box.read_text()
        assert f"{stale_client}: never" in first
        status("--notify")
    assert box.read_text() == first


def test_a_monitoring_system_runs_the_check(stale_client: str) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", CHECKOUT / "bin/byteback-status", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={},  # as an agent starts it
    )
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"BYTEBACK CRITICAL - {stale_client}: never | ")
    assert done.stderr == ""


# --- The page in a browser ---------------------------------------------------------


def made_up_report() -> tuple[Report, list[FreeReading]]:
    now = time.time()
    clients = []
    for number in range(40):
        backups = tuple(
            Backup(
                now - day * DAY,
                now - day * DAY + 600,
                Result.FAILED if day % 9 == 0 else Result.WHOLE,
                day << 24,
                day << 24,
                day << 20,
                day,
                "2026-11-28T02:30+0000",
            )
            for day in range(60, 3 if number % 10 == 0 else 0, -1)
        )
        times = tuple(backup.started for backup in backups)
        name = HOSTILE if number == 7 else f"host{number:02}.example.net"
        clients.append(
            Client(
                name,
                backups,
                Snapshots(len(times), times[0], times[-1], times),
                current_bytes=number << 32,
                history_bytes=number << 30,
            )
        )
    store = StoreState(
        free_bytes=1 << 38, total_bytes=1 << 42, scrub_finished=now - 50 * DAY
    )
    found = alarms.store_alarms(store, now)
    for client in clients:
        found += alarms.client_alarms(client, now)
    report = Report("vault", "1.0.0", now, store, tuple(clients), tuple(found))
    return report, [
        FreeReading(now - n * DAY, n << 30, 1 << 42) for n in range(99, 0, -1)
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("page")
    publish.write_page(directory, page.render(*made_up_report()))
    return directory


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver as untyped
    from selenium.webdriver.chrome.service import Service

    webdriver: Any = untyped
    options = webdriver.ChromeOptions()
    for word in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    yield driver
    driver.quit()


def pages(site: Path) -> list[Path]:
    return [site / "index.html", site / "client" / "host03.example.net.html"]


def complaints(browser: Any) -> list[str]:
    """The browser's complaints about the pages."""
    entries = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] != "INFO"]


def show(browser: Any, file: Path, width: int, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(file.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_the_page_fits_and_can_be_read(
    browser: Any, site: Path, width: int, scheme: str
) -> None:
    for file in pages(site):
        show(browser, file, width, scheme)
        assert browser.execute_script(OVERFLOW) <= 0, file
        assert browser.execute_script(CONTRAST) == [], file
        assert complaints(browser) == [], file


def test_hostile_names_run_nothing(browser: Any, site: Path) -> None:
    show(browser, site / "index.html", 1280, "light")
    assert browser.title.endswith("vault")
    assert HOSTILE in browser.find_element("tag name", "body").text
    browser.find_element("link text", HOSTILE).click()
    assert HOSTILE in browser.title
    # The policy stops a script even where one could be put in.
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title="
        '"taken"\'; document.body.append(s)'
    )
    assert browser.title != "taken"
    assert "Content Security Policy" in str(complaints(browser))


def test_the_page_works_by_keyboard_and_for_screen_readers(
    browser: Any, site: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, site / "index.html", 1280, "light")
    body = browser.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "Skip to the content"
    assert first.is_displayed()
    first.send_keys(Keys.TAB)
    second = browser.switch_to.active_element
    outline = second.value_of_css_property("outline-style")
    assert outline == "solid", "what has the focus must be seen"
    nameless = [
        image.get_attribute("outerHTML")[:80]
        for image in browser.find_elements("css selector", "svg")
        if not image.get_attribute("aria-label")
    ]
    assert nameless == []
    assert len(browser.find_elements("css selector", "main h1, header h1")) == 1


def test_the_page_is_the_same_without_scripts(browser: Any, site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "<script" not in text
    show(browser, site / "by-age.html", 1280, "light")
    rows = browser.find_elements("css selector", "tbody tr")
    assert len(rows) == 40
    browser.find_element("link text", "largest first").click()
    assert browser.current_url.endswith("by-size.html")
    top = browser.find_element("css selector", "tbody tr td a").text
    assert top == "host39.example.net"


if __name__ == "__main__":  # to look at it by hand
    publish.write_page(Path(sys.argv[1]), page.render(*made_up_report()))
