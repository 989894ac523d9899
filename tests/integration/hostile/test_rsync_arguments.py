"""Attacks by what rsync is told on its command line (and one key read everything)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.integration.hostile.world import PROOF, SECRETS, World

EVIL = f"#!/bin/sh\ntouch {PROOF}\n"


@dataclass(frozen=True)
class Attack:
    """The command that the server is told to run, and the client's own rsync."""

    name: str
    raw: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


FETCH = ("-rl", "--trust-sender", "h:x", "loot/")
SEND = ("-rl", "evil/", "h:x")

# Name: what the server is told to run. VICTIM is another client's directory, SECRET a
# file in it, STORE the store, SNAP an old snapshot of the client's own.
READING = """
absolute path before a dummy: DIRECT . SECRET dummy
whole victim: DIRECT . VICTIM/ dummy
victim by dots: DIRECT . ../victim.example/current/etc/secret dummy
more dots: DIRECT . ../../victim.example/current/etc/ dummy
server's state: DIRECT . STORE/.byteback/ dummy
server's notes: DIRECT . STORE/notes dummy
restore by dots: PULL . ../victim.example/current/etc/secret
restore by an absolute path: PULL . SECRET
restore with escaped dots: PULL . \\.\\./victim.example/current/etc/secret
restore with quoted-printable dots: PULL . /=2E=2E/victim.example/current/etc/secret
dots hidden in braces: PULL . /{..,.}/{..,.}/victim.example/current/etc/secret
snapshot named dots: PULL-FROM .. . /victim.example/current/etc/secret
snapshot of the victim: PULL-FROM ../victim.example/current . /etc/secret
second dot: PULL . . SECRET
option behind the dot: PULL . --files-from=SECRET /x
list of files on the server: PULL --files-from=SECRET . /
following links: PULL -L --copy-unsafe-links . /
reading devices: PULL --copy-devices . /
log file on the way out: PULL --log-file=/dev/stderr --log-file-format=%f . /
filter file: PULL --exclude-from=SECRET . /
password file: PULL --password-file=SECRET . /
"""
WRITING = """
comparing with the victim's: PUSH --copy-dest=VICTIM/current . .
linking to the victim's: PUSH --link-dest=VICTIM/current . .
ssh directory before a dummy: PUSH . STORE/.ssh/ dummy
victim's current: PUSH . VICTIM/current/ .
victim by dots: PUSH . ../../victim.example/current/ .
deleting the victim's: PUSH --delete . VICTIM/current/ .
own old snapshot: PUSH . ../SNAP/ .
restore that receives: byteback-restore --snapshot * --server -lre.LsfxC . SNAP/
home of the store: PUSH . STORE/ .
system: PUSH . /etc/ .
log file: PUSH --log-file=STORE/.ssh/authorized_keys . .
log file by dots: PUSH --log-file=../../notes . .
directory for parts: PUSH --partial-dir=VICTIM/current . .
directory for temporary files: PUSH --temp-dir=STORE/.ssh . .
directory for old versions: PUSH --backup --backup-dir=STORE/.ssh . .
batch file: PUSH --only-write-batch=STORE/.ssh/authorized_keys . .
writing devices: PUSH --write-devices . .
real links, as super-user: rsync --server -lre.LsfxC --super . .
fake-super undone: PUSH --no-fake-super . .
keeping links to directories: PUSH -K . .
following links when writing: PUSH -k --copy-dirlinks . .
sender that removes: PULL --remove-source-files . /etc
sender that deletes: PULL --delete --force . /etc
tree of another name: PUSH --tree-push=../../../../../victim.example/ . .
tree that is a command: PUSH --tree-base=$(touch${IFS}/tmp/evil-was-run) . .
tree of a restore: PULL --tree-base=00000000000000000000000000000000 . .
swallowed option: rsync --server -lre --fake-super . .
"""
RUNNING = """
uploaded remote shell: rsync -e ./honest.sh x:y dummy
uploaded remote shell by its path: rsync -e OWN/current/honest.sh x:y dummy
uploaded remote shell by --rsh: rsync --rsh=./current/honest.sh x:y dummy
remote program: rsync --rsync-path=./honest.sh -e ./honest.sh x:y .
daemon behind --server: rsync --server --daemon --config=./rsyncd.conf .
daemon: rsync --daemon --config=./rsyncd.conf --port=8730 --no-detach
early input: rsync --server --early-input=STORE/notes -lre.LsfxC . .
secluded arguments: rsync --server -s
secluded arguments in a cluster: rsync --server -slre.LsfxC . .
"""
WORDS = {
    "PULL-FROM": "byteback-restore --server --sender -lre.LsfxC --snapshot",
    "PULL": "byteback-restore --server --sender -lre.LsfxC --snapshot *",
    "PUSH": "rsync --fake-super --server -lre.LsfxC",
    "DIRECT": "rsync --server --sender -lre.LsfxC",
}


def read_table(table: str, words: tuple[str, ...]) -> list[Attack]:
    attacks = []
    for line in table.strip().splitlines():
        name, _, raw = line.partition(": ")
        for word, meaning in WORDS.items():
            raw = re.sub(rf"\b{word}\b", meaning, raw)
        attacks.append(Attack(name, raw, words))
    return attacks


READ = read_table(READING, FETCH)
ATTACKS = READ + read_table(WRITING, SEND) + read_table(RUNNING, SEND)


def arm(world: World) -> None:
    """Make the evil that is sent, and have an honest backup carry a program."""
    evil = world.workshop / "evil"
    evil.mkdir(exist_ok=True)
    (evil / "authorized_keys").write_text("ssh-ed25519 AAAA evil\n")
    (evil / "etc").mkdir(exist_ok=True)
    (evil / "etc" / "secret").write_text("overwritten\n")
    link = evil / "link"
    if not link.is_symlink():
        link.symlink_to(world.victim / "current")
    honest = world.workshop / "honest"
    honest.mkdir(exist_ok=True)
    (honest / "honest.sh").write_text(EVIL)
    (honest / "honest.sh").chmod(0o755)
    (honest / "rsyncd.conf").write_text(
        f"use chroot=no\n[x]\npath={world.store}\npre-xfer exec=./honest.sh\n"
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_told_to_rsync(any_world: World, attack: Attack) -> None:
    arm(any_world)
    heard = any_world.rsync(attack.raw, *attack.words)
    any_world.check(heard)
    any_world.check_honest_use()


@pytest.mark.parametrize("attack", READ[:3] + READ[4:6], ids=str)
def test_these_attacks_are_real(world: World, attack: Attack) -> None:
    """With neither defence they succeed: else the other tests would prove nothing."""
    world.defence = "none"
    heard = world.rsync(attack.raw, *attack.words)
    got = [path.read_bytes() for path in world.loot.rglob("*") if path.is_file()]
    assert any(secret in one for secret in SECRETS for one in [*got, heard.all]), heard
    for path in world.loot.rglob("*"):
        if path.is_file():
            path.unlink()
    world.defence = "all"


def test_a_refusal_is_one_sentence_without_the_servers_paths(world: World) -> None:
    refused = 0
    for attack in ATTACKS:
        heard = world.ssh(attack.raw, *world.shared)
        text = heard.stderr.decode()
        if str(world.store) not in world.fill_in(attack.raw):
            assert str(world.store) not in text
        if heard.status != 9:  # the path in it is ignored, and rsync heard nothing
            assert heard.status == 12, (attack, heard)
            continue
        refused += 1
        lines = text.splitlines()
        assert lines[0].startswith("byteback-receive: error: "), lines
        assert len(lines) <= 3
        assert all(line.startswith("  hint: ") for line in lines[1:-1])
        assert lines[-1] == "  status: 9"
    assert refused > len(ATTACKS) / 2
