"""Long listings: shown while the server searches, and over as soon as nobody looks."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import IO

import psutil
import pytest

from tests.integration.conftest import USER, EnrolledClient
from tests.integration.programs import run_program
from tests.waiting import PATIENCE_S, wait_until

FILES = 20_000  # whose listing no chain of pipes and sockets holds


@pytest.fixture
def client(enrolled_client: EnrolledClient) -> EnrolledClient:
    """A client with a great many files in its backup."""
    directory = enrolled_client.current / "srv"
    for number in range(FILES):
        branch = directory / f"{number % 40:02d}"
        if number < 40:
            branch.mkdir(parents=True)
        (branch / f"file-{number:05d}").touch()
    run_program(["chown", "-R", f"{USER}:{USER}", directory])
    return enrolled_client


@pytest.fixture
def listing(client: EnrolledClient) -> Iterator[subprocess.Popen[bytes]]:
    """byteback-restore at work on all of it."""
    running = subprocess.Popen(
        [client.bin / "byteback-restore", "--json", "/srv/**/*"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def output_of(running: subprocess.Popen[bytes]) -> IO[bytes]:
    assert running.stdout is not None
    return running.stdout


def searches() -> list[int]:
    """The server's processes for clients."""
    found = []
    for process in psutil.process_iter(["username", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["username"] == USER and any("receive" in w for w in words):
            found.append(process.pid)
    return found


def wait_for_no_search() -> None:
    wait_until(lambda: not searches(), "the server goes on without its client")


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def test_a_listing_comes_while_it_is_searched(
    listing: subprocess.Popen[bytes],
) -> None:
    """The first line, and the server is far from done; and no line is kept."""
    stream = output_of(listing)
    first = json.loads(stream.readline())
    assert first["path"] == "/srv/00"
    assert searches()
    before = resident(listing.pid)
    rest: list[str] = []
    for line in stream:
        rest.append(json.loads(line)["path"])
        if len(rest) == FILES - 1000:
            assert resident(listing.pid) - before < 4 << 20
    assert len(rest) == FILES + 40 - 1
    assert rest == sorted(rest)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_both_sides(
    listing: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    output_of(listing).readline()
    assert searches()
    listing.send_signal(number)
    _, said = listing.communicate(timeout=PATIENCE_S)
    assert listing.returncode == 128 + number
    assert b"Traceback" not in said
    wait_for_no_search()


def test_a_reader_who_has_seen_enough(client: EnrolledClient) -> None:
    """As ``| head`` does it, at a table; and where nothing is printed for long."""
    command = f"{client.bin}/byteback-restore '/srv/**/*' | head -n 3"
    done = run_program(["sh", "-c", command])
    header, dashes, line = done.stdout.splitlines()
    assert header.index("path") == line.index("/srv/00")
    assert set(dashes) == {"-"}
    assert done.stderr == ""
    wait_for_no_search()


def test_columns_of_a_long_table(client: EnrolledClient) -> None:
    """They line up in all lines, for all need the same room."""
    _, dashes, *lines = run_program(
        [client.bin / "byteback-restore", "/srv/0?/file-*"]
    ).stdout.splitlines()
    assert len(lines) == FILES // 4
    assert {line.index("/srv/") for line in lines} == {dashes.rindex("-") + 1 - 18}


def test_a_search_that_finds_nothing_ends_with_its_client(
    client: EnrolledClient,
) -> None:
    """It writes nothing that could fail, and must notice all the same."""
    words = [f"/srv/**/{'?' * 40}{number}*" for number in range(3000)]
    running = subprocess.Popen([client.bin / "byteback-restore", *words])
    wait_until(searches)
    time.sleep(0.5)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE_S) == 128 + signal.SIGINT
    wait_for_no_search()
