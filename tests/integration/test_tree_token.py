"""The name of what ``current`` holds: new with every change of it, by anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import byteback
from byteback.server.store import state, tree_token
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.wire import requests
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program

pytestmark = pytest.mark.integration

HOST = "client.example"
PUSH = "0123456789abcdef" * 2


@pytest.fixture
def store(btrfs_volume: Path) -> Store:
    """A client whose last transfer, called PUSH, came to its end."""
    made = Store(btrfs_volume)
    made.host_directory(HOST).mkdir()
    run_program(["btrfs", "subvolume", "create", made.current(HOST)])
    (made.current(HOST) / "file").write_text("sent")
    made.lock_path(HOST).parent.mkdir(parents=True)
    end_transfer(made)
    return made


def end_transfer(store: Store, push: str | None = PUSH) -> None:
    """End a whole transfer as the server does."""
    run_program(["btrfs", "filesystem", "sync", store.root])
    mark = tree_token.make(store, HOST, push)
    state.write(store, HOST, Transfer.WHOLE, mark)


def test_a_tree_keeps_its_name_while_it_is_read(store: Store) -> None:
    name = tree_token.token(store, HOST)
    assert len(name) == 32
    assert tree_token.is_base(store, HOST, name)
    assert tree_token.is_base(store, HOST, PUSH)
    for path in (store.current(HOST), store.current(HOST) / "file"):
        run_program(["cat", path], check=False)
        run_program(["ls", path])
    target = store.host_directory(HOST) / "2026-01-01T00:00+0000"
    run_program(["btrfs", "subvolume", "snapshot", "-r", store.current(HOST), target])
    run_program(["btrfs", "subvolume", "delete", target])
    assert tree_token.token(store, HOST) == name


def replace_by_copy(store: Store) -> None:
    """Put a copy in its place, as a discard or an administrator does."""
    current = store.current(HOST)
    old = current.with_name("old")
    current.rename(old)
    run_program(["btrfs", "subvolume", "snapshot", old, current])


def write_by_hand(store: Store) -> None:
    """Overwrite a file at equal size."""
    path = store.current(HOST) / "file"
    status = path.stat()
    path.write_text("SENT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Store], object]] = {
    "written": write_by_hand,
    "removed": lambda store: (store.current(HOST) / "file").unlink(),
    "renamed": lambda store: (store.current(HOST) / "file").rename(
        store.current(HOST) / "other"
    ),
    "mode": lambda store: (store.current(HOST) / "file").chmod(0o600),
    "attribute": lambda store: os.setxattr(
        store.current(HOST) / "file", "user.x", b"1"
    ),
    "replaced": replace_by_copy,
    "gone": lambda store: store.current(HOST).rename(store.root / "elsewhere"),
    "running": lambda store: state.write(store, HOST, Transfer.RUNNING),
    "failed": lambda store: state.write(store, HOST, Transfer.FAILED),
    "partial": lambda store: state.write(store, HOST, Transfer.PARTIAL),
    "old server": lambda store: state.write(store, HOST, Transfer.WHOLE),
    "damaged": lambda store: state.write(
        store,
        HOST,
        Transfer.WHOLE,
        ("x" * 32, "-", *(tree_token._identity(store, HOST) or ())),
    ),
    "lost": lambda store: store.lock_path(HOST).with_suffix(".state").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tree_has_no_name(store: Store, change: str) -> None:
    name = tree_token.token(store, HOST)
    CHANGES[change](store)
    assert tree_token.token(store, HOST) == ""
    assert not tree_token.is_base(store, HOST, name)
    assert not tree_token.is_base(store, HOST, PUSH)


def test_each_transfer_gives_another_name(store: Store) -> None:
    names = {tree_token.token(store, HOST)}
    for push in (PUSH, None, None):
        end_transfer(store, push)
        names.add(tree_token.token(store, HOST))
    assert len(names) == 4
    assert "" not in names
    assert not tree_token.is_base(store, HOST, "-"), "what has no number is no base"


def test_a_name_is_told_to_the_transfer_that_made_it_alone(store: Store) -> None:
    assert tree_token.token(store, HOST, push=PUSH) == tree_token.token(store, HOST)
    assert tree_token.token(store, HOST, push="0" * 32) == ""


@pytest.mark.parametrize("program", ["byteback", "rsync"])
def test_another_program_at_the_server_changes_the_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    name = tree_token.token(store, HOST)
    if program == "byteback":
        monkeypatch.setattr(tree_token, "__version__", f"{byteback.__version__}.1")
    else:
        (tmp_path / "rsync").write_text("another one")
        monkeypatch.setattr(tree_token, "PLACES", (str(tmp_path),))
    assert tree_token.token(store, HOST) not in ("", name)
    assert not tree_token.is_base(store, HOST, name)


def ask(client: EnrolledClient, words: str) -> Outcome:
    """One session with the client's key."""
    return run_program([*ssh(client), "127.0.0.1", words], check=False)


def ssh(client: EnrolledClient) -> list[str]:
    """ssh with the client's key."""
    known = client.configuration / "known_hosts"
    return [
        *("ssh", "-p", str(client.port), "-l", client.user.name),
        *("-i", str(client.configuration / "key"), "-o", f"UserKnownHostsFile={known}"),
        *("-o", "HostKeyAlias=127.0.0.1", "-o", "BatchMode=yes"),
    ]


def push(
    client: EnrolledClient, source: Path, number: str, base: str | None = None
) -> Outcome:
    """rsync, as a client of this version runs it."""
    program = requests.format_push_program(number, base)
    shell = " ".join(ssh(client))
    words = ["rsync", "-aR", "--delete", "--no-protect-args", f"--rsync-path={program}"]
    return run_program(
        [*words, f"--rsh={shell}", "./", "127.0.0.1:"], cwd=source, check=False
    )


def told(client: EnrolledClient) -> str:
    """The name that the server tells in its answer to a ping."""
    answer = json.loads(ask(client, "byteback-receive --ping --json").stdout)
    return str(answer["tree"])


def test_changes_are_taken_for_the_tree_that_they_are_of_alone(
    enrolled_client: EnrolledClient, tmp_path: Path
) -> None:
    client, one, other = enrolled_client, tmp_path / "one", tmp_path / "other"
    for source in (one, other):
        source.mkdir()
        (source / "file").write_text(f"of {source.name}")
    assert told(client) == ""
    first, second, third = (requests.new_push() for _ in range(3))
    assert push(client, one, first).status == 0
    name = told(client)
    assert len(name) == 32
    completion = f"byteback-receive --complete --json --push={first}"
    assert json.loads(ask(client, completion).stdout)["tree"] == name
    # Another machine with the same key comes in between.
    assert push(client, other, second).status == 0
    assert json.loads(ask(client, completion).stdout)["tree"] == ""
    for base in (name, first):
        refused = push(client, one, third, base)
        assert "reason: stale-tree" in refused.stderr
    current = client.store / client.host / "current"
    assert (current / "file").read_text() == "of other"
    assert told(client) != name
    assert push(client, one, third, told(client)).status == 0
    assert (current / "file").read_text() == "of one"
    assert push(client, other, second, third).status == 0, "a base by its number"


def test_a_refused_base_leaves_the_tree_and_its_name_alone(
    enrolled_client: EnrolledClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("sent")
    assert push(enrolled_client, tmp_path, requests.new_push()).status == 0
    name = told(enrolled_client)
    (tmp_path / "file").unlink()
    stale = push(enrolled_client, tmp_path, requests.new_push(), "0" * 32)
    assert "reason: stale-tree" in stale.stderr
    current = enrolled_client.store / enrolled_client.host / "current"
    assert (current / "file").read_text() == "sent"
    assert told(enrolled_client) == name
