"""Alarms reach people once: by mail, by programs, and by files that others read."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.errors import BytebackError, NotSetUpError, ToolError, UsageError
from byteback.model.status import DAY_S
from byteback.server.status import notify
from byteback.server.store import settings
from byteback.server.store.layout import Store
from byteback.server.store.settings import StatusSettings
from byteback.system import mail

# A mail transport's place is taken by a program that keeps what it is given.
TRANSPORT = """#!/bin/sh
echo "$@" >{0}/arguments
cat >>{0}/mails
exit ${{STATUS:-0}}
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a mail transport, alarm.d, and what was told."""
    program = tmp_path / "sendmail"
    program.write_text(TRANSPORT.format(tmp_path))
    program.chmod(0o755)
    (tmp_path / "alarm.d").mkdir()
    monkeypatch.setattr(mail, "SENDMAIL", program)
    monkeypatch.setattr(notify, "MEMORY", tmp_path / "var" / "alarms.json")
    monkeypatch.setattr(notify, "PROGRAMS", tmp_path / "alarm.d")
    wanted = StatusSettings(
        prometheus_file=str(tmp_path / "byteback.prom"), mail_to="root, ops@example.com"
    )
    monkeypatch.setattr(settings, "load_status", lambda: wanted)
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    (made.state / "hosts").mkdir(parents=True)
    return made


def run(store: Store, failure: BytebackError | None = None) -> None:
    @contextlib.contextmanager
    def opened() -> Iterator[Store]:
        if failure is not None:
            raise failure
        yield store

    notify.notify(opened)


def add_silent_client(store: Store, name: str) -> None:
    (store.root / name / "current").mkdir(parents=True)
    long_ago = time.time() - 100 * 3600
    os.utime(store.root / name, (long_ago, long_ago))


def mails(desk: Path) -> str:
    return (desk / "mails").read_text() if (desk / "mails").exists() else ""


def test_an_alarm_is_mailed_when_it_begins_and_when_it_ends(
    desk: Path, store: Store
) -> None:
    run(store)
    assert mails(desk) == ""
    add_silent_client(store, "web")
    run(store)
    said = mails(desk)
    assert "\nSubject: byteback on " in f"\n{said}"
    assert "web: never" in said
    assert "To: root, ops@example.com" in said
    assert (desk / "arguments").read_text() == "-t -i\n"
    run(store)
    assert mails(desk) == said, "told twice"
    (store.root / "web" / time.strftime("%Y-%m-%dT%H:%M+0000", time.gmtime())).mkdir()
    run(store)
    assert "web: never, after less than a minute" in mails(desk)


def test_programs_are_told_in_their_environment(desk: Path, store: Store) -> None:
    program = desk / "alarm.d" / "10-page"
    program.write_text(f"#!/bin/sh\nenv | grep ^BYTEBACK_ >{desk}/told\n")
    program.chmod(0o755)
    add_silent_client(store, "web")
    run(store)
    told = (desk / "told").read_text()
    assert "BYTEBACK_BEGUN=web/never\n" in told
    assert "BYTEBACK_LEVEL=critical\n" in told


def age_memory(seconds: float) -> None:
    """Let everything have been told so much earlier."""
    rows = json.loads(notify.MEMORY.read_text())
    for row in rows:
        row["since"] -= seconds
        row["told"] -= seconds
    notify.MEMORY.write_text(json.dumps(rows))


def test_a_lasting_alarm_is_told_again_once_a_week(desk: Path, store: Store) -> None:
    program = desk / "alarm.d" / "10-page"
    program.write_text(f"#!/bin/sh\nenv | grep ^BYTEBACK_ >{desk}/told\n")
    program.chmod(0o755)
    add_silent_client(store, "web")
    run(store)
    first = mails(desk)
    for week in (1, 2):
        (desk / "mails").unlink()
        age_memory(6.9 * DAY_S)
        run(store)
        assert mails(desk) == "", "before its time"
        age_memory(0.1 * DAY_S)
        add_silent_client(store, f"new{week}")
        run(store)
        said = mails(desk)
        assert said.count("Subject: ") == 1
        assert f"new{week}: never, 1 still there" in said
        _, lasting = said.split("Still wrong (told once a week):")
        assert "web: never" in lasting
        assert f"for {7 * week} days" in lasting
        told = (desk / "told").read_text()
        assert "BYTEBACK_LASTING=web/never\n" in told
        assert f"BYTEBACK_BEGUN=new{week}/never\n" in told
        run(store)
        assert mails(desk) == said, "told twice"
        (store.root / f"new{week}" / "current").rmdir()
        run(store)
    assert "Still wrong" not in first


def test_a_reminder_that_reached_nobody_is_told_the_next_time(
    desk: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_silent_client(store, "web")
    run(store)
    age_memory(8 * DAY_S)
    monkeypatch.setattr(mail, "SENDMAIL", desk / "nowhere")
    with pytest.raises(NotSetUpError):
        run(store)
    monkeypatch.setattr(mail, "SENDMAIL", desk / "sendmail")
    run(store)
    assert "1 still there" in mails(desk)
    assert "for 8 days" in mails(desk)


def test_metrics_are_written_whole(desk: Path, store: Store) -> None:
    add_silent_client(store, "web")
    run(store)
    file = desk / "byteback.prom"
    assert 'byteback_alarm{client="web",kind="never"' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert not list(desk.glob(".byteback-*"))


def test_a_store_that_is_not_there_is_told_and_ends_no_clients_alarm(
    desk: Path, store: Store
) -> None:
    add_silent_client(store, "web")
    run(store)
    before = mails(desk)
    run(store, NotSetUpError("the store is not mounted", hint="mount it"))
    said = mails(desk)[len(before) :]
    assert "the store: not-mounted: the store is not mounted" in said
    assert "mount it" in said
    assert "web" not in said
    run(store)
    said = mails(desk)[len(before) + len(said) :]
    assert "the store: not-mounted, after" in said
    assert "web" not in said


def test_what_nobody_got_is_told_again(
    desk: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_silent_client(store, "web")
    monkeypatch.setenv("STATUS", "75")
    failing = desk / "sendmail"
    failing.write_text("#!/bin/sh\nexit 75\n")
    with pytest.raises(ToolError):
        run(store)
    failing.write_text(TRANSPORT.format(desk))
    run(store)
    assert "web: never" in mails(desk)


def test_a_failing_way_does_not_stop_the_others(desk: Path, store: Store) -> None:
    (desk / "sendmail").unlink()
    program = desk / "alarm.d" / "page"
    program.write_text(f"#!/bin/sh\necho told >>{desk}/told\n")
    program.chmod(0o755)
    add_silent_client(store, "web")
    with pytest.raises(NotSetUpError, match="cannot be sent"):
        run(store)
    run(store)
    assert (desk / "told").read_text() == "told\n"
    assert (desk / "byteback.prom").exists()


@pytest.mark.parametrize("content", ["", "[", "{}", '[{"client": 1}]', "[[]]"])
def test_a_damaged_memory_costs_one_message(
    desk: Path, store: Store, content: str
) -> None:
    notify.MEMORY.parent.mkdir()
    notify.MEMORY.write_text(content)
    add_silent_client(store, "web")
    run(store)
    assert mails(desk).count("Subject:") == 1
    assert json.loads(notify.MEMORY.read_text())[0]["client"] == "web"


@pytest.mark.parametrize(
    "table",
    [
        {"status": 5},
        {"status": {"mail": "x"}},
        {"status": {"mail_to": 5}},
        {"status": {"mail_to": "-oQ/tmp"}},
        {"status": {"mail_to": "a\nBcc: b"}},
        {"status": {"prometheus_file": "relative"}},
    ],
)
def test_settings_that_cannot_be_are_refused(table: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        settings.parse_status(table)


def test_settings_of_clients_say_when_they_are_expected(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[status]\nmail_to = "root"\n[host.web]\nexpect_hours = 0\n')
    assert settings.load_status(file).mail_to == "root"
    found = settings.load_all(["web", "db"], file)
    assert [found[name].expect_hours for name in ("web", "db")] == [0, -1]
