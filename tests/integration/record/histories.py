"""A directory to which everything happens that users and programs do to theirs."""

from __future__ import annotations

import mmap
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tests.integration.programs import run_program

NAMES = (
    *("a", "b", "c", "x.skip", "sp ace", "nl\nx", "st*r", "q?", "[b]", "back\\sl"),
    *("out", "e1", "d1", "inc", "exc", "keep1", "-d", "#h", ";s", "\udcff\udcfe"),
)
# Rules of an administrator's, anchored at the directory.
RULES = (
    *("--exclude={top}/exc", "--exclude=*.skip", "--exclude={top}/d1/e*/out/"),
    *("--include={top}/inc/keep***", "--exclude={top}/inc/*"),
)
SIZES = (0, 3, 500, 70_000)
MAPPINGS = 5
MOUNTS = 2
_OCTAL = re.compile(r"\\([0-7]{3})")  # in mountinfo
VFS_CAP_REVISION_2 = 0x02000000  # linux/capability.h


class History:
    """Changes a directory at random, in a way that a seed repeats."""

    def __init__(
        self, top: Path, aside: Path, seed: int, *, with_mounts: bool = True
    ) -> None:
        self.top, self.aside = top, aside
        self.dice = random.Random(seed)  # noqa: S311 # to be repeated
        self.done: list[str] = []
        self._mapped: list[tuple[mmap.mmap, BinaryIO]] = []
        self._count = 0
        self._actions = self._weighted()
        if with_mounts:
            self._actions += self._mounting()

    def _weighted(self) -> list[Callable[[], object]]:
        weights: dict[Callable[[], object], int] = {
            self.write: 5,
            self.make_directory: 2,
            self.overwrite: 2,
            self.append: 1,
            self.truncate: 1,
            self.change_mode: 1,
            self.change_owner: 1,
            self.set_time: 1,
            self.keep_time: 1,
            self.remove: 1,
            self.remove_tree: 1,
            self.move: 2,
            self.move_tree: 1,
            self.link: 2,
            self.unlink_one: 1,
            self.replace: 1,
            self.change_type: 1,
            self.make_symlink: 1,
            self.set_attribute: 1,
            self.set_acl: 1,
            self.write_mapped: 2,
            self.make_fifo: 1,
            self.take_away: 1,
            self.bring_back: 1,
            self.copy_tree: 1,
            self.swap: 1,
            self.set_capability: 1,
            self.toggle_flag: 1,
        }
        return [action for action, weight in weights.items() for _ in range(weight)]

    def _mounting(self) -> list[Callable[[], object]]:
        return [self.mount_over, self.bind_mount, self.bind_file, *[self.unmount] * 2]

    def close(self) -> None:
        """Close what is mapped, and unmount what is mounted."""
        while self._mounts():
            self.unmount()
        for mapping, file in self._mapped:
            mapping.close()
            file.close()

    def change(self, count: int) -> None:
        """Do ``count`` things; what turns out to be impossible counts, too."""
        self.done.clear()
        for _ in range(count):
            action = self.dice.choice(self._actions)
            try:
                action()
                result = ""
            except (OSError, shutil.Error, IndexError) as error:
                result = f" ({type(error).__name__})"
            self.done.append(f"{getattr(action, '__name__', '')}{result}")

    def _place(self) -> Path:
        return self.dice.choice(self._directories()) / self.dice.choice(NAMES)

    def _directories(self) -> list[Path]:
        return [Path(place) for place, _, _ in os.walk(self.top)]

    def _subdirectory(self) -> Path:
        return self.dice.choice(self._directories()[1:])

    def _any(self) -> Path:
        found = [
            Path(place, name)
            for place, directories, files in os.walk(self.top)
            for name in (*directories, *files)
        ]
        return self.dice.choice(found)

    def _files(self) -> list[Path]:
        found = [Path(p, name) for p, _, files in os.walk(self.top) for name in files]
        return [path for path in found if path.is_file() and not path.is_symlink()]

    def _file(self) -> Path:
        return self.dice.choice(self._files())

    def _bytes(self) -> bytes:
        return self.dice.randbytes(self.dice.choice(SIZES))

    def write(self) -> None:
        """A new file, perhaps in place of another one."""
        path = self._place()
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            path.write_bytes(self._bytes())

    def make_directory(self) -> None:
        """A new directory."""
        self._place().mkdir()

    def overwrite(self) -> None:
        """New contents, of another size mostly."""
        self._file().write_bytes(self._bytes())

    def append(self) -> None:
        """More at the end."""
        with self._file().open("ab") as file:
            file.write(b"more")

    def truncate(self) -> None:
        """Less at the end."""
        path = self._file()
        os.truncate(path, path.stat().st_size // 2)

    def change_mode(self) -> None:
        """Other rights."""
        path = self._any()
        if not path.is_symlink():
            path.chmod(self.dice.choice((0o600, 0o644, 0o755, 0o4755, 0o700, 0o1777)))

    def change_owner(self) -> None:
        """Another owner, of links, too."""
        os.lchown(self._any(), self.dice.randint(0, 5), self.dice.randint(0, 5))

    def set_time(self) -> None:
        """Another time."""
        time = self.dice.randint(10**18, 17 * 10**17)
        os.utime(self._any(), ns=(time, time), follow_symlinks=False)

    def keep_time(self) -> None:
        """Other contents under the old time, as some programs leave them."""
        path = self._file()
        status = path.stat()
        path.write_bytes(self.dice.randbytes(status.st_size + 1))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def remove(self) -> None:
        """A file less."""
        self._file().unlink()

    def remove_tree(self) -> None:
        """A directory less."""
        shutil.rmtree(self._subdirectory())

    def move(self) -> None:
        """Another name for anything."""
        self._any().rename(self._place())

    def move_tree(self) -> None:
        """Another name for a directory, with all in it."""
        self._subdirectory().rename(self._place())

    def link(self) -> None:
        """One more name for a file."""
        self._place().hardlink_to(self._file())

    def unlink_one(self) -> None:
        """One name less of several."""
        linked = [path for path in self._files() if path.stat().st_nlink > 1]
        self.dice.choice(linked).unlink()

    def replace(self) -> None:
        """A new file under an old name, as editors do it."""
        path = self._file()
        new = path.with_name("new.tmp")
        new.write_bytes(self.dice.randbytes(path.stat().st_size))
        new.replace(path)

    def change_type(self) -> None:
        """A directory where something else was, or the other way round."""
        path = self._any()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            path.write_bytes(b"was a directory")
        else:
            path.unlink()
            path.mkdir()
            (path / "inside").write_bytes(b"i")

    def make_symlink(self) -> None:
        """A link, perhaps in place of another file."""
        path = self._place()
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        path.symlink_to(self.dice.choice(("a", "../b", "/etc", "nowhere")))

    def set_attribute(self) -> None:
        """An extended attribute."""
        name = self.dice.choice(("user.t", "trusted.t"))
        os.setxattr(self._any(), name, self.dice.randbytes(5), follow_symlinks=False)

    def set_acl(self) -> None:
        """An entry of an ACL."""
        path = self._any()
        if not path.is_symlink():
            entry = f"user:{self.dice.randint(100, 105)}:rw"
            run_program(["setfacl", "-m", entry, path], check=False)

    def write_mapped(self) -> None:
        """Contents by a mapping that stays, and is written to again later."""
        # tmpfs tells of no such change, and so rsync sees none either.
        device = self.top.stat().st_dev
        found = [(path, path.stat()) for path in self._files()]
        path = self.dice.choice(
            [p for p, status in found if status.st_size and status.st_dev == device]
        )
        if len(self._mapped) < MAPPINGS:
            new = path.open("r+b")
            self._mapped.append((mmap.mmap(new.fileno(), 0), new))
        mapping, file = self.dice.choice(self._mapped)
        if os.fstat(file.fileno()).st_size:
            mapping[0] = self.dice.randrange(256)

    def make_fifo(self) -> None:
        """A fifo."""
        os.mkfifo(self._place())

    def take_away(self) -> None:
        """A directory goes to where no backup looks."""
        self._count += 1
        self._subdirectory().rename(self.aside / str(self._count))

    def bring_back(self) -> None:
        """It comes back, with all ctimes below it as they were."""
        self.dice.choice(list(self.aside.iterdir())).rename(self._place())

    def copy_tree(self) -> None:
        """A copy that keeps times."""
        source, target = self.dice.choice(self._directories()), self._place()
        if not target.is_relative_to(source):
            run_program(["cp", "--archive", "--", source, target], check=False)

    def swap(self) -> None:
        """Two names change places."""
        one, other, between = self._any(), self._any(), self.top / "swap.tmp"
        one.rename(between)
        other.rename(one)
        between.rename(other)

    def set_capability(self) -> None:
        """A right of root's for a program, as setcap(8) gives it."""
        rights = struct.pack("<5I", VFS_CAP_REVISION_2, 1 << 10, 0, 0, 0)
        os.setxattr(self._file(), "security.capability", rights)

    def toggle_flag(self) -> None:
        """One of chattr(1)'s flags, which sets a ctime and nothing that is sent."""
        path = self._any()
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            for sign in "+-":
                run_program(["chattr", f"{sign}{self.dice.choice('Adi')}", path])
            run_program(["chattr", "-i", path])

    def mount_over(self) -> None:
        """Another file system over a directory, with something in it."""
        place = self._subdirectory()
        self._mount(["mount", "-t", "tmpfs", "-o", "size=1m", "history"], place)
        (place / "on top").write_bytes(self._bytes())

    def bind_mount(self) -> None:
        """A directory over another one, with ctimes of long ago."""
        source, place = self.dice.choice(self._directories()), self._subdirectory()
        # Over one that is above it, it would be in itself.
        if not source.is_relative_to(place):
            self._mount(["mount", "--bind", source], place)

    def bind_file(self) -> None:
        """A file over another one."""
        source, place = self._file(), self._file()
        if source != place:
            self._mount(["mount", "--bind", source], place)

    def unmount(self) -> None:
        """What was mounted last goes, also in the middle of being used."""
        run_program(["umount", "--lazy", self._mounts()[-1]])

    def _mount(self, words: list[str | Path], place: Path) -> None:
        if len(self._mounts()) < MOUNTS:
            run_program([*words, place], check=False)

    def _mounts(self) -> list[str]:
        """Where anything is mounted below the disc; it moves with its directory."""
        found = []
        table = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
        for line in table.split("\n")[:-1]:
            point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), line.split()[4])
            if any(point.startswith(f"{one}/") for one in (self.top, self.aside)):
                found.append(point)
        return found
