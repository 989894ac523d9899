"""The store's authorized_keys: read as it is, changed under a lock, all or nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byteback import locking
from byteback.errors import BytebackError, NotSetUpError, RefusedError, quote
from byteback.model.key_line import (
    KeyLine,
    format_enrolling_line,
    parse_key_line,
)
from byteback.model.public_key import parse_public_key
from byteback.server.store.layout import Store
from byteback.system import files

LOCK_WAIT_S = 30.0
MAX_BYTES = 16 << 20  # far above 10,000 clients and invitations


@dataclass
class KeyFile:
    """The lines of authorized_keys while they are being changed.

    Lines that are not changed stay as they are, to the byte.
    """

    lines: list[bytes] = field(default_factory=list)

    def key_lines(self) -> dict[int, KeyLine]:
        """Each line that lets a key in, by its place."""
        parsed = {at: parse_key_line(line) for at, line in enumerate(self.lines)}
        return {at: line for at, line in parsed.items() if line is not None}

    def lines_of_key(self, blob: bytes) -> dict[int, KeyLine]:
        """The lines that let this key in; compared as keys, never as text."""
        return {at: x for at, x in self.key_lines().items() if x.blob == blob}

    def lines_of_host(self, client: str) -> dict[int, KeyLine]:
        """The lines whose keys are bound to ``client``, in the old style or the new."""
        return {at: x for at, x in self.key_lines().items() if x.host == client}

    def put(self, places: list[int], line: bytes) -> None:
        """Put ``line`` in the first of ``places`` and drop the rest, else append it."""
        if not places:
            self.lines.append(line)
            return
        self.lines[places[0]] = line
        self.drop(places[1:])

    def drop(self, places: Iterable[int]) -> None:
        """Leave out the lines at ``places``."""
        gone = set(places)
        self.lines = [x for at, x in enumerate(self.lines) if at not in gone]


@contextlib.contextmanager
def editing(store: Store) -> Iterator[KeyFile]:
    """The file's lines, to change inside the block; written when the block ends well.

    The caller acts as the owner of the store meanwhile: root would otherwise
    follow links which that user could have put there. Raises NotSetUpError if the
    store cannot be written to, LockedError if another enrolment never ends.
    """
    path = store.authorized_keys
    with _acting_as_owner(store), _explaining(store):
        store.state.mkdir(mode=0o700, exist_ok=True)
        lock = store.state / "authorized_keys.lock"
        with locking.hold(lock, wait_s=LOCK_WAIT_S):
            _prepare_directory(path.parent)
            before = _read(path)
            key_file = KeyFile(list(before))
            yield key_file
            if key_file.lines != before:
                _write(path, b"".join(line + b"\n" for line in key_file.lines))


def read(store: Store) -> KeyFile:
    """The lines as they are now, for looking only."""
    return KeyFile(_read(store.authorized_keys))


def add_admin_key(store: Store, public_key_line: str, program: Path) -> bool:
    """Let an administrator's key enrol clients from afar, and do nothing else.

    ``program`` is byteback-setup-client-receive. Returns whether anything had to be
    changed. Raises RefusedError if the key already opens the account otherwise.
    """
    key = parse_public_key(public_key_line)
    line = format_enrolling_line(key, program)
    with editing(store) as key_file:
        present = key_file.lines_of_key(key.blob)
        for entry in present.values():
            if not entry.is_for_enrolling:
                use = f"client {quote(entry.host)}" if entry.host else "other uses"
                raise RefusedError(
                    f"key {key.fingerprint} is already in authorized_keys for {use}",
                    hint="take another key, or remove that line first",
                )
        if [key_file.lines[at] for at in present] == [line]:
            return False
        key_file.put(list(present), line)
        return True


@contextlib.contextmanager
def _acting_as_owner(store: Store) -> Iterator[None]:
    owner = store.root.stat() if store.root.is_dir() else None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextlib.contextmanager
def _explaining(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotSetUpError(
            f"cannot write to the store {quote(str(store.root))}: {error.strerror}",
            hint="set the server up, or repair it, with byteback-setup-server; "
            "nothing was changed",
        ) from None


def _prepare_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise BytebackError(
            f"{quote(str(directory))} is a link or a file",
            hint="make it a directory that only the store's user can write to",
        )
    if status.st_mode & 0o077:
        directory.chmod(0o700)


def _read(path: Path) -> list[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        if path.is_symlink():
            raise BytebackError(
                f"{quote(str(path))} is a symbolic link",
                hint="put the file itself there: a link would be replaced by a file",
            ) from None
        raise error
    with os.fdopen(fd, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BytebackError(
            f"{quote(str(path))} is too large",
            hint="look what is in it: a line for each key takes some hundred bytes",
        )
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _write(path: Path, content: bytes) -> None:
    # sshd never sees half a file, and a full disc leaves the old one as it was.
    if path.exists():
        path.chmod(0o600)  # sshd ignores a file that others can write to
    files.write_atomically(path, content, mode=0o600)
