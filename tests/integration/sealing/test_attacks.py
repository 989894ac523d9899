"""A taken-over store's user gets nothing that is sealed."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from pathlib import Path

import pytest

from tests.integration.programs import Outcome, run_program
from tests.integration.pruning.store import FORCE, FULL
from tests.integration.sealing.attacks import ATTACKS, delete_by_number, in_child_of
from tests.integration.sealing.store import (
    CONTENT,
    HOST,
    OTHER,
    SealedStore,
    become,
    is_sealed,
    mark_of,
)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attack_on_a_sealed_snapshot(store: SealedStore, name: str) -> None:
    other = store.client(OTHER)
    made = store.sealed(HOST, 0, 10)
    with become(store.user):
        (made[0].parent / "empty").mkdir()
    for path in made:
        answer = in_child_of(store.user, lambda: ATTACKS[name](path, other))  # noqa: B023 # called at once
        assert is_sealed(path), answer
    store.tick()
    assert all(map(is_sealed, made))
    assert not (made[0].parent / "clone").exists()


@pytest.mark.parametrize("name", ["subvolume delete", "rm", "truncate"])
def test_it_is_an_attack_where_nothing_is_sealed(store: SealedStore, name: str) -> None:
    other = store.client(OTHER)
    store.client(HOST)
    made = store.snapshot(HOST, 10)
    in_child_of(store.user, lambda: ATTACKS["property set"](made, other))
    in_child_of(store.user, lambda: ATTACKS[name](made, other))
    file = made / "etc" / "file"
    assert not file.exists() or file.read_bytes() != CONTENT


def test_deletion_by_number(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    number = int(run_program(["btrfs", "inspect-internal", "rootid", made[1]]).stdout)
    in_child_of(store.user, lambda: delete_by_number(made[1], number))
    assert is_sealed(made[1])


@pytest.mark.parametrize("name", ["1999-01-01T00:00+0000", "current"])
def test_a_renamed_one_gets_its_name_back(store: SealedStore, name: str) -> None:
    made = store.sealed(HOST, 0, 2, 10)
    directory = made[0].parent
    store.as_user("mkdir", "-p", store.root / ".ssh")
    keys = store.root / ".ssh" / "authorized_keys"
    keys.write_text(
        f'restrict,command="/usr/bin/byteback-receive --host {HOST}" ssh-ed25519 '
        "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T a\n"
    )
    keys.chmod(0o600)
    os.chown(keys, store.user.uid, store.user.gid)
    if name == "current":
        store.as_user("mv", directory / "current", directory / "aside")
    store.as_user("mv", "--no-target-directory", made[1], directory / name)
    outcome = store.tick()
    assert "has its name back" in outcome.stderr
    assert all(map(is_sealed, made))
    current = directory / "current"
    assert current.stat().st_uid == store.user.uid
    assert mark_of(current) is None
    assert (current / "etc" / "file").read_bytes() == CONTENT
    store.as_user("touch", current / "written")


@pytest.mark.parametrize("options", [FULL, ("--prune-force",), ("--discard", HOST)])
def test_a_false_name_has_nothing_deleted(
    store: SealedStore, options: tuple[str, ...]
) -> None:
    made = store.sealed(HOST, 0, 2, 10, 20)
    names = ["1999-01-01T00:00+0000", ".byteback-discarded"]
    for path, name in zip(made, names, strict=False):
        store.as_user("mv", "--no-target-directory", path, made[0].with_name(name))
    assert store.prune(*options).status in {0, 13}
    store.tick()
    assert all(map(is_sealed, made[:2])), "those that rules keep"
    gone = {FULL: 2, ("--prune-force",): 1}.get(options, 0)
    assert [path.exists() for path in made[2:]].count(False) == gone


def test_names_in_a_circle_are_put_right(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 2, 10, 20)
    directory = made[0].parent
    store.as_user("mv", "-T", made[0], directory / "t")
    for path, wrong in itertools.pairwise(made):
        store.as_user("mv", "-T", wrong, path)
    store.as_user("mv", "-T", directory / "t", made[-1])
    store.tick()
    assert all(map(is_sealed, made))


@pytest.mark.parametrize("decoy", ["directory", "link", "fifo", "subvolume"])
def test_a_decoy_does_not_keep_the_name(store: SealedStore, decoy: str) -> None:
    made = store.sealed(HOST, 0, 10)
    false = made[1].with_name("1999-01-01T00:00+0000")
    store.as_user("mv", "-T", made[1], false)
    argv: dict[str, tuple[str | Path, ...]] = {
        "directory": ("mkdir", made[1]),
        "link": ("ln", "-s", "/etc", made[1]),
        "fifo": ("mkfifo", made[1]),
        "subvolume": ("btrfs", "subvolume", "create", made[1]),
    }
    store.as_user(*argv[decoy])
    store.tick()
    assert is_sealed(made[1])
    assert os.path.lexists(false)


def test_nothing_is_pruned_in_a_renamed_directory(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, *range(10, 20))
    store.client(OTHER)
    mine = [store.snapshot(OTHER, 10), store.snapshot(OTHER, 0)]
    store.as_user("mv", "-T", store.root / HOST, store.root / "c")
    outcome = store.prune(*FULL, "--verbose")
    assert outcome.status == 0
    assert outcome.stderr.count("was renamed") == 1
    assert [path.exists() for path in mine] == [False, True], "others go on"
    assert all((store.root / "c" / path.name).exists() for path in made)
    store.as_user("mv", "-T", store.root / "c", store.root / HOST)
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in made] == [True] + [False] * 10


def test_force_takes_no_newest_for_those_in_a_renamed_directory(
    store: SealedStore,
) -> None:
    made = store.sealed(HOST, 0, *range(10, 18))
    store.client(OTHER)
    newest = store.snapshot(OTHER, 30)
    store.as_user("mv", "-T", store.root / HOST, store.root / "c")
    forced = store.prune(*FORCE)
    assert forced.status == 13, forced
    assert "8 snapshots beside the newest of each host are left" in forced.stderr
    assert newest.exists()
    assert all((store.root / "c" / path.name).exists() for path in made)
    for as_root in (True, False):
        listed = store.prune("--list", as_root=as_root).stdout.splitlines()
        marked = [line.split()[0] for line in listed if "it is sealed as 'a/" in line]
        assert sorted(marked) == sorted(f"c/{path.name}" for path in made)
    store.as_user("mv", "-T", store.root / "c", store.root / HOST)
    assert store.prune(*FORCE) == Outcome(0, "", "")
    assert [path.exists() for path in made] == [True] * 8 + [False]
    assert newest.exists()


def test_what_is_planted_is_not_sealed(store: SealedStore) -> None:
    directory = store.client(HOST)
    good = store.snapshot(HOST, 1)
    outside = store.root / "outside"
    run_program(["btrfs", "subvolume", "create", outside])
    daemons = directory / "2020-01-01T00:00+0000"
    run_program(["btrfs", "subvolume", "create", daemons])
    os.chown(daemons, 1, 1)
    names = [f"2020-01-{day:02}T00:00+0000" for day in range(2, 9)]
    plain, link, deep, fifo, file, mount, loop = (directory / n for n in names)
    with become(store.user):
        plain.mkdir()
        link.symlink_to("/etc")
        deep.symlink_to(outside)
        os.mkfifo(fifo)
        file.touch()
        mount.mkdir()
        loop.symlink_to(loop)
        (store.root / "h").symlink_to("/srv")
    run_program(["mount", "--bind", outside, mount])
    try:
        before = {
            path: path.lstat() for path in (Path("/etc"), outside, daemons, mount)
        }
        assert store.tick().status == 0
        for path, status in before.items():
            assert path.lstat() == status, path
            assert mark_of(path) is None
    finally:
        run_program(["umount", mount])
    assert plain.stat().st_uid == store.user.uid
    assert is_sealed(good)


def test_a_race_of_names_loses_nothing(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 2, 4, 10, 20, 30)
    directory = made[0].parent

    def race() -> None:
        libc = ctypes.CDLL(None)
        names = [bytes(path) for path in made]
        spare = bytes(directory / "1999-01-01T00:00+0000")
        discarded = bytes(directory / ".byteback-discarded")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for name in names:
                libc.renameat2(-100, name, -100, names[-1], 2)
                libc.renameat2(-100, name, -100, spare, 1)
                libc.renameat2(-100, name, -100, discarded, 1)
                libc.renameat2(-100, spare, -100, names[0], 1)
                libc.renameat2(-100, discarded, -100, names[1], 1)

    pid = os.fork()
    if pid == 0:
        os.setgroups([store.user.gid])
        os.setresgid(*[store.user.gid] * 3)
        os.setresuid(*[store.user.uid] * 3)
        try:
            race()
        finally:
            os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        store.prune(*FULL)
        store.prune("--discard", HOST)
    for path in directory.iterdir():  # the tick sees only dated ones
        if path.name.startswith("1999") and mark_of(path) is None:
            path.rmdir()
    for _ in range(3):
        store.tick()
    assert all(map(is_sealed, made[:3])), sorted(directory.iterdir())
