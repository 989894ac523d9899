"""A store that another machine had is the same server, or set-up says what is not."""

from __future__ import annotations

import json
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.programs import run_program
from tests.integration.server_setup.machine import (
    HOME,
    SERVER_TOML,
    SetUp,
    is_all_found,
    make_image,
    snapshot_of_machine,
)

NOTE = HOME / ".byteback" / "gateway"
OTHER = "other-user"


@pytest.fixture
def again(set_up: SetUp) -> Iterator[SetUp]:
    """Set-up of a machine that has the store already."""
    run_program(["ssh-keygen", "-A"])
    set_up(*make_image())
    yield set_up
    SERVER_TOML.unlink(missing_ok=True)


def change_note(**values: object) -> dict[str, Any]:
    """Write the note as another machine had left it."""
    note: dict[str, Any] = json.loads(NOTE.read_text())
    note.update(values)
    NOTE.write_text(json.dumps(note))
    return note


def warnings(set_up: SetUp) -> list[str]:
    lines = set_up().stdout.splitlines()
    return [line for line in lines if line.startswith("warning:")]


def test_a_machine_like_the_last_one_is_the_same_server(again: SetUp) -> None:
    assert is_all_found(again())
    before = warnings(again)
    assert oct(NOTE.stat().st_mode & 0o777) == "0o600"
    assert pwd.getpwuid(NOTE.stat().st_uid).pw_name == "byteback"
    change_note(name="first.example")
    assert warnings(again) == before
    assert json.loads(NOTE.read_text())["name"] != "first.example"


def test_other_host_keys_are_told_until_they_are_right(again: SetUp) -> None:
    keys = json.loads(NOTE.read_text())["host_keys"]
    assert "ssh-ed25519" in keys
    theirs = {**keys, "ssh-ed25519": "AAAAC3NzaC1lZDI1NTE5AAAAIFromAnotherMachine"}
    left = change_note(name="first.example", host_keys=theirs)
    for _ in range(2):
        (told,) = [line for line in warnings(again) if "host keys" in line]
        assert "(ssh-ed25519)" in told
        assert "from first.example" in told
        assert json.loads(NOTE.read_text()) == left
    change_note(host_keys=keys)
    assert not any("host keys" in line for line in warnings(again))
    change_note(host_keys=theirs)
    NOTE.unlink()
    assert not any("host keys" in line for line in warnings(again))


def test_another_policy_is_told_on_another_machine(again: SetUp) -> None:
    SERVER_TOML.write_text("max_transfers = 7\n")
    assert not any("server.toml is not the same" in line for line in warnings(again))
    change_note(name="first.example", policy="0" * 64)
    for _ in range(2):
        (told,) = [line for line in warnings(again) if "is not the same" in line]
        assert "as on first.example" in told


def test_a_note_of_no_use_is_made_anew(again: SetUp, tmp_path: Path) -> None:
    for rubbish in (
        "",
        "[]",
        '{"name": 1, "host_keys": [], "policy": null}',
        "\0",
        "[" * 90_000,
    ):
        NOTE.write_text(rubbish)
        again()
        assert json.loads(NOTE.read_text())["host_keys"]
    victim = tmp_path / "victim"
    victim.write_text('{"name": "x", "host_keys": {}, "policy": null}')
    NOTE.unlink()
    NOTE.symlink_to(victim)
    assert "Permission denied" in again(check=False).stderr
    assert victim.read_text().startswith('{"name": "x"')


def test_a_user_of_another_number_is_refused(again: SetUp) -> None:
    number = pwd.getpwnam("byteback").pw_uid
    run_program(["userdel", "byteback"])
    words = ["--system", "--no-create-home", f"--home-dir={HOME}", "--uid=4321"]
    run_program(["useradd", *words, "byteback"])
    before = snapshot_of_machine()
    refused = again(check=False)
    assert refused.status == 1
    assert f"belongs to number {number}" in refused.stderr
    assert "has number 4321 here" in refused.stderr
    assert snapshot_of_machine() == before
    run_program(["userdel", "byteback"])
    again(*make_image())
    assert pwd.getpwnam("byteback").pw_uid == number
    assert is_all_found(again())


def test_a_number_that_another_user_has_is_refused(again: SetUp) -> None:
    number = pwd.getpwnam("byteback").pw_uid
    run_program(["userdel", "byteback"])
    run_program(["useradd", "--system", "--uid", str(number), OTHER])
    try:
        refused = again(*make_image(), check=False)
        assert refused.status == 1
        assert f"belongs to number {number}, which is '{OTHER}' here" in refused.stderr
    finally:
        run_program(["userdel", OTHER])
