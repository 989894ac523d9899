"""The byteback user and what his home must hold before the first client comes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from byteback.errors import BytebackError, UsageError, quote
from byteback.server.setup.steps import (
    THREE_WAYS,
    Choice,
    Directory,
    Outcome,
    StepRunner,
    found,
    warning,
)
from byteback.server.setup.store import is_store_like
from byteback.server.store.layout import USER, Store
from byteback.system import accounts, files

DEFAULT_HOME = Path("/srv/byteback")
NO_HOMES = ("", "/", "/nonexistent")
USELESS_SHELLS = ("nologin", "false")


def choose_home(choice: Choice | None, mount_point: Path | None) -> Path:
    """The directory of the store, now or later. Raises UsageError for contradictions.

    A user who is there keeps his home, unless it holds nothing. Links are followed:
    that is the name under which the kernel knows a mount point.
    """
    user = accounts.find_user(USER)
    if choice is None and user is None:
        raise UsageError("this machine has no store yet", hint=THREE_WAYS)
    present = user.pw_dir if user is not None and user.pw_dir not in NO_HOMES else None
    if isinstance(choice, Directory):
        if mount_point is not None:
            raise UsageError("--mount-point goes with --device and --image only")
        wanted: Path | str = choice.path
    else:
        wanted = mount_point or present or DEFAULT_HOME
    home = Path(os.path.realpath(wanted))
    _check_home_name(home)
    if present is not None and Path(os.path.realpath(present)) != home:
        _check_old_home(Path(present), home)
    return home


def provide_user(home: Path, runner: StepRunner) -> Iterator[Outcome]:
    """Make the system user, or repair what would keep sshd from letting him in."""
    user = accounts.find_user(USER)
    if user is None:
        uid = _orphaned_owner(home)
        number = f", number {uid} as the store's owner" if uid is not None else ""
        yield runner.do(
            f"make the system user '{USER}' with the home {quote(str(home))}{number}",
            lambda: accounts.add_system_user(USER, home, uid),
        )
        return
    if user.pw_uid == 0:
        raise BytebackError(
            f"the user '{USER}' is root by another name (number 0)",
            hint="remove that user: the store's user must have no rights of his own",
        )
    yield found(f"the user '{USER}' is there, number {user.pw_uid}")
    if Path(os.path.realpath(user.pw_dir)) != home:
        yield runner.do(
            f"make {quote(str(home))} his home (was {quote(user.pw_dir)})",
            lambda: accounts.set_home(USER, home),
        )
    if Path(user.pw_shell).name in USELESS_SHELLS or not _is_program(user.pw_shell):
        yield runner.do(
            f"make {accounts.SHELL} his login shell: sshd could run nothing through "
            f"{quote(user.pw_shell)}",
            lambda: accounts.set_shell(USER),
        )
    yield from _check_password(runner)


def provide_layout(home: Path, runner: StepRunner) -> Iterator[Outcome]:
    """Owners and modes, of these four alone: clients' directories stay as they are.

    The home is 0750: backups hold copies of world-readable files which their clients
    keep inside closed directories, and other users of this machine have no business
    there; root may put a trusted user in the group. sshd's StrictModes asks for the
    rest, no other user may use the state directory.
    """
    store = Store(home)
    wanted = [
        _Place(home, 0o750, forbidden=0o027),
        _Place(store.state, 0o700),
        _Place(store.authorized_keys.parent, 0o700),
        _Place(store.authorized_keys, 0o600, is_file=True),
    ]
    wrong = [place for place in wanted if not _is_right(place)]
    for place in wrong:
        verb = "correct" if os.path.lexists(place.path) else "make"
        yield runner.do(
            f"{verb} {quote(str(place.path))}: owner '{USER}', mode {place.mode:04o}",
            partial(_provide, place),
        )
    if not wrong:
        yield found(f"owners and modes in {quote(str(home))} are right")


@dataclass(frozen=True)
class _Place:
    path: Path
    mode: int
    forbidden: int = 0o077  # permissions that no user may have
    is_file: bool = False


def _check_home_name(home: Path) -> None:
    text = str(home)
    if text == "/" or ":" in text or not text.isprintable():
        raise UsageError(
            f"{quote(text)} cannot be a user's home",
            hint="choose a directory other than /, without ':' or control characters "
            "in its name",
        )


def _check_old_home(old: Path, new: Path) -> None:
    try:
        is_bare = not any(old.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        is_bare = True
    if not is_bare:
        raise UsageError(
            f"the user '{USER}' has the home {quote(str(old))}, which is not empty",
            hint=f"if that is no store, give him another with 'usermod --home {new} "
            f"{USER}'; to keep it, leave --mount-point and --directory out",
        )


def _orphaned_owner(home: Path) -> int | None:
    """The number of a former user who owns a store that came from elsewhere.

    Taking it over makes all that he owned the new user's, with no chown of a tree
    that may hold millions of files.
    """
    try:
        uid = home.stat().st_uid
    except FileNotFoundError:
        return None
    return None if uid == 0 or accounts.has_uid(uid) else uid


def _is_program(shell: str) -> bool:
    # An empty field means /bin/sh, see passwd(5).
    return not shell or os.access(shell, os.X_OK)


def _check_password(runner: StepRunner) -> Iterator[Outcome]:
    field = accounts.password_field(USER)
    if field in {"!", "!!", "!*"}:
        yield runner.do(
            "unlock his account for keys; passwords still do not open it",
            lambda: accounts.set_no_password(USER),
        )
    elif field.startswith("!"):
        yield warning(
            f"the user '{USER}' was locked by hand: 'usermod --password \"*\" {USER}' "
            "lets keys in again, and no password"
        )


def _is_right(place: _Place) -> bool:
    user = accounts.find_user(USER)
    try:
        status = place.path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    mode = stat.S_IMODE(status.st_mode)
    own = 0o600 if place.is_file else 0o700
    return (
        user is not None
        and status.st_uid == user.pw_uid
        and stat.S_ISREG(status.st_mode) == place.is_file
        and not mode & place.forbidden
        and mode & own == own
    )


def _provide(place: _Place) -> None:
    """Make or repair one place by its descriptor, following no link.

    The directory above belongs to the byteback user, or soon will: root must not
    change the owner of whatever a link there points to.
    """
    user = accounts.find_user(USER)
    if user is None:
        raise BytebackError(f"the user '{USER}' has vanished")
    fd = _open(place)
    try:
        status = os.fstat(fd)
        if place.is_file and (status.st_nlink > 1 or not stat.S_ISREG(status.st_mode)):
            raise _suspicious(place.path)
        os.fchown(fd, user.pw_uid, user.pw_gid)
        os.fchmod(fd, place.mode)
    finally:
        os.close(fd)
    files.sync_directory(place.path.parent)


def _open(place: _Place) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    beneath = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    path = place.path
    try:
        # By the directory's descriptor: he could exchange .ssh for a link meanwhile.
        parent = os.open(path.parent, beneath)
        try:
            if place.is_file:
                return os.open(path.name, flags | os.O_CREAT, 0o600, dir_fd=parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, place.mode, dir_fd=parent)
            return os.open(path.name, beneath, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError:
        if path.is_symlink() or path.parent.is_symlink():
            raise _suspicious(path) from None
        raise


def _suspicious(path: Path) -> BytebackError:
    return BytebackError(
        f"{quote(str(path))} is a link, or no plain file",
        hint="look at what it is, and put a plain file or directory in its place",
    )


def check_takeover(home: Path) -> None:
    """Refuse a ``--directory`` of another user: it would be given to byteback."""
    user = accounts.find_user(USER)
    if home.is_dir() and not is_store_like(home, user.pw_uid if user else None):
        raise UsageError(
            f"{quote(str(home))} is not empty and is no store",
            hint="make an empty directory in it for the store, and name that",
        )
