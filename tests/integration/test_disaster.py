"""A machine comes back onto an empty disc by the commands of byteback-restore(1)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import USER, EnrolledClient
from tests.integration.programs import require_program, run_program
from tests.integration.source_tree import describe_tree, differences

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "man" / "byteback-restore.1"
TARGET = Path("/mnt")
SHELL = Path("/usr/bin/dash")
# What stands in for programs that only a whole Debian has, and for the boot loader.
TOOLS = Path("/usr/local/sbin")
STUBS = ("update-initramfs", "grub-install", "update-grub")
MOUNT_POINTS = ("/dev", "/proc", "/sys", "/run")


def commands() -> list[str]:
    """The commands of the page's section, one a line."""
    section = PAGE.read_text().split(".SH AFTER A DISASTER\n")[1].split("\n.SH ")[0]
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE", section, re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\-", "-").replace("\\(aq", "'")
    return text.replace("\\e\n", "").splitlines()


@pytest.fixture
def disc(tmp_path: Path) -> Iterator[str]:
    """An empty disc of the rescue system."""
    image = tmp_path / "disc"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    device = run_program(["losetup", "--find", "--show", image]).stdout.strip()
    try:
        yield device
    finally:
        run_program(["umount", "--recursive", TARGET], check=False)
        run_program(["losetup", "--detach", device])


@pytest.fixture
def stubs() -> Iterator[None]:
    """Programs that show what they were called with, by the restored shell."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name in STUBS:
        stub = TOOLS / name
        stub.write_text(f'#!/bin/sh\nread -r host </etc/hostname\necho {name} "$@"\n')
        stub.chmod(0o755)
    try:
        yield
    finally:
        for name in STUBS:
            (TOOLS / name).unlink()


def parts_of_a_machine() -> list[Path]:
    """Enough of this machine to run a shell in it: a whole one would take minutes."""
    libraries = re.findall(r"(/\S+) \(", run_program(["ldd", SHELL]).stdout)
    found = [SHELL, SHELL.with_name("sh"), *(TOOLS / name for name in STUBS)]
    found += [Path("/tmp"), *(Path(point) for point in MOUNT_POINTS)]
    for library in libraries:
        path = Path(library)
        real = path.parent.resolve() / path.name
        found += [real, path.resolve(), Path("/") / path.parts[1]]
    found += [path for path in map(Path, ("/bin", "/sbin", "/lib64")) if path.exists()]
    return list(dict.fromkeys(found))


def write_filter(file: Path) -> None:
    """Back up /etc and the parts, and nothing else of this machine."""
    wanted: dict[Path, None] = {Path("/etc"): None}
    for part in parts_of_a_machine():
        wanted |= dict.fromkeys([*reversed(part.parents), part])
    wanted.pop(Path("/"))
    rules = ["+ /etc/***", *(f"+ {path}" for path in wanted), "- *"]
    file.write_text("\n".join(rules) + "\n")


def test_a_machine_comes_back(
    enrolled_client: EnrolledClient, disc: str, stubs: None
) -> None:
    """The commands as they are printed, but for names of discs and hosts."""
    require_program("mkfs.ext4")
    fstab = Path("/etc/fstab")
    fstab.touch()
    Path("/etc/hostname").touch()
    write_filter(enrolled_client.configuration / "rsync_filter")
    run_program([enrolled_client.bin / "byteback-backup"])
    before = describe_tree(Path("/etc"))
    # The machine is lost, and its key with it; this is the rescue system now.
    shutil.rmtree(enrolled_client.configuration)
    destination = f"ssh://{USER}@127.0.0.1:{enrolled_client.port}/"
    words = {
        "/dev/sda1": disc,
        "/dev/sda": disc,
        "www.example.com": enrolled_client.host,
        f"{USER}@mybackuphost.net:": f"{destination} --accept-new-host-key",
        "editor /mnt/etc/fstab": f"echo '{disc} / ext4 defaults 0 1' >/mnt/etc/fstab",
        "umount --recursive /mnt": "",
        "reboot": "",
    }
    script = "\n".join(commands())
    for word, meaning in words.items():
        assert word in script
        script = script.replace(word, meaning)
    done = run_program(["/bin/sh", "-euxc", script])
    for name in STUBS:
        assert f"\n{name}" in done.stdout
    for part in parts_of_a_machine():
        restored = (TARGET / str(part)[1:]).lstat()
        assert (restored.st_mode, restored.st_uid) == (
            part.lstat().st_mode,
            part.lstat().st_uid,
        )
    assert (TARGET / "tmp").stat().st_mode == Path("/tmp").stat().st_mode
    assert disc in (TARGET / "etc/fstab").read_text()
    after = describe_tree(TARGET / "etc")
    # An overlay, which the copy of the machine is on, gives two files one inode number.
    expected = re.compile(r"b'(byteback/|fstab')|.*: first_name was")
    lines = differences(before, after).splitlines()
    changed = [line for line in lines if not expected.match(line)]
    assert changed == []
    # The machine that starts now can go on with its backups.
    rescue = enrolled_client.configuration
    carried = TARGET / "etc/byteback"
    for name in ("key", "destination", "known_hosts"):
        assert (carried / name).read_bytes() == (rescue / name).read_bytes()
    assert (carried / "key").stat().st_mode & 0o777 == 0o600


def test_the_readme_has_the_same_commands() -> None:
    """In its own words, the steps that take thinking left out."""
    readme = (CHECKOUT / "README.md").read_text()
    for line in commands():
        first = line.split(" --")[0].strip()
        if first.startswith("byteback-"):
            assert first in readme
