"""rsync's own output is read for what it says, and nothing of it is lost."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from byteback.cli._progress import ProgressLine, format_progress
from byteback.client.backup.largest_file import LargestSeen
from byteback.system.rsync import command
from byteback.system.rsync.command import Progress, parse_progress, transfer
from byteback.system.ssh.openssh import join_for_rsync

PRINTS = """
import sys
sys.stdout.write("\\r      1,234  12%    1.50MB/s    0:00:07 (xfr#1, to-chk=9/10)")
sys.stdout.write("\\r  5,000,000 100%   20.00kB/s    1:00:00 (xfr#2, to-chk=0/10)\\n")
sys.stdout.write("Number of files: 1,248 (reg: 328, dir: 153)\\n")
sys.stdout.write("Number of regular files transferred: 328\\n")
sys.stdout.write("Total file size: 5,234,567 bytes\\n")
sys.stdout.write("Total bytes sent: 33522312\\nTotal bytes received: 9,231\\n")
sys.stdout.flush()
for n in range(7):
    sys.stderr.write(f'rsync: [sender] send_files failed to open "/{n}": no\\n')
sys.stderr.write("rsync error: some files could not be transferred (code 23)\\n")
sys.exit(23)
"""


def test_a_transfer_is_summed_up() -> None:
    seen: list[Progress] = []
    outcome = transfer([sys.executable, "-c", PRINTS], on_progress=seen.append)
    assert [p.percent for p in seen] == [12, 100]
    assert seen[1] == Progress(5_000_000, 100, "20.00kB/s", "1:00:00")
    assert (outcome.status, outcome.files, outcome.files_sent) == (23, 1248, 328)
    assert outcome.size == 5_234_567
    assert (outcome.bytes_sent, outcome.bytes_received) == (33522312, 9231)
    assert len(outcome.problems) == 7
    assert len(outcome.stderr_tail) == 5
    assert outcome.stderr_tail[-1].startswith("rsync error:")


def test_the_first_and_the_last_remarks_are_kept() -> None:
    script = "for n in $(seq 100); do echo $n >&2; done; echo 'rsync error: x' >&2"
    remote_messages = transfer(["sh", "-c", script]).remote_messages
    assert (remote_messages[0], remote_messages[-1]) == ("1", "100")
    assert len(remote_messages) == 2 * command.MAX_REMARKS


def test_a_killed_rsync_can_be_tried_again() -> None:
    outcome = transfer(["sh", "-c", "kill -9 $$"])
    assert outcome.status == -9
    assert outcome.is_retryable


def test_an_exception_stops_rsync(tmp_path: Path) -> None:
    def stop(_line: str) -> None:
        raise KeyboardInterrupt

    script = f"echo $$ >{tmp_path}/pid; echo line; exec sleep 60"
    with pytest.raises(KeyboardInterrupt):
        transfer(["sh", "-c", script], on_line=stop)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize("line", ["", "sending incremental file list", "a 5% b", "1%"])
def test_other_lines_are_no_progress(line: str) -> None:
    assert parse_progress(line) is None


def test_the_bar_never_overflows() -> None:
    for percent in (0, 50, 100, 140):
        text = format_progress(Progress(10**15, percent, "1.00GB/s", "0:00:01"))
        assert text.index("]") == 25
        assert len(text) < 80


def test_the_bar_says_what_is_left_only_if_that_is_known() -> None:
    shown = [
        "left" in format_progress(Progress(1, percent, "1.00kB/s", "0:00:00"))
        for percent in (0, 1, 99, 100)
    ]
    assert shown == [False, True, True, False]


def test_the_bar_is_not_drawn_for_each_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    line = ProgressLine()
    for transferred in range(1000):
        line(Progress(transferred, 7, "1.00kB/s", "0:00:01"))
    assert capsys.readouterr().err.count("\r") == 1
    line(Progress(1000, 8, "1.00kB/s", "0:00:01"))
    now += 1
    line(Progress(1000, 8, "1.00kB/s", "0:00:01"))
    assert capsys.readouterr().err.count("\r") == 2


def test_words_for_rsyncs_remote_shell() -> None:
    assert join_for_rsync(["ssh", "-i", "/a b/k'ey", ""]) == "ssh -i '/a b/k''ey' ''"


@pytest.mark.parametrize(
    "line",
    ["\N{SUPERSCRIPT TWO} name", "9" * 5000 + " name", "\N{ARABIC-INDIC DIGIT TWO} x"],
)
def test_numbers_that_a_server_put_into_the_output(line: str) -> None:
    """Its messages come between rsync's own lines."""
    seen = LargestSeen(10)
    seen.take(line)
    assert seen.size == 10


def test_statistics_that_a_server_put_into_the_output() -> None:
    script = f"""
print("Total bytes sent: {"9" * 5000}")
print("Number of files: ,")
print("      ,  12%    1.50MB/s    0:00:07")
print("Number of regular files transferred: 3")
"""
    outcome = transfer([sys.executable, "-c", script], on_progress=lambda _: None)
    assert (outcome.status, outcome.files_sent, outcome.files) == (0, 3, 0)
