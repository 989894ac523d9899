"""The store's discs grow, come, go and are replaced, while backups go on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byteback.server.setup.run import LOCK
from byteback.system import fstab
from tests.integration.conftest import remove_user, unmount
from tests.integration.programs import require_program, run_program
from tests.integration.server_setup.discs import (
    MIB,
    SIZE,
    SLOW,
    Discs,
    contents,
    file_behind,
    fill,
    mount_again,
    numbers,
    replacement_speed,
    uuid,
    wait_for,
)
from tests.integration.server_setup.machine import (
    FSTAB,
    HOME,
    IMAGE,
    is_all_found,
    make_image,
    snapshot_of_machine,
)
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def server(installed: Path) -> Iterator[Path]:
    """A machine that was set up, in an image: the program."""
    require_program("mkfs.btrfs")
    before = FSTAB.read_bytes() if FSTAB.exists() else b""
    program = installed / "byteback-setup-server"
    run_program([program, *make_image(), "--no-schedule"])
    unmount(HOME)
    FSTAB.write_bytes(before)
    yield program
    remove_user()
    shutil.rmtree(HOME, ignore_errors=True)
    IMAGE.unlink(missing_ok=True)


@pytest.fixture
def discs(server: Path, tmp_path: Path) -> Iterator[Discs]:
    """The server with nothing mounted, and no line in fstab."""
    before = FSTAB.read_bytes()
    made = Discs(server, tmp_path)
    yield made
    while HOME.is_mount():
        unmount(HOME)
    FSTAB.write_bytes(before)
    for loop in made.loops:
        run_program(["losetup", "--detach", loop])
    for disc in tmp_path.glob("disc-*"):
        disc.unlink()


@pytest.fixture
def backups() -> Iterator[Callable[[], int]]:
    """Something writes to the store all the time: returns how often it has."""
    script = (
        "n=0; cd $0; while n=$((n+1)); do head -c 300000 /dev/urandom >busy &&"
        " btrfs subvolume snapshot -r v s-$n >/dev/null &&"
        " btrfs subvolume delete s-$n >/dev/null && sync -f busy || exit 1;"
        " echo $n >rounds; done"
    )
    writer: list[subprocess.Popen[bytes]] = []

    def rounds() -> int:
        if not writer:
            run_program(["btrfs", "subvolume", "create", HOME / "v"])
            writer.append(subprocess.Popen(["sh", "-c", script, HOME]))
        assert writer[0].poll() is None, "writing to the store failed"
        try:
            return int((HOME / "rounds").read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    yield rounds
    for each in writer:
        each.kill()
        each.wait(PATIENCE_S)


def test_an_image_grows_and_moves_to_a_disc(discs: Discs) -> None:
    discs.run(*make_image(), "--no-schedule")
    fill(50)
    before, line = contents(), FSTAB.read_text()
    discs.run("--grow", "--size", "1G", "--dry-run")
    assert IMAGE.stat().st_size == SIZE
    assert "enlarge the image" in discs.run("--grow", "--size", "1G").stdout
    assert IMAGE.stat().st_size == 1 << 30
    assert list(numbers().values()) == [1 << 30]
    assert is_all_found(discs.run("--grow", "--size", "1G"))
    discs.refused("has 1 GiB already", grow=True, size=600 * MIB)
    os.truncate(IMAGE, 1200 * MIB)  # by hand
    discs.run("--grow")
    assert list(numbers().values()) == [1200 * MIB]
    mount_again()
    assert FSTAB.read_text() == line
    (loop,) = numbers()
    new = discs.device(1200 * MIB)
    discs.refused("is in the image", add=new)
    done = discs.run("--replace-device", loop, new, "--yes")
    assert f"'{IMAGE}' is not used any more" in done.stdout
    (line,) = [one for one in FSTAB.read_text().splitlines() if f" {HOME} " in one]
    assert line.startswith(f"UUID={uuid()} ")
    assert "loop" not in line
    IMAGE.unlink()
    mount_again()
    assert numbers() == {str(new): 1200 * MIB}
    assert contents() == before
    assert is_all_found(discs.run("--no-schedule"))


def test_a_device_that_was_enlarged_is_used(discs: Discs) -> None:
    device = discs.store()
    os.truncate(file_behind(device), 2 * SIZE)
    run_program(["losetup", "--set-capacity", device])
    assert "use all of" in discs.run("--grow", "--dry-run").stdout
    assert numbers() == {str(device): SIZE}
    discs.run("--grow")
    assert numbers() == {str(device): 2 * SIZE}
    assert is_all_found(discs.run("--grow"))


def test_discs_come_go_and_are_replaced_while_backups_go_on(
    discs: Discs, backups: Callable[[], int]
) -> None:
    first = discs.store()
    before, line = contents(), FSTAB.read_text()
    backups()
    second, third = discs.device(), discs.device(2 * SIZE)
    assert "would:" in discs.run("--add-device", second, "--dry-run").stdout
    assert list(numbers()) == [str(first)]
    added = discs.run("--add-device", second, "--yes")
    assert "-mconvert=raid1" in added.stdout
    assert numbers() == {str(first): SIZE, str(second): SIZE}
    assert is_all_found(discs.run("--add-device", second, "--yes"))
    discs.refused("is for a store in an image", grow=True, size=2 << 30)
    discs.run("--replace-device", first, third, "--yes")
    assert numbers() == {str(third): 2 * SIZE, str(second): SIZE}
    assert is_all_found(discs.run("--replace-device", first, third, "--yes"))
    discs.run("--remove-device", second, "--yes")
    assert numbers() == {str(third): 2 * SIZE}
    discs.refused("is no device of", remove=str(second))
    assert run_program(["blkid", second, first], check=False).stdout == ""
    assert backups() > 3
    assert FSTAB.read_text() == line
    assert contents() == before
    scrub = run_program(["btrfs", "scrub", "start", "-B", HOME]).stdout
    assert "no errors found" in scrub


def test_what_cannot_be_is_refused_before_anything_changes(
    discs: Discs, tmp_path: Path
) -> None:
    store = discs.store()
    empty, small = discs.device(), discs.device(300 * MIB)
    ext4, mounted, member = discs.device(), discs.device(), discs.device()
    for device in (ext4, mounted):
        run_program(["mkfs.ext4", "-q", device])
    run_program(["mkfs.btrfs", "-q", member])
    point = tmp_path / "mounted"
    point.mkdir()
    run_program(["mount", mounted, point])
    try:
        before = (snapshot_of_machine(), numbers())
        discs.refused("no block device", add=tmp_path)
        discs.refused("no block device", add=tmp_path / "none")
        discs.refused("in use", add=mounted, may_format=True)
        discs.refused("ext4", add=ext4)
        discs.refused("btrfs", add=member)
        discs.refused("the only device", remove=str(store))
        discs.refused("is no device of", remove=str(empty))
        discs.refused("is no device of", replace=(str(empty), small))
        discs.refused("has 300 MiB", replace=("1", small))
        discs.refused("ext4", replace=(str(store), ext4))
        for words, said in (
            (["--add-device", empty], "no terminal"),
            (["--replace-device", "1", empty], "no terminal"),
            (["--grow", "--add-device", empty], "two things"),
            (["--grow", "--image", "/x"], "two things"),
            (["--yes"], "goes with"),
        ):
            assert said in discs.run(*words, status=2).stderr
        assert (snapshot_of_machine(), numbers()) == before
    finally:
        run_program(["umount", point])
    # A line of the administrator's own that knows the old device alone.
    own = FSTAB.read_text()
    FSTAB.write_text(own.replace(f"UUID={uuid()}", str(store)).replace(fstab.MARK, "#"))
    discs.refused("names", replace=(str(store), empty))
    # Without it byteback's own line is put right.
    FSTAB.write_text(own.replace(f"UUID={uuid()}", str(store)))
    discs.run("--replace-device", store, empty, "--yes")
    assert FSTAB.read_text() == own
    # What the administrator calls lost is.
    discs.run("--add-device", ext4, "--yes", "--format")
    assert str(ext4) in numbers()


def test_profiles_and_room_are_looked_at_before_a_removal(discs: Discs) -> None:
    discs.store(300 * MIB)
    second = discs.device(300 * MIB)
    discs.run("--add-device", second, "--yes")
    fill(280)
    before = numbers()
    discs.refused("has no room without", remove=str(second))
    assert numbers() == before
    for path in [*HOME.glob("file-??"), *HOME.glob("file-[1-9]")]:
        path.unlink()
    balance = ["btrfs", "balance", "start", "-f", "-mconvert=raid1", "-sconvert=raid1"]
    run_program([*balance, "-dusage=80", HOME])
    known = contents()
    shown = discs.run("--remove-device", second, "--yes").stdout
    assert "keep metadata twice" in shown
    spaces = run_program(["btrfs", "filesystem", "df", HOME]).stdout
    assert "Metadata, DUP" in spaces
    assert "RAID1" not in spaces
    assert contents() == known
    # Data on two discs is an administrator's choice, and stays.
    discs.run("--add-device", second, "--yes", "--format")
    run_program(["btrfs", "balance", "start", "-f", "-dconvert=raid1", HOME])
    discs.refused("RAID1", remove=str(second))


def test_a_replacement_goes_on_without_us(discs: Discs) -> None:
    """Cancelled, stopped by Ctrl-C, killed: the same command tells, and goes on."""
    store, new = discs.store(), discs.device(2 * SIZE)
    before = contents()
    words = ("--replace-device", store, new)
    replacement_speed(SLOW)
    program = discs.start(*words)
    wait_for("device replace")
    wait_until(lambda: "% done" in replace_status())
    # Between two pieces btrfs says that there is nothing to cancel.
    cancel = ["btrfs", "replace", "cancel", str(HOME)]
    wait_until(lambda: run_program(cancel, check=False).status == 0)
    _, said = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 13, said
    assert "still in its place" in said
    assert numbers() == {str(store): SIZE}
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        program = discs.start(*words, "--format")
        wait_for("device replace")
        wait_until(lambda: "% done" in replace_status())
        program.send_signal(number)
        _, said = program.communicate(timeout=PATIENCE_S)
        assert program.returncode == status
        if number == signal.SIGINT:
            assert "goes on" in said
            assert "btrfs replace cancel" in said
    wait_for("device replace")
    busy = discs.run("--add-device", discs.device(), "--yes", status=75)
    assert "device replace" in busy.stderr
    program = discs.start(*words)
    wait_until(lambda: is_held(LOCK))
    replacement_speed("0")
    _, said = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, said
    assert numbers() == {str(new): 2 * SIZE}
    mount_again()
    assert contents() == before


def is_held(path: Path) -> bool:
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def replace_status() -> str:
    return run_program(["btrfs", "replace", "status", "-1", HOME]).stdout


def test_a_removal_goes_on_without_us(discs: Discs) -> None:
    store, second = discs.store(), discs.device(2 * SIZE)
    discs.run("--add-device", second, "--yes")
    before = contents()
    program = discs.start("--remove-device", store)
    wait_for("device remove", program)  # which takes a second
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE_S)
    assert program.returncode in (0, 130)
    if program.returncode == 130:
        assert "btrfs device remove cancel" in said
        wait_for("none")
    assert numbers() == {str(second): 2 * SIZE}
    mount_again()
    assert contents() == before


def test_damage_on_the_old_disc_is_told_and_costs_no_more(discs: Discs) -> None:
    """A part of its last file is gone, and so are blocks that btrfs has counted."""
    store = discs.store()
    disc = file_behind(store)
    known, image = contents(), disc.read_bytes()
    places = {name: image.find((HOME / name).read_bytes()[:4096]) for name in known}
    name = max(places, key=places.__getitem__)
    assert places[name] > 100 * MIB
    mount_again()
    os.truncate(disc, places[name] + 5 * MIB)
    with pytest.raises(OSError, match="Input/output error"):
        (HOME / name).read_bytes()
    new = discs.device()
    done = discs.run("--replace-device", store, new, "--yes")
    assert f"warning: {store}: " in done.stdout
    assert "btrfs scrub start" in done.stdout
    assert numbers() == {str(new): SIZE}
    mount_again()
    with pytest.raises(OSError, match="Input/output error"):
        (HOME / name).read_bytes()
    for other in known.keys() - {name}:
        content = (HOME / other).read_bytes()
        assert hashlib.sha256(content).hexdigest() == known[other]


def test_a_new_disc_that_fails_does_not_get_the_store(
    discs: Discs, tmp_path: Path
) -> None:
    """It takes 8 MiB, and fails from there on."""
    store = discs.store()
    before = contents()
    small = tmp_path / "small"
    small.mkdir()
    run_program(["mount", "-t", "tmpfs", "-o", "size=8M", "none", small])
    disc = small / "disc"
    with disc.open("xb") as file:
        file.truncate(SIZE)
    loop = run_program(["losetup", "--find", "--show", disc]).stdout.strip()
    try:
        for words in (["--replace-device", store, loop], ["--add-device", loop]):
            failed = discs.run(*words, "--yes", status=1)
            assert "cannot try" in failed.stderr
        assert numbers() == {str(store): SIZE}
    finally:
        run_program(["losetup", "--detach", loop])
        unmount(small)
    mount_again()
    assert contents() == before
