"""A store that several machines can reach is mounted by an administrator alone.

A second mount would destroy it: nothing here mounts it by itself.
"""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.system import fstab
from tests.integration.conftest import unmount
from tests.integration.programs import run_program
from tests.integration.server_setup.machine import (
    FSTAB,
    HOME,
    SERVER_TOML,
    SetUp,
    is_all_found,
    make_image,
    options_at,
)

TICKS: tuple[tuple[str, ...], ...] = (
    ("byteback-prune", "--prune"),
    ("byteback-status", "--notify"),
    ("byteback-status", "--scrub"),
)
ASKED: tuple[tuple[str, ...], ...] = (
    ("byteback-prune", "--list"),
    ("byteback-prune", "--prune-force"),
    ("byteback-clients", "list"),
    ("byteback-status",),
    ("byteback-setup-server", "--no-schedule"),
)


@pytest.fixture
def store(set_up: SetUp) -> Iterator[Path]:
    set_up(*make_image("--mount-by-hand"))
    yield HOME
    SERVER_TOML.unlink(missing_ok=True)


@pytest.fixture
def away(store: Path) -> Path:
    """Its mount point, while another machine has the store."""
    unmount(store)
    return store


def on_a_terminal(*words: str) -> tuple[int, str]:
    """Run a program as a person does: its exit status, and all that it says."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(words[0], words)  # noqa: S606 # ours
    said = b""
    try:
        while more := os.read(terminal, 1000):
            said += more
    except OSError:  # the end of a terminal
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said.decode()


def test_it_is_mounted_at_set_up_and_at_no_boot(store: Path, set_up: SetUp) -> None:
    assert store.is_mount()
    entry = fstab.find(str(store))
    assert entry is not None
    assert "noauto" in entry.options
    run_program(["mount", "--all"])
    unmount(store)
    run_program(["mount", "--all"])
    assert not store.is_mount()
    run_program(["mount", store])
    assert "user_subvol_rm_allowed" in options_at(store)
    assert is_all_found(set_up())


def test_a_store_is_given_to_the_administrator_later(set_up: SetUp) -> None:
    set_up(*make_image())
    assert "noauto" not in FSTAB.read_text()
    assert "add noauto to the line" in set_up(*make_image("--mount-by-hand")).stdout
    assert "noauto" in FSTAB.read_text()
    assert is_all_found(set_up(*make_image("--mount-by-hand")))


def test_a_directory_is_its_administrators(set_up: SetUp) -> None:
    refused = set_up("--directory", "/srv", "--mount-by-hand", check=False)
    assert refused.status == 2
    assert "the option noauto" in refused.stderr


@pytest.mark.parametrize("words", TICKS, ids=" ".join)
def test_no_timer_mounts_it_or_complains(away: Path, words: tuple[str, ...]) -> None:
    outcome = run_program(words)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert not away.is_mount()
    assert list(away.iterdir()) == []
    run_program(["mount", away])
    run_program(words)


@pytest.mark.parametrize("words", [*TICKS[:1], *TICKS[2:], *ASKED], ids=" ".join)
def test_a_person_is_told(away: Path, words: tuple[str, ...]) -> None:
    status, said = on_a_terminal(*words)
    assert status == 10
    assert f"the store is not mounted at '{HOME}'" in said
    assert "no other machine has it mounted" in said
    assert f"'mount {HOME}' mounts it here" in said
    assert not away.is_mount()


def test_its_metrics_are_the_other_machines_to_tell(
    store: Path, tmp_path: Path
) -> None:
    metrics = tmp_path / "byteback.prom"
    SERVER_TOML.parent.mkdir(exist_ok=True)
    SERVER_TOML.write_text(f'[status]\nprometheus_file = "{metrics}"\n')
    run_program(["byteback-status", "--notify"])
    assert metrics.exists()
    unmount(store)
    run_program(["byteback-status", "--notify"])
    assert not metrics.exists()
    run_program(["byteback-status", "--notify"])
