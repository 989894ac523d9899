"""Makes snapshots root's, so that the store's user can only read them (D29).

Who took that user over can unlock or delete what is his. A sealed snapshot is not: its
top directory belongs to root, it is read-only, and an attribute that only root can set
there holds its true HOST/NAME, for the directory around it is still the user's. All of
this is done by descriptors: a path in the store may lead elsewhere a moment later.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from byteback import log
from byteback.errors import ToolError, quote
from byteback.model.snapshot import CURRENT, parse_snapshot_name
from byteback.server.snapshots import renamed, seal
from byteback.server.snapshots.lineage import UNTOUCHED_MODE
from byteback.server.store import settings
from byteback.server.store.layout import DISCARDED, Store
from byteback.system import files, privilege
from byteback.system.btrfs import subvolume
from byteback.system.rsync import fake_super

logger = logging.getLogger(__name__)

SEALING_S = 60.0  # for one run; the next goes on. Each takes two commits of btrfs
TICK_S = 0.001
MAX_EXCHANGES = 16  # for one name; the next run goes on

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_DIRECTORY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OTHERS = frozenset({CURRENT, DISCARDED})  # names that the store gives
_RIGHTS = (
    " (unless it is being sent: in a service, CapabilityBoundingSet= needs CAP_CHOWN, "
    "CAP_DAC_OVERRIDE and CAP_FOWNER)"
)


class Seals:
    """One run over a store, by the store's user with root within reach (D15)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._can = privilege.is_root_within_reach() and os.geteuid() != 0
        self.are_wanted = self._can and settings.load().sealed
        self._deadline = time.monotonic() + SEALING_S

    def look_after(
        self, client: str, dated: Sequence[str], others: Collection[str]
    ) -> Sequence[str] | None:
        """Seal what is not sealed yet of a host's snapshots, and keep their names true.

        ``dated`` are the names of snapshots, ``others`` all others there.
        What a crash has left half done is finished. The store's user owns the
        directory around them: as "1999-..." a sealed one would be the next to be
        pruned, as "current" it would be discarded. So it gets its name back; one with
        an administrator's own name may keep that. Returns the names of what was not
        sealed before, or None if the names have changed. Raises OSError.
        """
        if not self._can:
            return dated
        with _opened(self._store, client) as directory:
            unsealed = directory.put_names_right(dated, _OTHERS.intersection(others))
            if self.are_wanted and CURRENT in others:
                for name in unsealed:
                    if time.monotonic() > self._deadline:
                        break
                    directory.try_to_seal(name)
            return None if directory.is_changed else unsealed


def is_deletable(store: Store, client: str, name: str) -> bool:
    """True if root may delete what is at that name: no, if it is sealed as another.

    True where it is not root who deletes. Raises OSError.
    """
    if not privilege.is_root_within_reach() or os.geteuid() == 0:
        return True
    with _opened(store, client) as directory:
        fd = directory.open_top(name)
        if fd is None:
            return False
        try:
            return seal.deletion_check(f"{client}/{name}")(fd)
        finally:
            os.close(fd)


def claims(store: Store, client: str, names: Iterable[str]) -> dict[str, str]:
    """The true HOST/NAME of each sealed snapshot among ``names`` of a host.

    With root's rights where they are within reach. Raises OSError.
    """
    found = {}
    with _opened(store, client) as directory:
        for name in names:
            claim = directory.claim_of(name)
            if claim is not None:
                found[name] = claim
    return found


def rename_claims(store: Store, client: str, former: str) -> int:
    """Record what is sealed as ``former``'s in a host's directory as the host's own.

    None of it is touched. With root's rights, which the caller has within reach.
    Returns how many there were. Raises OSError.
    """
    with _opened(store, client) as directory:
        names = set(store.trees(client)) - _OTHERS
        found = [directory.uuid_if_claimed(name, former) for name in names]
    uuids = [uuid for uuid in found if uuid is not None]
    renamed.note(client, uuids, former)
    return len(uuids)


def copy(store: Store, client: str, name: str, target: str) -> None:
    """Make a writable copy of a sealed snapshot as ``target`` beside it.

    Only root and the owner may make a snapshot of a subvolume; the copy is the user's
    again. The caller is the store's user with root within reach, and there is nothing
    at ``target``. Raises ToolError.
    """
    uid, gid = os.geteuid(), os.getegid()
    what = quote(f"{client}/{name}")
    try:
        with _opened(store, client) as directory, contextlib.ExitStack() as stack:
            source = directory.open_top(name)
            if source is None:
                raise ToolError(f"{what} is no subvolume")
            stack.callback(os.close, source)
            if not directory.is_of_store(source):
                raise ToolError(f"{what} is mounted there")
            subvolume.snapshot(source, directory.fd, target)
            made = directory.open_top(target)
            if made is None:
                raise ToolError(f"the copy of {what} has gone")
            stack.callback(os.close, made)
            _give_back(source, made, uid, gid)
    except OSError as error:
        # As btrfs would say it: callers look for a full disc.
        details = [f"ERROR: {error.strerror}"]
        raise ToolError(
            f"cannot copy {what}: {error.strerror}", None, details
        ) from None


@contextlib.contextmanager
def _opened(store: Store, client: str) -> Iterator[_Directory]:
    """A client's directory, by root. Raises OSError for a link."""
    uid, gid = os.geteuid(), os.getegid()
    with privilege.raised(), contextlib.ExitStack() as stack:
        root = os.open(store.root, _DIRECTORY)
        stack.callback(os.close, root)
        fd = os.open(client, _DIRECTORY, dir_fd=root)
        stack.callback(os.close, fd)
        yield _Directory(fd, client, uid, gid)


class _Directory:
    """A client's directory, opened by root, and the number of the store's user."""

    def __init__(self, fd: int, client: str, uid: int, gid: int) -> None:
        self.fd = fd
        self._host = client
        self._uid = uid
        self._gid = gid
        self._device = os.fstat(fd).st_dev
        self._mount = files.mount_of(fd)
        self.is_changed = False
        self._ctime_ns = 0  # of the last one sealed

    def open_top(self, name: str) -> int | None:
        """A subvolume's top directory; None if ``name`` is anything else, or gone."""
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:  # a mount of another user's, say
                what = quote(f"{self._host}/{name}")
                logger.warning("cannot open %s: %s", what, error.strerror)
            return None
        found = os.fstat(fd)
        if found.st_ino == subvolume.TOP_INODE and found.st_dev != self._device:
            return fd
        os.close(fd)
        return None

    def claim_of(self, name: str) -> str | None:
        """The true name noted on the subvolume at ``name``, if that is root's."""
        fd = self.open_top(name)
        if fd is None:
            return None
        try:
            return seal.read_claim(fd)
        finally:
            os.close(fd)

    def is_of_store(self, fd: int) -> bool:
        """True if an open directory is no mount point."""
        return files.mount_of(fd) == self._mount

    def put_names_right(
        self, dated: Collection[str], others: Collection[str]
    ) -> list[str]:
        """See Seals; the names among the dated ones of what is not sealed."""
        strangers = []
        unsealed = []
        for name in [*dated, *others]:
            claim = self._claim_at(name)
            for _ in range(MAX_EXCHANGES):
                if not self._is_misnamed(name, claim):
                    break
                # What had the true name got this one for it, and may have a claim.
                claim = self._claim_at(name)
            if claim is None and name not in others:
                unsealed.append(name)
            if claim is not None and claim.partition("/")[0] != self._host:
                strangers.append(claim)
        if strangers:
            logger.warning(
                "%s holds %d sealed snapshots of other names, such as %s: it was "
                "renamed, and they are not pruned until it has its name back, or "
                "'byteback-clients rename %s %s' has run",
                *(quote(self._host), len(strangers), quote(strangers[0])),
                *(strangers[0].partition("/")[0], self._host),
                extra=log.AUTH,
            )
        return unsealed

    def try_to_seal(self, name: str) -> None:
        """Seal one snapshot, or say why not; what is none of the store's stays."""
        try:
            if self._seal_at(name):
                logger.info("sealed %s/%s", self._host, name)
        except OSError as error:
            hint = _RIGHTS if isinstance(error, PermissionError) else ""
            what = quote(f"{self._host}/{name}")
            logger.warning("cannot seal %s: %s%s", what, error.strerror, hint)

    def uuid_if_claimed(self, name: str, client: str) -> str | None:
        """The uuid of the subvolume at ``name`` if it is sealed as ``client``'s."""
        fd = self.open_top(name)
        if fd is None:
            return None
        try:
            claim, found = seal.read_claim(fd), subvolume.read(fd)
            if claim is None or found is None or not self.is_of_store(fd):
                return None
            return found.uuid.hex() if claim.partition("/")[0] == client else None
        finally:
            os.close(fd)

    def _seal_at(self, name: str) -> bool:
        fd = self.open_top(name)
        if fd is None:
            return False
        try:
            status = os.fstat(fd)
            claim = seal.read_claim(fd, status)
            if status.st_uid not in {0, self._uid} or not self.is_of_store(fd):
                return False
            self._seal(fd, status, claim or f"{self._host}/{name}")
        finally:
            os.close(fd)
        return True

    def _seal(self, fd: int, status: os.stat_result, claim: str) -> None:
        """Step by step, the mark last: a crash leaves what the next run seals again."""
        subvolume.freeze(fd)
        found = subvolume.read(fd)
        if found is None:
            return
        mode = UNTOUCHED_MODE
        if not found.is_untouched:
            mode = 0o200 | (status.st_mode & 0o555) | 0o550
        subvolume.thaw(fd)
        try:
            if status.st_uid != 0:
                # One that a copy of a sealed snapshot has brought along.
                seal.forget_claim(fd)
            fake_super.note_status(fd, status)
            os.fchown(fd, 0, self._gid)
            self._set_mode(fd, mode)
            os.setxattr(fd, seal.ATTRIBUTE, claim.encode())
        finally:
            subvolume.freeze(fd)

    def _set_mode(self, fd: int, mode: int) -> None:
        """With a ctime of its own: by it searches tell one state from another (D28)."""
        os.fchmod(fd, mode)
        while os.fstat(fd).st_ctime_ns == self._ctime_ns:
            time.sleep(TICK_S)
            os.fchmod(fd, mode)
        self._ctime_ns = os.fstat(fd).st_ctime_ns

    def _claim_at(self, name: str) -> str | None:
        """The true HOST/NAME of what is at ``name``, if that is sealed."""
        fd = self.open_top(name)
        if fd is None:
            return None
        try:
            claim = seal.read_claim(fd)
            # A writable one is a copy, or half sealed: seal finishes that.
            return claim if claim is not None and subvolume.is_read_only(fd) else None
        finally:
            os.close(fd)

    def _is_misnamed(self, name: str, claim: str | None) -> bool:
        """True if the subvolume at ``name`` had another true name, and has it back."""
        if claim is None or claim == f"{self._host}/{name}":
            return False
        client, _, wanted = claim.partition("/")
        if client != self._host:
            return False
        here = quote(f"{self._host}/{name}")
        if parse_snapshot_name(wanted) is None or self._claim_at(wanted) == claim:
            logger.warning("%s is a copy of the sealed snapshot %s", here, quote(claim))
            return False
        files.rename_within(self.fd, name, wanted)
        self.is_changed = True
        logger.warning(
            "the sealed snapshot %s had been renamed to %s: it has its name back",
            *(quote(claim), here),
            extra=log.AUTH,
        )
        return True


def _give_back(source: int, made: int, uid: int, gid: int) -> None:
    """Make the copy of a sealed snapshot the user's, and no sealed one."""
    origin, found = subvolume.read(source), subvolume.read(made)
    if origin is None or found is None or found.parent_uuid != origin.uuid:
        raise ToolError("the copy of a sealed snapshot was exchanged meanwhile")
    noted = fake_super.read_fake_stat(made)
    mode = noted.mode if noted is not None else os.fstat(made).st_mode
    seal.forget_claim(made)
    os.fchmod(made, (stat.S_IMODE(mode) & 0o777) | 0o700)
    os.fchown(made, uid, gid)
