"""Which crontabs run a program of byteback's by a line of somebody's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.system import crontab

DEBIAN = Path(__file__).resolve().parents[2] / "debian"


@pytest.fixture
def cron_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of crontabs, the only one."""
    monkeypatch.setattr(crontab, "PLACES", (f"{tmp_path}/*", "/nonexistent/*"))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "runs"),
    [
        ("0 3 * * * root byteback-backup", True),
        ("0 3 * * * root nice /usr/local/bin/byteback-backup -v; true", True),
        ("#0 3 * * * root byteback-backup", False),
        ("0 3 * * * root byteback-backup-status", False),
        ("0 3 * * * root my-byteback-backup", False),
        ("0 3 * * * root (sleep 60; byteback-backup)", True),
        ("0 3 * * * root pgrep byteback-backup || echo none", False),
        ("0 3 * * * root journalctl -u byteback-backup | mail root", False),
        ("0 3 * * * root pgrep byteback-backup || byteback-backup", True),
    ],
)
def test_lines_that_run_it(cron_d: Path, line: str, runs: bool) -> None:
    (cron_d / "own").write_text(f"{line}\n")
    (cron_d / "own.dpkg-old").write_text("0 3 * * * root byteback-backup\n")
    expected = [cron_d / "own"] if runs else []
    assert crontab.files_that_run("byteback-backup") == expected


def test_the_packages_own_lines_are_no_surprise(cron_d: Path) -> None:
    for name in (
        "byteback.byteback-backup.cron.d",
        "byteback-server.byteback-server-prune.cron.d",
    ):
        (cron_d / name.replace(".", "-")).write_text((DEBIAN / name).read_text())
    assert not crontab.files_that_run("byteback-backup")
    assert not crontab.files_that_run("byteback-prune")
