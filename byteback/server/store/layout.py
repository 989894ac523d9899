"""The store: the byteback user's home, with one directory for each client.

Layout: ``HOST/current`` is the subvolume that rsync writes into,
``HOST/2026-11-22T20:15+0000`` a read-only snapshot of it, and ``.byteback/`` the
server's own state, which no client can reach.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, tzinfo
from pathlib import Path
from typing import NamedTuple

from byteback import locking
from byteback.errors import NotSetUpError, RefusedError, quote
from byteback.model.hostname import check_host_name, is_host_name, is_same_host
from byteback.model.snapshot import CURRENT, Snapshot, parse_snapshot_name

USER = "byteback"
STATE = ".byteback"
# What is on its way out or not in place yet, beside a host's snapshots.
DISCARDED = ".byteback-discarded"
LONGEST_LOCK_NAME = 200
# Errors of a path that leads to no directory. A disc that fails is no such answer.
NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
ZONELESS_LENGTH = len("2014-05-01T03:00")  # names before that month


class Store(NamedTuple):
    """A store by its root directory. Making the value touches no disc."""

    root: Path

    @property
    def state(self) -> Path:
        """The server's own directory, mode 0700."""
        return self.root / STATE

    @property
    def authorized_keys(self) -> Path:
        """The file that binds each key to one host name."""
        return self.root / ".ssh" / "authorized_keys"

    def host_directory(self, client: str) -> Path:
        """``HOST/``. Raises UsageError for a name that cannot be a client's."""
        return self.root / check_host_name(client)

    def current(self, client: str) -> Path:
        """``HOST/current``, the only thing that a client's transfers may change."""
        return self.host_directory(client) / CURRENT

    def is_client(self, client: str) -> bool:
        """True if ``client`` has a directory here with ``current`` inside.

        A directory that this user may not enter is none.
        """
        if not is_host_name(client):
            return False
        try:
            # Asked of every client in turn, so without making a Path for each.
            mode = os.stat(f"{self.root}/{client}/{CURRENT}").st_mode  # noqa: PTH116
        except OSError as error:
            if error.errno in NO_DIRECTORY:
                return False
            raise
        return stat.S_ISDIR(mode)

    def client_name(self, name: str) -> str | None:
        """A client's name as the store has it, whatever the case of its letters."""
        if self.is_client(name):
            return name
        return next((one for one in self.hosts() if is_same_host(one, name)), None)

    def hosts(self) -> list[str]:
        """All clients, sorted. Links are no clients."""
        with os.scandir(self.root) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        return sorted(name for name in names if self.is_client(name))

    def snapshots(self, client: str) -> list[Snapshot]:
        """A client's snapshots, oldest first. Foreign names are none of them."""
        return self.dated(client, self.trees(client))

    def dated(self, client: str, names: Iterable[str]) -> list[Snapshot]:
        """The snapshots among ``names``, oldest first."""
        found = []
        for name in names:
            time = parse_snapshot_name(name, _zone_for(name))
            if time is not None:
                found.append(Snapshot(client, time, name))
        return sorted(found)

    def trees(self, client: str) -> list[str]:
        """Names of all directories of a client: snapshots, ``current`` and foreign."""
        with os.scandir(f"{self.root}/{check_host_name(client)}") as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        return sorted(names)

    def noted(self, clients: Iterable[str], ending: str) -> list[str]:
        """Those of the clients of which there is a note with this ending."""
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(self.state / "hosts")  # noqa: PTH208 # strings do
        found = {n.removesuffix(ending) for n in names if n.endswith(ending)}
        return (
            [client for client in clients if lock_name(client) in found]
            if found
            else []
        )

    def lock_path(self, client: str) -> Path:
        """Held by whatever writes to, or snapshots, the client's ``current``."""
        return self.state / "hosts" / f"{lock_name(client)}.lock"

    @contextlib.contextmanager
    def lock_host(self, client: str, *, wait_s: float = 0.0) -> Iterator[locking.Lock]:
        """Hold a client's lock; raises LockedError as locking.hold does."""
        with locking.hold(self.lock_path(client), wait_s=wait_s) as lock:
            yield lock


def lock_name(client: str) -> str:
    """The name of files about ``client``, with room for an ending.

    A client's name may be as long as a file name may. A lock that cannot be made is
    none: so long names are cut, and told apart by a digest. No name holds a ``~``.
    Raises UsageError for a name that cannot be a client's.
    """
    if len(check_host_name(client)) <= LONGEST_LOCK_NAME:
        return client
    import hashlib

    digest = hashlib.sha256(client.encode("ascii")).hexdigest()
    return f"{client[: LONGEST_LOCK_NAME - len(digest)]}~{digest}"


def _zone_for(name: str) -> tzinfo:
    """The zone of a snapshot's name without one: what was in force here that day."""
    if len(name) != ZONELESS_LENGTH:
        return UTC
    from byteback.system.local_zone import LocalZone

    return LocalZone()


def own_store() -> Store:
    """The store of the user who runs this: the home that the user database names.

    Not $HOME, which a caller can set.
    """
    return Store(Path(pwd.getpwuid(os.geteuid()).pw_dir))


def find_store() -> Store:
    """The store of this machine, for programs that root or byteback itself runs.

    Raises NotSetUpError if there is no byteback user.
    """
    try:
        return Store(Path(pwd.getpwnam(USER).pw_dir))
    except KeyError:
        raise NotSetUpError(
            f"this machine has no user {quote(USER)}, so it holds no store",
            hint="make one with byteback-setup-server",
        ) from None


def check_store_user() -> None:
    """Raise RefusedError for any user but byteback, where there is one.

    Another user's home would become a store that is never pruned.
    """
    with contextlib.suppress(KeyError):
        if pwd.getpwnam(USER).pw_uid != os.geteuid():
            raise RefusedError(
                f"only root and the user {quote(USER)} can enrol clients here",
                hint="byteback-setup-client --login root logs in as root; any user's "
                "key can enrol after byteback-setup-server --admin-key",
            )


def become_store_user() -> None:
    """As root, turn into the byteback user for good; other users stay what they are.

    What root made in the store the user could neither snapshot nor delete later.
    Raises NotSetUpError if there is no such user.
    """
    if os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        raise NotSetUpError(
            f"this machine has no user {quote(USER)}, so it holds no store",
            hint="make one with byteback-setup-server",
        ) from None
    os.initgroups(USER, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=USER, LOGNAME=USER)
