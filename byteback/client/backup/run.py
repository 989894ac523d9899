"""One backup, from the lock to the last hook."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from byteback import locking
from byteback.client.backup import (
    acquaintance,
    changes,
    following,
    hook_words,
    last_run,
    many_links,
    narrowing,
    notices,
    push,
    rules,
    selections,
)
from byteback.client.backup.again import Again
from byteback.client.backup.largest_file import (
    LargestSeen,
    choose_block_size,
    read_largest,
    remember_largest,
)
from byteback.client.backup.lost_acls import LostAcls, scan
from byteback.client.backup.own_attributes import OwnAttributes
from byteback.client.backup.rules import Request, Selection
from byteback.client.backup.shortfall import Shortfall
from byteback.client.record.keeper import Place, Round
from byteback.client.settings import (
    RUN_DIRECTORY,
    Files,
    check_key,
    read_compression,
    read_destination,
    read_full_every_days,
    read_io_timeout,
    read_rsync_flags,
)
from byteback.client.transport import compression, early
from byteback.client.transport.connection import Connection, connect
from byteback.client.transport.identity import introduce
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import BytebackError, MovedError
from byteback.model.destination import Destination, format_destination
from byteback.model.size import format_count, format_size
from byteback.system import hooks, privilege, signals
from byteback.system.rsync.command import Outcome, Progress
from byteback.wire import requests
from byteback.wire.replies import Completion, Hello, parse_completion

logger = logging.getLogger(__name__)

DEFAULT_IO_TIMEOUT_S = 10800


@dataclass(frozen=True)
class Options:
    """The options of the command line; None where a file or default decides."""

    destination: str | None = None
    sources: Sequence[str] = ("/",)
    excludes: Sequence[str] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    io_timeout_s: int | None = None
    key: Path | None = None
    compress: str | None = None  # one of settings.COMPRESSION
    dry_run: bool = False
    full: bool = False
    files: Files = field(default_factory=Files)
    record: Place = field(default_factory=Place)
    on_progress: Callable[[Progress], None] | None = None
    on_line: Callable[[str], None] | None = None
    # A notice that a person should read once.
    on_notice: Callable[[str], None] = logger.warning
    confirm: Callable[[str], bool] | None = None  # None: nobody is there to ask


@dataclass(frozen=True)
class Job:
    """A backup that has passed every check that needs no network."""

    destination: Destination
    key: Path
    io_timeout_s: int
    compress: str
    options: Options
    sources: Sequence[str]  # absolute, without links above them
    selection: Selection = field(default_factory=Selection)  # made when hooks have run


@dataclass(frozen=True)
class Summary:
    """The result of a backup."""

    outcome: Outcome
    duration_s: float
    completion: Completion | None  # None after a dry run
    missing: Shortfall | None = None

    def sentence(self) -> str:
        """One line for the log and for a person who watches."""
        sent = f"{self.outcome.files_sent} of {self.outcome.files} files sent"
        size = format_size(self.outcome.bytes_sent)
        took = format_count(round(self.duration_s), "second")
        text = f"{sent} ({size}) in {took}"
        if self.completion is None:
            return f"dry run: {text}; nothing was changed"
        if self.completion.snapshot is not None:
            return f"backup complete: {text}; snapshot {self.completion.snapshot}"
        newest = self.completion.newest or "none"
        return f"backup complete: {text}; no new snapshot was due (newest: {newest})"


def run_backup(options: Options) -> Summary:
    """Back up this machine.

    Raises IncompleteBackupError when all is done but some files could not be read,
    and other BytebackErrors when the backup failed. The finally-hooks have run by
    then in every case, an interrupt included.
    """
    privilege.require_root("only root can read a whole machine")
    hook_words.warn_of_ignored(options.files.directory)
    with locking.hold(RUN_DIRECTORY / "backup.lock"):
        if not options.dry_run:
            return _with_finally_hooks(options)
        job = _with_selection(prepare(options))
        with connect(job.destination, job.key, options.files.known_hosts) as there:
            greeting = _greet(job, there)
            _check_coverage(job, greeting.hello)
            return _transfer(job, there, greeting, time.monotonic())


def prepare(options: Options) -> Job:
    """Read the configuration and check it; nothing is sent yet."""
    files = options.files
    destination = read_destination(files, options.destination)
    key = check_key(options.key or files.key)
    io_timeout_s = read_io_timeout(files, options.io_timeout_s, DEFAULT_IO_TIMEOUT_S)
    compress = read_compression(files, options.compress)
    sources = rules.check(files, Request(options.sources, options.excludes))
    return Job(destination, key, io_timeout_s, compress, options, sources)


def _check_coverage(job: Job, hello: Hello) -> None:
    """Tell, or ask, before the server's copy loses what this run does not cover."""
    options = job.options
    before = narrowing.covered(hello, is_usual=options.destination is None)
    ask = None if options.dry_run else options.confirm
    narrowing.check(before, job.sources, ask, options.on_notice)


def _with_selection(job: Job) -> Job:
    """The job with what is to be sent, as this machine is now; tells what is not.

    Hooks may have mounted what is to be left out, or what is to be sent.
    """
    options = job.options
    request = Request(options.sources, options.excludes)
    selection = rules.select(options.files, request)
    news = notices.news(selection.left_out)
    if news:
        options.on_notice(notices.sentence(news))
    unmounted = narrowing.unmounted(selection.sources)
    if unmounted is not None:
        options.on_notice(unmounted)
    if not options.dry_run:
        notices.note(selection.left_out)
    return replace(job, selection=selection)


def _greet(job: Job, connection: Connection) -> compression.Greeting:
    """Test the connection, as often as it takes, and see how much it carries."""
    flags = read_rsync_flags(job.options.files)
    return retrying(
        lambda: compression.greet(connection, job.compress, flags),
        job.options.retry,
        renew=connection.renew,
    )


def _meet(job: Job, connection: Connection) -> compression.Greeting:
    """Greet the server, and tell or ask what its copy is about to lose."""
    greeting = _greet(job, connection)
    hello = greeting.hello
    logger.debug("server: byteback %s, client %s", hello.byteback, hello.host)
    _check_coverage(job, hello)
    return greeting


def _recall(job: Job) -> compression.Greeting | None:
    """The greeting of the last backup, where this one may go by it."""
    options = job.options
    if options.full or hooks.find_hooks(options.files.directory / hook_words.PRE):
        return None  # hooks begin when the server is known to be there
    return acquaintance.recall(options.record, _way(job))


def _way(job: Job) -> acquaintance.Way:
    return acquaintance.Way(format_destination(job.destination), job.compress)


def _with_finally_hooks(options: Options) -> Summary:
    directory = options.files.directory / hook_words.FINALLY
    told: dict[str, str] = {}
    try:
        summary = _back_up_where_it_is(options, told)
    except BaseException as error:
        last_run.note_failure(error)
        told |= hook_words.outcome_environment(error)
        try:
            with signals.rearm_signals():
                hooks.run_all_hooks(directory, told)
        except BytebackError as hook_error:
            # The first failure is the one to be told about; this one is logged.
            logger.error("%s", hook_error.message)
        raise
    last_run.note_success(told.get("BYTEBACK_SNAPSHOT"))
    told |= {"BYTEBACK_RESULT": "success", "BYTEBACK_EXIT_STATUS": "0"}
    hooks.run_all_hooks(directory, told)
    return summary


def _back_up_where_it_is(
    options: Options, told: dict[str, str], moves: int = following.MOST
) -> Summary:
    """Back up, and follow the server's word to where it has moved this machine."""
    job = prepare(options)
    told["BYTEBACK_DESTINATION"] = format_destination(job.destination)
    try:
        return _back_up(job, told)
    except MovedError as error:
        if not moves or options.dry_run:
            raise
        here = following.Here(job.destination, job.key, options.retry, options.files)
        is_given = options.destination is not None
        following.follow(here, error, options.on_notice, is_given=is_given)
    return _back_up_where_it_is(options, told, moves - 1)


def _back_up(job: Job, told: dict[str, str]) -> Summary:
    started = time.monotonic()
    options = job.options
    directory = options.files.directory
    with connect(job.destination, job.key, options.files.known_hosts) as connection:
        greeting = _recall(job) or _meet(job, connection)
        hooks.run_hooks(directory / hook_words.PRE, told)
        job = _with_selection(job)
        summary = _transfer(job, connection, greeting, started)
    completion = summary.completion
    if completion is not None and completion.snapshot is not None:
        told["BYTEBACK_SNAPSHOT"] = completion.snapshot
    logger.info("%s", summary.sentence())
    if summary.missing:
        raise summary.missing.error()
    hooks.run_hooks(directory / hook_words.POST, told | {"BYTEBACK_RESULT": "success"})
    return summary


def _transfer(
    job: Job, connection: Connection, greeting: compression.Greeting, started: float
) -> Summary:
    options = job.options
    largest = read_largest()
    selection = job.selection
    seen, lost = LargestSeen(largest or 0), LostAcls(selection.foreign)
    own = OwnAttributes(selection.foreign)

    def hear(line: str) -> None:
        seen.take(line)
        lost.take(line)
        own.take(line)

    if not options.dry_run:
        own.begin()
    with contextlib.ExitStack() as stack:
        # Where a ping came first, there is a connection already.
        line = early.connecting(connection) if greeting.is_recalled else nullcontext()
        with line as made:
            is_first = largest is None
            round_ = stack.enter_context(_round(job, greeting, is_first=is_first))
        is_unasked = made is not None and made.is_made
        words = hear if options.on_line is None else options.on_line
        main = _Push(job, connection, round_, largest, words)
        sender, greeting, outcome = main.send(greeting, is_unasked=is_unasked)
        connection = sender.connection
        if options.dry_run:
            seconds = time.monotonic() - started
            return Summary(outcome, seconds, None, Shortfall(outcome, own.paths))
        sent_again = _again(job, connection, round_)
        outcome = sent_again.complete_links(outcome)
        remember_largest(selection, largest, seen.size, outcome)
        # Nothing was printed of a first backup.
        names = lost.names
        if largest is None:
            names = scan(selection.sources, selection.foreign)
        sent_again.send_acls(names)
        own.look_at_all(selection)
        missing = Shortfall(outcome, own.paths)
        told = sender.missed if options.full or sender.missed else None
        request = _request(missing, round_, told, with_details=greeting.hello.details)
        if greeting.hello.details:
            request = request._replace(sources=selection.sources)
        round_.server = acquaintance.note(greeting, _way(job))
        completion = _complete(job, connection, missing, round_, request)
    own.end()
    return Summary(outcome, time.monotonic() - started, completion, missing)


@dataclass(frozen=True)
class _Push:
    """The main transfer of a backup."""

    job: Job
    connection: Connection
    round_: Round
    largest: int | None  # bytes of the largest file sent so far; None: a first backup
    on_line: Callable[[str], None]

    def send(
        self, greeting: compression.Greeting, *, is_unasked: bool
    ) -> tuple[changes.Sender, compression.Greeting, Outcome]:
        """Send it, and greet the server if it turns out to need that (D53)."""
        sender = self._sender(greeting)
        if greeting.is_recalled:
            outcome = sender.send_unasked(self.round_) if is_unasked else None
            if outcome is not None:
                return sender, greeting, outcome
            greeting = _meet(self.job, self.connection)
            self.round_.meet(greeting.hello.tree)
            sender = self._sender(greeting)
        return sender, greeting, sender.send(self.round_)

    def _sender(self, greeting: compression.Greeting) -> changes.Sender:
        options = self.job.options
        connection = introduce(self.connection, greeting.hello)
        return changes.Sender(
            _push_argv(
                self.job, connection, greeting, self.round_.number, self.largest
            ),
            connection,
            options.retry,
            self.on_line,
            options.on_progress,
            self.job.selection.hidden,
        )


def _again(job: Job, connection: Connection, round_: Round) -> Again:
    retry = job.options.retry
    return Again(connection, job.selection, job.io_timeout_s, retry, round_)


def _push_argv(
    job: Job,
    connection: Connection,
    greeting: compression.Greeting,
    number: str | None,
    largest: int | None,
) -> list[str]:
    """rsync's command line for this backup; ``largest`` of None is a first one."""
    options = job.options
    argv = push.push_argv(
        connection,
        job.selection,
        job.io_timeout_s,
        dry_run=options.dry_run,
        with_progress=options.on_progress is not None,
        # That costs a first backup a tenth of its time; a look later tells as much.
        with_sizes=largest is not None,
        block_size=None if largest is None else choose_block_size(largest),
        compress=greeting.compresses,
        number=number,
    )
    argv[1:1] = many_links.options()
    return argv


def _round(
    job: Job, greeting: compression.Greeting, *, is_first: bool
) -> AbstractContextManager[Round]:
    """This backup's dealings with the record of what was sent."""
    options = job.options
    reason = "--full was given" if options.full else None
    if is_first:  # or the first one after an upgrade
        reason = "nothing is known of the files yet"
    hello = greeting.hello
    if options.dry_run:
        hello = hello._replace(tree=None)
    days = read_full_every_days(options.files)
    return changes.begin(job.selection, hello, reason, days, options.record)


def _request(
    missing: Shortfall, round_: Round, missed: int | None, *, with_details: bool
) -> requests.Complete:
    """The request at the end of this backup; older servers refuse the details."""
    outcome = missing.outcome
    size = round_.count_size(outcome.size)
    return requests.Complete(
        json=True,
        incomplete=bool(missing),
        files=outcome.files_sent,
        push=round_.number,
        missed=missed,
        size=size if with_details else None,
        clock=int(time.time()) if with_details else None,
    )


def _complete(
    job: Job,
    connection: Connection,
    missing: Shortfall,
    round_: Round,
    request: requests.Complete,
) -> Completion:
    """Tell the server that all is sent, and remember what that was."""
    options = job.options

    def ask() -> str:
        # A later attempt comes at another time.
        clock = None if request.clock is None else int(time.time())
        return connection.request(request._replace(clock=clock)).text

    answer = retrying(ask, options.retry, renew=connection.renew)
    completion = parse_completion(answer)
    chosen = selections.choose(options.sources, options.excludes)
    selections.note(chosen, completion.snapshot)
    narrowing.note_discs(job.selection.discs)
    if completion.tree and not missing:
        round_.finish(completion.tree)
        if options.full and not request.missed:
            changes.forget_missed()
    return completion
