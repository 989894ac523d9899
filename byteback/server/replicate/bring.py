"""Brings one snapshot of one client from the first server.

rsync fetches it into the client's ``current`` here, as a difference to what is there,
and confined as in a client's push. Only when all of it has arrived a snapshot is made
of that, under the same name.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import NamedTuple

from byteback import locking
from byteback.errors import (
    BusyError,
    BytebackError,
    NotSetUpError,
    PolicyError,
    ToolError,
    escape,
    quote,
)
from byteback.model.growth import JUDGED_S
from byteback.model.replication import OfferedSnapshot
from byteback.model.snapshot import parse_snapshot_name
from byteback.server.accounting import growth, ledger
from byteback.server.replicate import admission, doubts
from byteback.server.replicate.line import Fetching, Line, Said
from byteback.server.snapshots import take
from byteback.server.store import change, replica_note, replica_rounds, settings
from byteback.server.store.layout import Store
from byteback.server.store.replica_note import ReplicaNote
from byteback.server.store.settings import ServerSettings
from byteback.server.store.state import Transfer
from byteback.server.transfer import hard_links, rsync_args, runner, sessions
from byteback.system import process
from byteback.system.btrfs import commands
from byteback.system.confinement import bridge
from byteback.system.rsync.command import MEANINGS, PARTIAL
from byteback.system.ssh.openssh import join_for_rsync
from byteback.wire.changed_names import CompareAllError
from byteback.wire.failures import Reason
from byteback.wire.replication import Fetch

logger = logging.getLogger(__name__)

TRIES = 6  # each brings what the one before had to separate, or has lost
LOCK_WAIT_S = 30.0
IO_TIMEOUT_S = 900
LEARN_S = 30.0
FIRST_WEEK_S = 7 * 86400.0  # in which the administrator sees what arrives
MAX_BLOCKS = 256 * 1024  # of one file: about 10 MiB of memory
OPTIONS = (
    *("--archive", "--acls", "--xattrs", "--hard-links", "--numeric-ids"),
    *("--delete-during", "--inplace", "--no-whole-file", "--modify-window=-1"),
    *(
        "--fake-super",
        "--no-protect-args",
        "--blocking-io",
        f"--timeout={IO_TIMEOUT_S}",
    ),
)
CUT_OFF = 12  # as rsync says it
_HOST = "first"  # which rsync wants to see before a path


class TimeOverError(BusyError):
    """This first server has had its time, and another one is to have its own."""


def bring(
    store: Store,
    line: Line,
    client: str,
    offered: OfferedSnapshot,
    started: float,
    *,
    until: float = math.inf,
    checksum: bool = False,
) -> None:
    """Fetch a snapshot and make it here, under its own name.

    ``started`` is when this round began: for the growth rule, a round is one backup.
    ``until``, by time.monotonic, is when it is to end.
    Raises BytebackError; what has arrived stays, and the next call goes on with it.
    """
    change.check(client)
    admission.begin(store, client, line.source.name)
    limits = settings.load(client)
    with store.lock_host(client, wait_s=LOCK_WAIT_S) as lock:
        target = store.host_directory(client) / offered.name
        if target.exists() or target.is_symlink():
            raise BytebackError(f"{quote(f'{client}/{offered.name}')} is here already")
        take.ensure_current(store, client)
        guard = _guard(store, client, limits, line.source.name, until)
        job = _Job(store, client, line.source.name, limits, lock, guard)
        found = _fetch(job, line, offered, checksum=checksum)
        _take(store, client, found, started)


def _fetch(
    job: _Job, line: Line, offered: OfferedSnapshot, *, checksum: bool
) -> OfferedSnapshot:
    """Have ``current`` be what was offered; what it is then. Raises as bring."""
    client = job.client
    base, is_known = _base(job.store, client, offered)
    compares_all = checksum or not is_known
    results = {0: Transfer.WHOLE}
    is_again = False
    for attempt in range(1, TRIES + 1):
        # Of what is here already it tells which ACLs rsync loses, else another
        # transfer sees that.
        asked = None if compares_all or is_again else base
        request, options = _request(
            *(job.store, client, offered.name, asked),
            checksum=compares_all and not is_again,
        )
        with line.fetching(request) as fetching:
            try:
                status, loses_acls = _receive(job, request, options, fetching, results)
            except CompareAllError:
                compares_all = True
                continue
            except BusyError as error:
                if error.reason != Reason.AT_ONCE or attempt == TRIES:
                    raise
                continue
        if status in results:
            if loses_acls and not is_again:
                is_again = True
                continue
            return offered if status == 0 else offered._replace(incomplete=True)
        if status != PARTIAL or not _is_there(line, client, offered):
            raise failure(line, client, offered.name, status, fetching.said)
        # As with a client's own backup: what the first server cannot read it will
        # not be able to read tomorrow.
        _tell_partial(client, offered.name, fetching.said)
        results = {0: Transfer.WHOLE, PARTIAL: Transfer.PARTIAL}
    raise BusyError(f"{quote(f'{client}/{offered.name}')} changes again and again")


class _Job(NamedTuple):
    """The place of a transfer, and what holds it in bounds."""

    store: Store
    client: str
    source: str
    limits: ServerSettings
    lock: locking.Lock
    guard: Callable[[], None]


def _receive(
    job: _Job,
    request: Fetch,
    options: tuple[str, ...],
    fetching: Fetching,
    results: Mapping[int, Transfer],
) -> tuple[int, bool]:
    """Have rsync fetch, after what the first server says has changed.

    Returns rsync's status, and if it may have lost ACLs that another transfer brings.
    Raises CompareAllError where the first server does not know what has changed, and
    as sessions.receive.
    """
    loses_acls = True
    if request.base is not None:
        try:
            loses_acls = doubts.take(job.store, job.client, fetching.fds[0], job.guard)
        except EOFError:
            return CUT_OFF, False
    status = sessions.receive(
        *(job.store, job.client, command(options, fetching), job.limits, job.lock),
        job.source,
        guard=job.guard,
        results=results,
    ).status
    return status, loses_acls


def _base(
    store: Store, client: str, offered: OfferedSnapshot
) -> tuple[OfferedSnapshot | None, bool]:
    """The snapshot that ``current`` was made from, None for none; False: unknown.

    Where parts of another snapshot may have arrived since, of one that is there no
    longer, nothing is known about any file. That stays so until a snapshot is made.
    """
    note = replica_note.read(store, client) or ReplicaNote("", {})
    newest = next(reversed([one.name for one in store.snapshots(client)]), "")
    parts, mark = note.under_way, f"{offered.name},{offered.token}"
    # It may be made, and only the note of that missing.
    if parts not in ("", mark) and parts.partition(",")[0] != newest:
        return None, False
    if parts != mark:
        replica_note.write(store, client, note._replace(under_way=mark))
    if not newest:
        return None, True
    return OfferedSnapshot(newest, note.tokens.get(newest, "")), True


def _is_there(line: Line, client: str, offered: OfferedSnapshot) -> bool:
    """True if the snapshot is on the first server still: it did not go meanwhile."""
    offers = line.read_listing().offers
    return any(one.client == client and offered in one.snapshots for one in offers)


def _tell_partial(client: str, name: str, said: Said) -> None:
    what = quote(f"{client}/{name}")
    logger.warning("%s: the first server cannot read all of it", what)
    for line in said.lines[-process.DETAIL_LINES :]:
        logger.warning("  %s", escape(line))


def _take(store: Store, client: str, offered: OfferedSnapshot, started: float) -> None:
    """Make the snapshot of what has arrived, as take.take_snapshot does."""
    target = store.host_directory(client) / offered.name
    made = _counts_as_made(store, client, offered.name, started)
    try:
        ledger.add_snapshot(
            *(store, client, offered.name),
            incomplete=offered.incomplete,
            files=None,
            made=made,
        )
        take.snapshot_current(store.current(client), target)
    except BaseException:
        if not target.exists():
            ledger.forget_snapshot(store, client, offered.name)
        raise
    note = replica_note.read(store, client)
    if note is not None:
        tokens = dict(note.tokens)
        if offered.token:
            tokens[offered.name] = offered.token
        note = note._replace(tokens=tokens, under_way="")
        replica_note.write(store, client, note)


def _counts_as_made(store: Store, client: str, name: str, started: float) -> float:
    """The time at which a snapshot ends a backup, for the growth rule.

    Not before this round, and not by the first server's word alone: else it could
    divide one large backup into many small ones, by dates that it makes up.
    """
    named = parse_snapshot_name(name) or datetime.now(UTC)
    made = min(named.timestamp(), started)
    before = [time for time in growth.record_of(store, client).snapshots if time < made]
    interval_s = settings.load(client).snapshot_interval_hours * 3600
    if before and made - max(before) < interval_s:
        return max(before)
    return made


def _guard(
    store: Store, client: str, limits: ServerSettings, source: str, until: float
) -> Callable[[], None]:
    """Stops a client that is new here before any history would go for it.

    And a transfer whose time is over: a sender could keep it alive for ever.
    """
    is_new = _is_new(store, client, source)

    def look() -> None:
        if time.monotonic() > until:
            raise TimeOverError(f"the time of {quote(source)} is over for this round")
        if not is_new:
            return
        free = commands.free_space(store.root)
        if free.percent <= limits.max_percent:
            raise PolicyError(
                f"there is no room for {quote(client)}, which is new here ({free} is "
                "free)",
                hint=f"'byteback-prune --approve {client}' lets it in, and pruning "
                "then makes room for it; or make the store larger",
            )

    return look


def _is_new(store: Store, client: str, source: str) -> bool:
    """True for a client that the first server alone vouches for.

    It says how many clients there are, and each may take a little more with each
    backup. Those of the first week are what the administrator set up; a later one is
    new for as long as growth is judged, for the administrator to notice it.
    """
    if growth.record_of(store, client).approvals:
        return False
    if not store.snapshots(client):
        return True
    note, record = (
        replica_note.read(store, client),
        replica_rounds.read(store, source),
    )
    if note is None or record is None or record.began is None:
        return False
    is_late = note.since > record.began + FIRST_WEEK_S
    return is_late and time.time() - note.since < JUDGED_S


def _request(
    store: Store,
    client: str,
    name: str,
    base: OfferedSnapshot | None,
    *,
    checksum: bool,
) -> tuple[Fetch, tuple[str, ...]]:
    """The request for one snapshot, and our rsync's options for the same transfer."""
    options = [*OPTIONS, *(["--checksum"] if checksum else [])]
    if hard_links.is_second(store, client):
        options.append("--no-inc-recursive")
    size = _block_size(store.current(client))
    options += [f"--block-size={size}"] if size else []
    words = words_of_sender(tuple(options))
    return Fetch(client, name, words, base), tuple(options)


@functools.cache
def words_of_sender(options: tuple[str, ...]) -> tuple[str, ...]:
    """The words that our rsync would send to start the other side with.

    They depend on its version. It is asked, by a remote shell that only shows them.
    """
    shell = join_for_rsync(bridge.showing_words())
    argv = [str(_rsync()), *options, "-e", shell, f"{_HOST}:./", "/"]
    shown = process.run(argv, tolerate=range(-64, 256), timeout_s=LEARN_S)
    for line in shown.stderr.decode("utf-8", "replace").splitlines():
        words = line.split(" ")
        if words[:3] == [_HOST, "rsync", "--server"]:
            return tuple(words[2:])
    raise ToolError("rsync does not say how it starts the other side")


def command(options: tuple[str, ...], fetching: Fetching) -> rsync_args.ServerCommand:
    """Our rsync's command for a session with the other side's."""
    shell = join_for_rsync(bridge.words(*fetching.fds))
    return rsync_args.ServerCommand(
        (*options, "-e", shell, f"{_HOST}:./", "./"),
        is_dry_run=False,
        deletes=True,
        fds=fetching.fds,
        helpers=tuple(bridge.grants()),
        output=fetching.output,
    )


def _rsync() -> Path:
    program = which(runner.PROGRAM, path=process.SEARCH_PATH)
    if program is None:
        raise NotSetUpError("this server has no rsync", hint="install rsync")
    return Path(program).resolve()


def _block_size(current: Path) -> int | None:
    """rsync's block size, which follows the largest file that may change (D27)."""
    least = 4096 * MAX_BLOCKS
    argv = ["find", str(current), "-xdev", "-type", "f", "-size", f"+{least // 512}b"]
    found = process.run([*argv, "-printf", "%s\\n"], tolerate=range(256))
    sizes = [int(word) for word in found.text.split() if word.isdigit()]
    size = 4096
    while max(sizes, default=0) > size * MAX_BLOCKS:
        size *= 2
    return size if size <= rsync_args.MAX_BLOCK_SIZE else None


def failure(
    line: Line, client: str, name: str, status: int, said: Said
) -> BytebackError:
    """The error for a transfer that did not come to its end."""
    told = line.failure(said) if said.status != 0 else None
    if told is not None:
        return told
    how = MEANINGS.get(status, f"rsync {process.describe_status(status)}")
    return ToolError(
        f"{quote(f'{client}/{name}')} was not brought: {how}",
        hint="the next round goes on with it",
        details=said.lines[-process.DETAIL_LINES :],
        status=status,
    )
