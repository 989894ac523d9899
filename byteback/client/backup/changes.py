"""Sends what has changed since the last backup, where the record tells that (D40)."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback import __version__
from byteback.client.backup import acquaintance, push, sending, verdict
from byteback.client.backup.rules import Selection
from byteback.client.record import keeper, missed, names_only
from byteback.client.record.keeper import Place, Rhythm, Round
from byteback.client.record.missed import Missed
from byteback.client.record.transfer_list import TransferList
from byteback.client.record.walk import Domain, UnfitError
from byteback.client.settings import RUN_DIRECTORY
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import BusyError, BytebackError, escape
from byteback.model.rsync_names import plain_name
from byteback.model.size import format_count
from byteback.system import mounts
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome, Progress
from byteback.wire import requests
from byteback.wire.failures import Reason
from byteback.wire.replies import Hello

logger = logging.getLogger(__name__)

# Last of all, for --archive and -r in rsync_flags turn the first of them off again.
LIST_OPTIONS = ("--no-recursive", "--dirs", "--force", "--ignore-missing-args")
NAMES_SHOWN = 5
_DELETED = re.compile(r"\d+ \*deleting +(.+)", re.DOTALL)  # of push.SENT_FORMAT


class _OddError(Exception):
    """rsync did something else than it was told."""


def begin(
    selection: Selection,
    hello: Hello,
    full_reason: str | None,
    every_days: int,
    place: Place,
) -> contextlib.AbstractContextManager[Round]:
    """The record's round of one backup."""
    if hello.tree is None:
        return contextlib.nullcontext(Round.without("the server is an older one"))
    if full_reason is None and missed.has_mark():
        full_reason = "an earlier comparison found changes that had been missed"
    try:
        rules, flags = names_only.sort_words(selection.words)
        mark = names_only.fingerprint(
            rules, selection.foreign, [*flags, __version__, *selection.sources]
        )
    except (UnfitError, OSError) as error:
        return contextlib.nullcontext(Round.without(str(error), requests.new_push()))
    domain = Domain(selection.sources, selection.foreign)
    return Round(
        keeper.Selected(rules, mark, domain),
        hello.tree,
        full_reason,
        Rhythm(hello.host, every_days),
        place,
        number=requests.new_push(),
    )


def forget_missed() -> None:
    """An administrator has had everything compared, and nothing was missed."""
    try:
        missed.clear_mark()
    except OSError as error:
        logger.error("cannot note that the record is right again: %s", error)


@dataclass
class Sender:
    """Sends one backup: its changes alone, or all that has to be compared."""

    argv: Sequence[str]  # of a full push
    connection: Connection
    policy: RetryPolicy
    on_line: Callable[[str], None]
    on_progress: Callable[[Progress], None] | None
    hidden: Sequence[str] = ()  # where rsync does not see what is mounted
    missed: int | None = None  # changes that a record turned out not to have told

    def send(self, round_: Round) -> Outcome:
        """Send what ``round_`` says, and see to its end; raises as sending.send."""
        outcome = None
        if round_.partial is not None:
            outcome = self._send_changes(round_, round_.partial)
        if outcome is None:
            outcome = self._compare_all(round_)
        round_.settle()
        return outcome

    def send_unasked(self, round_: Round) -> Outcome | None:
        """Send a few small changes to a server that was not asked before.

        None if there is more to do than that, or if it failed: it is to be asked then,
        and what is left to do is up to ``send``. The line may have been the reason.
        """
        partial = round_.partial
        foreign = round_.selected.domain.foreign
        if partial is None or not acquaintance.is_little(
            partial.names, round_.place.root, foreign
        ):
            return None
        try:
            outcome, why = self._try_changes(round_, partial)
        except BusyError as error:
            outcome, why = None, error.message
        if outcome is None:
            logger.info("asking the server first: %s", why)
            self.connection.renew()
            return None
        round_.settle()
        return outcome

    def _compare_all(self, round_: Round) -> Outcome:
        logger.info("everything is compared: %s", round_.reason)
        watched = round_.watch_full()
        if watched is None:
            return self._send_all(self.on_line)

        def hear(line: str) -> None:
            watched.take(line)
            self.on_line(line)

        outcome = self._send_all(hear)
        if outcome.is_success:
            self._judge(round_, watched)
        return outcome

    def _judge(self, round_: Round, watched: Missed) -> None:
        """Tell of changes that the record has missed. From then on it is not used."""
        names = round_.missed(watched)
        self.missed = len(names)
        if not names:
            return
        logger.error(
            "%s had been missed by earlier backups, /%s among them: every backup "
            "compares all files until byteback-backup --full is run by hand",
            format_count(len(names), "change"),
            ", /".join(escape(name) for name in names[:NAMES_SHOWN]),
        )
        try:
            missed.set_mark(names)
        except OSError as error:
            logger.error("cannot note that: %s", error)
            round_.is_usable = False

    def _send_all(self, on_line: Callable[[str], None]) -> Outcome:
        return sending.send(
            self.argv,
            self.connection,
            self.policy,
            on_progress=self.on_progress,
            on_line=on_line,
            hidden=self.hidden,
        )

    def _send_changes(self, round_: Round, partial: TransferList) -> Outcome | None:
        """Send the names of a list; None if everything has to be compared after all.

        A server that is busy is asked again: more work is no help to it. If it has got
        a part of the names meanwhile, it says that it has another tree.
        """
        outcome, why = retrying(
            lambda: self._try_changes(round_, partial),
            self.policy,
            renew=self.connection.renew,
        )
        if outcome is None:
            round_.go_full(why)
        return outcome

    def _try_changes(
        self, round_: Round, partial: TransferList
    ) -> tuple[Outcome | None, str]:
        """The outcome of sending the names of a list; None, and why, if that failed.

        What goes wrong here harms nothing: a full push comes next, and decides.
        Raises BusyError.
        """
        logger.info("sending %s that changed", format_count(len(partial.names), "name"))

        def hear(line: str) -> None:
            deleted = _DELETED.fullmatch(line)
            if deleted and not partial.may_delete(plain_name(deleted[1]).rstrip("/")):
                raise _OddError(f"it deleted {deleted[1]!r}")
            self.on_line(line)

        try:
            with _files(partial) as (names, gone):
                outcome = command.transfer(
                    partial_argv(
                        self.argv, round_, self.connection.machine, names, gone
                    ),
                    on_line=hear,
                    on_progress=self.on_progress,
                    confine=mounts.hiding(self.hidden),
                )
            verdict.check(outcome, self.connection)
        except (_OddError, BytebackError, OSError) as error:
            if isinstance(error, BusyError) and error.reason != Reason.AT_ONCE:
                raise
            text = error.message if isinstance(error, BytebackError) else error
            return None, f"the changes alone could not be sent: {text}"
        if outcome.status == command.PARTIAL:
            return None, "some of the changes could not be read"
        return outcome, ""


def partial_argv(
    argv: Sequence[str], round_: Round, machine: str | None, names: Path, gone: Path
) -> list[str]:
    """rsync's command line for names in a file, from that of a full push.

    The rules have been heeded when the list was made. Those of the administrator's
    files could not be read here: --from0 changes how such files are split.
    """
    end = argv.index("--")
    options = [word for word in argv[1:end] if not names_only.is_rule(word)]
    program = requests.format_push_program(round_.number, round_.token, machine)
    return [
        argv[0],
        f"--files-from={names}",
        "--from0",
        f"--filter=merge {gone}",
        *(word for word in options if word != "--delete-excluded"),
        f"{push.PROGRAM}{program}",  # the last one counts
        *LIST_OPTIONS,
        *argv[end:],
    ]


@contextlib.contextmanager
def _files(partial: TransferList) -> Iterator[tuple[Path, Path]]:
    """The names and the rules, in files that root alone can read."""
    RUN_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUN_DIRECTORY, prefix="list.") as directory:
        names, gone = Path(directory, "names"), Path(directory, "rules")
        names.write_bytes(partial.names_file())
        gone.write_bytes(partial.rules_file())
        yield names, gone
