"""Attacks inside rsync's protocol, where no filter of arguments can look."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from tests.integration.hostile import peer
from tests.integration.hostile.peer import Entry
from tests.integration.hostile.world import OLD, SECRET, World

PUSH = "rsync --fake-super --server -lrD --inplace . ."
DELETING = "rsync --fake-super --server -lrD --inplace --delete . ."
VERSION = peer.speak([])[0][:4]
EVIL = b"CANARY-evil: sent by a liar"


def test_the_liar_is_understood_when_it_says_the_truth(any_world: World) -> None:
    """The control: else no attack below would be one."""
    name = f"truth-{any_world.defence}".replace(" ", "-")
    entries = [peer.directory(b"."), Entry(name.encode(), EVIL)]
    any_world.say(PUSH, peer.speak(entries))
    assert (any_world.own / "current" / name).read_bytes() == EVIL
    above = f"z-{name}"  # new with each defence
    entries = [peer.directory(b"."), peer.directory(above.encode())]
    deep = [*entries, Entry(f"{above}/deep".encode(), EVIL)]
    path = any_world.own / "current" / above / "deep"
    heard = any_world.say(PUSH, peer.speak(deep), between=path.parent)
    assert path.exists(), heard
    assert path.read_bytes() == EVIL
    any_world.check_honest_backup()
    any_world.check_honest_restore()


NAMES = [
    b"../SNAP/etc/secret",
    b"../../victim.example/current/etc/secret",
    b"../../victim.example/current/etc/new",
    b"../../.ssh/authorized_keys",
    b"etc/../../../notes",
    b"./../../notes",
    b"VICTIM/current/etc/secret",
    b"/VICTIM/current/etc/secret",
    b"//VICTIM/current/etc/secret",
    b"..",
    b"../evil",
    b"",
    b"etc/secret/../../../../notes",
    b"x" * 5000,
    b"a/" * 3000 + b"x",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:40].decode())
def test_name_in_the_file_list(any_world: World, name: bytes) -> None:
    name = any_world.fill_in(name.decode()).encode()
    heard = any_world.say(PUSH, peer.speak([peer.directory(b"."), Entry(name, EVIL)]))
    any_world.check(heard)
    assert not any_world.finds_outside(EVIL)
    any_world.check_honest_use()


@pytest.mark.parametrize(
    "target", ["VICTIM/current/etc", "../../victim.example/current/etc", "STORE/.ssh"]
)
@pytest.mark.parametrize("relative", ["", " -R"], ids=["plain", "relative"])
def test_link_and_then_a_file_through_it(
    any_world: World, target: str, relative: str
) -> None:
    # One file a session: a receiver with a time-out ends at the first wrong checksum.
    for depth, name in ((b"way", b"/secret"), (b"deep/way", b"/authorized_keys")):
        entries = [
            peer.directory(b"."),
            *([peer.directory(b"deep")] if b"/" in depth else []),
            peer.link(depth, any_world.fill_in(target)),
            Entry(depth + name, EVIL),
        ]
        raw = PUSH.replace(" --inplace", f" --inplace{relative}")
        any_world.check(any_world.say(raw, peer.speak(entries)))
    assert not any_world.finds_outside(EVIL)
    any_world.check_honest_use()


@pytest.mark.parametrize(
    "kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=oct
)
def test_special_files_become_plain_ones(any_world: World, kind: int) -> None:
    entries = [peer.directory(b"."), Entry(b"special", mode=kind | 0o666)]
    any_world.check(any_world.say(PUSH, peer.speak(entries)))
    any_world.check_honest_use()


def test_modes_cannot_make_a_tree_undeletable_or_a_program(any_world: World) -> None:
    """btrfs lets a user delete only a subvolume whose root he may write and enter."""
    entries = [
        Entry(b".", mode=stat.S_IFDIR),
        Entry(b"program", b"#!/bin/sh\n", mode=stat.S_IFREG | 0o6777),
        Entry(b"sticky", mode=stat.S_IFDIR | 0o7777),
    ]
    raw = "rsync --fake-super --server -lrDpt --inplace . ."
    any_world.check(any_world.say(raw, peer.speak(entries)))
    current = any_world.own / "current"
    assert current.stat().st_mode & 0o700 == 0o700
    for path in current.rglob("*"):
        assert not path.lstat().st_mode & 0o7000, path
    any_world.check_honest_use()


RULES = [
    b". SECRET",
    b". ../../victim.example/current/etc/secret",
    b". /../../../../../../SECRET",
    b".- SECRET",
    b".-e SECRET",
    b": SECRET",
    b": ../../victim.example/current/etc/secret",
    b":- /../../victim.example/current/etc/secret",
    b":n- ../../../victim.example/current/etc/secret",
    b"merge STORE/notes",
    b"dir-merge STORE/notes",
    b". /etc/shadow",
    b". STORE/.byteback/notes",
    b"!\n. SECRET",
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.decode())
def test_filter_rule_that_names_a_file_on_the_server(
    any_world: World, rule: bytes
) -> None:
    """Its lines come back in error messages, or show in what is left undeleted."""
    rule = any_world.fill_in(rule.decode()).encode()
    entries = [peer.directory(b"."), peer.directory(b"etc")]
    heard = any_world.say(DELETING + " -vv", peer.speak(entries, [rule]))
    if any_world.defence == "filter alone" and not any_world.rsync_confines_names:
        pytest.skip("this rsync has no --confine-root: only the kernel is in the way")
    any_world.check(heard)
    any_world.check_honest_use()


def test_garbage_instead_of_the_protocol(any_world: World) -> None:
    source = random.Random(7)  # noqa: S311 # the same garbage each time
    for length in (0, 1, 4, 5, 100, 70_000):
        said = source.randbytes(length)
        any_world.check(any_world.say(PUSH, (said,)))
        any_world.check(any_world.say(PUSH, (VERSION + said,)))
    any_world.check_honest_use()


def test_a_file_list_without_end(any_world: World) -> None:
    huge = VERSION + b"\x44\0" + b"\xff\xff\xff\x7f"
    any_world.check(any_world.say(PUSH, (huge, b"x" * 1000)))
    any_world.check_honest_use()


@pytest.mark.parametrize(
    "name",
    [
        "../../victim.example/current/etc/secret",
        "SECRET",
        "etc/../../../victim.example/current/etc/secret",
        "./../../notes",
        "STORE/.byteback/notes",
        "/etc/shells",
    ],
)
def test_names_inside_a_pull(world: World, name: str) -> None:
    """A new client's restore sends the names in the protocol."""
    options = "--server --sender -logDtpRe.LsfxCIvu --numeric-ids --from0"
    raw = f"byteback-restore --snapshot SNAP {options} --files-from=- . ./"
    wanted = world.workshop / "wanted"
    for content, is_there in (("etc/secret", True), (world.fill_in(name), False)):
        wanted.write_bytes(content.encode() + b"\0")
        heard = world.rsync(
            raw,
            *("-logDtpR", "--numeric-ids", "--from0", f"--files-from={wanted}"),
            *("--trust-sender", "h:./", str(world.loot)),
        )
        got = [p.read_bytes() for p in world.loot.rglob("*") if p.is_file()]
        assert got == ([OLD] if is_there else []), heard
        world.check(heard)
        for path in sorted(world.loot.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert Path("/etc/shells").exists()


def test_names_inside_a_push_are_refused(world: World) -> None:
    for word in ("--files-from=-", "--files-from=:/etc/passwd"):
        heard = world.ssh(f"rsync --server -lre.LsfxC {word} . .")
        assert heard.status == 9
        assert b"--files-from" in heard.stderr


def test_attributes_that_only_the_server_may_set(any_world: World) -> None:
    """A client's own user.rsync.%stat must not make its server-side files anything."""
    source = any_world.workshop / "attributes"
    source.mkdir(exist_ok=True)
    place = source / "faked"
    place.write_text("plain")
    os.setxattr(place, "user.rsync.%stat", b"104755 0,0 0:0")
    os.setxattr(place, "user.big", b"x" * 3000)
    heard = any_world.rsync(
        "rsync --fake-super --server -logDtpXre.iLsfxCIvu --numeric-ids . .",
        *("-aX", "--numeric-ids", f"{source}/", "h:x"),
    )
    any_world.check(heard)
    for path in (any_world.own / "current").rglob("*"):
        assert not path.lstat().st_mode & 0o7000, path
    any_world.check_honest_use()


def test_the_secret_is_still_there(world: World) -> None:
    """The canaries are what the attacks are after."""
    assert (world.victim / "current" / "etc" / "secret").read_bytes() == SECRET
