"""The world that is attacked, made once and checked after every attack."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    MOUNT_OPTIONS,
    SshServer,
    find_user,
    forget_client,
    make_admin_key,
    remove_user,
    unmount,
)
from tests.integration.hostile.world import (
    BWRAP,
    FILTERED,
    HOST,
    OLD,
    OWN,
    PROOF,
    SECRET,
    SERVER_SECRET,
    SERVER_TOML,
    SNAPSHOT,
    UNFILTERED,
    VICTIM,
    World,
)
from tests.integration.programs import require_program, run_program


@pytest.fixture(scope="package")
def fortress(installed: Path, sshd: SshServer) -> Iterator[World]:
    """Two clients with a snapshot each, on a real volume, behind a real sshd."""
    with contextlib.ExitStack() as stack:
        volume = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="v-", dir="/srv"))
        )
        volume.chmod(0o755)
        image = stack.enter_context(tempfile.NamedTemporaryFile(dir="/var/tmp"))
        image.truncate(4 << 30)
        run_program([require_program("mkfs.btrfs"), "--quiet", image.name])
        run_program(["mount", "-o", MOUNT_OPTIONS, image.name, volume])
        stack.callback(unmount, volume)
        stack.callback(remove_user)
        stack.callback(forget_client)
        workshop = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="w-", dir="/srv"))
        )
        workshop.chmod(0o755)
        yield build(installed, volume, workshop, sshd)


def build(programs: Path, volume: Path, workshop: Path, sshd: SshServer) -> World:
    """Set the server up with its own programs, and put the canaries out."""
    forget_client()
    admin_key = make_admin_key().with_suffix(".pub")
    setup = programs / "byteback-setup-server"
    run_program(
        [setup, "--directory", volume, "--no-schedule", "--admin-key", admin_key]
    )
    user = find_user()
    key = workshop / "key"
    # The victim's key is its own; nobody here uses it.
    for host, place in ((HOST, key), (VICTIM, workshop / "victims-key")):
        run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place])
        line = place.with_suffix(".pub").read_text()
        run_program([programs / "byteback-setup-client-receive", host, *line.split()])
    known_hosts = workshop / "known_hosts"
    known_hosts.write_text(sshd.known_hosts + "\n")
    world = World(volume, user, sshd.port, known_hosts, key, workshop)
    world.loot.mkdir()
    put_canaries(world)
    # As on a server that the set-up left alone: root's next run seals the snapshots.
    SERVER_TOML.write_text("sealed = true\n")
    run_program([programs / "byteback-prune", "--prune"])
    assert (world.own / SNAPSHOT).stat().st_uid == 0
    SERVER_TOML.unlink()
    world.before = world.fingerprint()
    return world


def put_canaries(world: World) -> None:
    """Files whose loss or reading would be the end of the promise."""
    as_user = ["runuser", "-u", world.user.name, "--"]
    for host, text, old in ((HOST, OWN, OLD), (VICTIM, SECRET, SECRET)):
        current = world.store / host / "current"
        for content in (old, text):
            place = current / "etc" / "secret"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
            run_program(["chown", "-R", f"{world.user.uid}:{world.user.gid}", current])
            target = current.parent / SNAPSHOT
            if content is old and not target.exists():
                run_program(
                    [*as_user, "btrfs", "subvolume", "snapshot", "-r", current, target]
                )
    for place in (world.store / "notes", world.store / ".byteback" / "notes"):
        place.write_bytes(SERVER_SECRET)
        os.chown(place, world.user.uid, world.user.gid)
        place.chmod(0o600)


@pytest.fixture
def world(fortress: World) -> Iterator[World]:
    """The world with all defences, unharmed before and after."""
    yield from guarded(fortress, "all")


@pytest.fixture(params=FILTERED + UNFILTERED)
def any_world(fortress: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The world with one set of defences after the other."""
    yield from guarded(fortress, request.param)


@pytest.fixture(params=FILTERED)
def filtered_world(fortress: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The world behind sshd, with and without the kernel's confinement."""
    yield from guarded(fortress, request.param)


def guarded(world: World, defence: str) -> Iterator[World]:
    """Take all defences away but ``defence``, and check the world afterwards."""
    world.defence = defence
    SERVER_TOML.parent.mkdir(exist_ok=True)
    policy = "off" if defence == "filter alone" else "require"
    SERVER_TOML.write_text(f'confinement = "{policy}"\n')
    if defence == "all confinement" and not BWRAP.exists():
        pytest.skip("bubblewrap is not installed")
    shutil.rmtree(world.loot)
    world.loot.mkdir()
    PROOF.unlink(missing_ok=True)
    world.check()
    yield world
    world.check()
    world.repair()
    world.defence = "all"
    world.check()
    SERVER_TOML.unlink()
