"""Sees to it that the store is there and mounted, now and after a reboot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.server.setup import volume as setup_volume
from byteback.server.setup.steps import (
    THREE_WAYS,
    Choice,
    Device,
    Directory,
    Outcome,
    StepRunner,
    Volume,
    found,
    warning,
)
from byteback.server.store import mounting, presence
from byteback.server.store.layout import STATE, Store
from byteback.system import block_device, fstab, host, mounts, process
from byteback.system.btrfs import filesystem
from byteback.system.mounts import Mount

NEEDED = "user_subvol_rm_allowed"  # without it the byteback user cannot prune
HARMFUL = ("autodefrag", "clear_cache")


def provide(choice: Choice | None, home: Path, runner: StepRunner) -> Iterator[Outcome]:
    """Make, mount and enter in fstab whatever of the store is missing.

    Everything that speaks against it is found before the first change. The mount
    comes before its line in fstab: one that fails leaves nothing that would stand
    in the way of another try.
    """
    if isinstance(choice, Directory):
        yield from _check_directory(home, runner)
    elif choice is None:
        yield from _repair(home, runner)
    else:
        yield from _provide_volume(choice, home, runner)


def mounted_at(mount_point: Path) -> Mount | None:
    """The mount that is exactly there, on top."""
    here = [each for each in mounts.read() if each.point == str(mount_point)]
    return here[-1] if here else None


def is_there(home: Path) -> bool:
    """True if the home is on a mounted btrfs, so that one can look into the store."""
    mounted = mounts.holding(home) if home.is_dir() else None
    return mounted is not None and mounted.fs_type == "btrfs"


def is_store_like(directory: Path, uid: int | None) -> bool:
    """True if a directory may become the store: empty, or one already.

    It is given to the byteback user, so that it must not be another user's.
    """
    if uid is not None and directory.stat().st_uid == uid:
        return True
    names = [path.name for path in directory.iterdir()]
    if not names or STATE in names:
        return True
    store = Store(directory)
    return store.authorized_keys.exists() or bool(store.hosts())


def _provide_volume(
    volume: Volume, home: Path, runner: StepRunner
) -> Iterator[Outcome]:
    mounted = mounted_at(home)
    _check_fstab(volume, home)
    if mounted is None:
        _check_mount_point(home)
        setup_volume.check_volume(volume)
        yield from setup_volume.make_volume(volume, runner)
        yield runner.do(
            f"mount {quote(str(volume.path))} on {quote(str(home))}",
            lambda: _mount(volume, home),
        )
    else:
        _check_mounted(volume, mounted)
        yield found(f"{quote(str(volume.path))} is mounted on {quote(str(home))}")
        yield from _ensure_option(mounted, runner)
    yield from _ensure_fstab(volume, home, runner)


def _mount(volume: Volume, home: Path) -> None:
    # The bare mount point stays root's: while nothing is mounted on it, no key is
    # found there and no backup can fill the disc below.
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    filesystem.mount(volume.path, home, setup_volume.mount_options(volume))


def _check_mount_point(home: Path) -> None:
    if not os.path.lexists(home):
        return
    if not home.is_dir() or any(home.iterdir()):
        what = "is not empty" if home.is_dir() else "is no directory"
        raise UsageError(
            f"the mount point {quote(str(home))} {what}",
            hint="move what is there away, or choose another with --mount-point",
        )


def _check_mounted(volume: Volume, mounted: Mount) -> None:
    if not setup_volume.is_on(volume, mounted.source):
        raise UsageError(
            f"{quote(mounted.point)} is in use: "
            f"{quote(mounted.source)} ({mounted.fs_type}) is mounted there",
            hint="unmount it, or choose another place with --mount-point",
        )
    if mounted.fs_type != "btrfs":
        raise UsageError(f"{quote(mounted.point)} is no btrfs")


def _check_fstab(volume: Volume, home: Path) -> None:
    entry = fstab.find(str(home))
    if entry is None:
        return
    fits = entry.fs_type in {"btrfs", "auto"} and setup_volume.is_for(volume, entry)
    if fits and isinstance(volume, Device) and "=" in entry.spec:
        fits = not setup_volume.needs_format(volume)  # the UUID would change
    if not fits:
        raise UsageError(
            f"{quote(str(fstab.PATH))} has {quote(entry.spec)} for the mount point "
            f"{quote(str(home))}",
            hint="remove that line, or choose another place with --mount-point",
        )


def _ensure_option(mounted: Mount, runner: StepRunner) -> Iterator[Outcome]:
    point = Path(mounted.point)
    if NEEDED not in mounted.options:
        yield runner.do(
            f"remount {quote(str(point))} with {NEEDED}",
            lambda: filesystem.remount(point, [NEEDED]),
        )
    yield from _warn_of_harmful(mounted)


def _warn_of_harmful(mounted: Mount) -> Iterator[Outcome]:
    for option in HARMFUL:
        if option in mounted.options:
            yield warning(
                f"{quote(mounted.point)} is mounted with {option}, which "
                "slows a store down and wastes space: take it out of /etc/fstab"
            )


def _ensure_fstab(volume: Volume, home: Path, runner: StepRunner) -> Iterator[Outcome]:
    entry = fstab.find(str(home))
    if entry is None:
        yield runner.do(
            f"add {quote(str(home))} to {quote(str(fstab.PATH))}",
            lambda: _add_to_fstab(volume, home),
        )
        return
    wanted = (*setup_volume.mount_options(volume), *setup_volume.boot_options(volume))
    yield from _ensure_entry(entry, wanted, runner)


def _ensure_entry(
    entry: fstab.Entry, options: tuple[str, ...], runner: StepRunner
) -> Iterator[Outcome]:
    missing = missing_options(options, entry.options)
    where = f"the line for {quote(entry.mount_point)} in {quote(str(fstab.PATH))}"
    if not missing:
        yield found(f"{where} is right")
    elif entry.is_ours:
        yield runner.do(
            f"add {','.join(missing)} to {where}",
            lambda: _add_options(entry, missing),
        )
    else:
        yield warning(
            f"{where} lacks {','.join(missing)}: it is not byteback's own line, so "
            "add that by hand"
        )


def _add_to_fstab(volume: Volume, home: Path) -> None:
    fstab.add(setup_volume.fstab_entry(volume, home))
    reload_systemd()


def _add_options(entry: fstab.Entry, options: tuple[str, ...]) -> None:
    fstab.add_options(entry, options)
    reload_systemd()


def reload_systemd() -> None:
    """systemd makes its mount units from fstab, and only when it is told to."""
    if host.is_systemd_running():
        process.run(["systemctl", "daemon-reload"])


def missing_options(
    wanted: tuple[str, ...], present: tuple[str, ...]
) -> tuple[str, ...]:
    """The options that are missing; any compression an administrator chose is fine."""
    keys = {option.partition("=")[0] for option in present}
    compressed = bool(keys & {"compress", "compress-force"})
    return tuple(
        option
        for option in wanted
        if option not in present and not (option.startswith("compress=") and compressed)
    )


def _check_directory(home: Path, runner: StepRunner) -> Iterator[Outcome]:
    name = quote(str(home))
    if not home.is_dir():
        raise UsageError(f"there is no directory {name}", hint="make it first")
    mounted = mounts.holding(home)
    if mounted is None or mounted.fs_type != "btrfs":
        kind = mounted.fs_type if mounted else "nothing known"
        raise UsageError(f"{name} is on {kind}, not on btrfs", hint=THREE_WAYS)
    _check_options(name, mounted)
    yield found(f"{name} is on btrfs, mounted with {NEEDED}")
    yield from _warn_of_harmful(mounted)
    yield from _check_entry(mounted, runner)


def _check_options(name: str, mounted: Mount) -> None:
    point = mounted.point
    if NEEDED not in mounted.options:
        raise UsageError(
            f"the file system of {name} is mounted without {NEEDED}, so that the "
            "byteback user could not remove old snapshots",
            hint=f"run 'mount -o remount,{NEEDED} {point}' and add {NEEDED} to the "
            f"options of {point} in {fstab.PATH}",
        )
    if "ro" in mounted.options:
        raise UsageError(
            f"the file system of {name} is mounted read-only",
            hint=f"run 'mount -o remount,rw {point}'",
        )


def _check_entry(mounted: Mount, runner: StepRunner) -> Iterator[Outcome]:
    entry = fstab.find(mounted.point)
    if entry is not None:
        yield from _ensure_entry(entry, (NEEDED,), runner)
        return
    yield warning(
        f"{quote(str(fstab.PATH))} has no line for {quote(mounted.point)}: make "
        f"sure that it is mounted at boot, with {NEEDED}; for a store's own device or "
        "image, naming it again adds the line"
    )


def _repair(home: Path, runner: StepRunner) -> Iterator[Outcome]:
    """The store of a machine that is set up: mount it again, or only check it."""
    entry = fstab.find(str(home))
    if entry is not None and not mounted_at(home):
        if mounting.BY_HAND in entry.options:
            raise mounting.elsewhere(Store(home), entry)
        yield from _mount_again(home, entry, runner)
        return
    above = mounting.find_unmounted(home)
    if above is not None:  # of a directory in another file system
        yield runner.do(
            f"mount {quote(above.spec)} on {quote(above.mount_point)}",
            lambda: filesystem.mount_from_fstab(Path(above.mount_point)),
        )
        if runner.dry_run:
            return
    mounted = mounts.holding(home) if home.is_dir() else None
    if mounted is not None and mounted.fs_type == "btrfs":
        if entry is not None and entry.is_ours:
            yield found(f"{quote(mounted.source)} is mounted on {quote(str(home))}")
            yield from _ensure_option(mounted, runner)
            yield from _ensure_entry(entry, _needs_of(mounted), runner)
        else:
            yield from _check_directory(home, runner)
        return
    if presence.read_mark() is not None:
        raise presence.missing(Store(home))
    raise UsageError(
        f"{quote(str(home))}, the byteback user's home, is no store", hint=THREE_WAYS
    )


def _mount_again(
    home: Path, entry: fstab.Entry, runner: StepRunner
) -> Iterator[Outcome]:
    _check_mount_point(home)
    yield runner.do(
        f"mount {quote(entry.spec)} on {quote(str(home))}",
        lambda: _mount_entry(home),
    )
    mounted = mounted_at(home)
    if mounted is not None:
        yield from _ensure_option(mounted, runner)
    yield from _ensure_entry(entry, _needs_of(mounted), runner)


def _needs_of(mounted: Mount | None) -> tuple[str, ...]:
    """The options that fstab must have for a store of which no device was named."""
    network = None
    if mounted is not None:
        with contextlib.suppress(OSError):
            network = block_device.network_of(Path(mounted.source))
    return (*setup_volume.OPTIONS, *setup_volume.needs_of_network(network))


def _mount_entry(home: Path) -> None:
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    filesystem.mount_from_fstab(home)
