"""Setting this machine up as a client: a name, a key, an introduction, the proof."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from byteback import locking
from byteback.client.settings import Files, read_text
from byteback.client.setup import client_key, invited, schedule
from byteback.client.setup.introduction import Applicant, Introduction, Options
from byteback.client.setup.invited import Invited
from byteback.client.setup.questions import Questions
from byteback.client.setup.schedule import Schedule
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import BytebackError, NotSetUpError, UsageError, quote
from byteback.model.destination import Destination, format_destination
from byteback.model.hostname import check_host_name, is_same_host
from byteback.system import files as system_files
from byteback.system import host, process

ONCE = RetryPolicy(number=0)  # a person is there to try again
PROGRAMS = ("ssh", "ssh-keygen", "rsync")
# In /etc/byteback: the name that the server knows us by, and the one that the machine
# itself had then.
NAME_FILE = "hostname"
OWN_NAME_FILE = "own-hostname"


@dataclass(frozen=True)
class Outcome:
    """The result of set-up, proved by a request with the new key."""

    result: str  # "enrolled", "already", "replaced" or "modernised"
    host: str
    server: str
    server_version: str
    fingerprint: str  # of this machine's key
    server_fingerprint: str  # of the server's
    schedule: Schedule
    was_other: bool = False  # the server knew another machine by this key


def set_up_client(
    files: Files, destination: Destination, options: Options, questions: Questions
) -> Outcome:
    """Make this machine a client of the server; harmless when done again.

    ``destination`` and the machine's name are remembered only after a ping with the
    machine's own key through OpenSSH was answered. Raises UnreachableError,
    RefusedError, NotSetUpError or another BytebackError, each with a clear sentence.
    """
    _check_programs()
    _prepare_directory(files.directory)
    former = _former_name(files)
    own = (read_text(files.directory / OWN_NAME_FILE) or "").strip() or None
    name = choose_name(former, options.hostname, questions, own)
    # A new name is a new client, and gets a new key: the old one stays bound to the
    # old name, and in force until the new one has proved itself.
    old_name = former if former != name and options.key.exists() else None
    path = options.key
    if old_name is not None:
        path = path.with_name(f"{path.name}.{name}.new")
    key = client_key.ensure_key(path, name)
    applicant = Applicant(files, destination, name, path, key)
    introduction: Introduction | Invited = Introduction(applicant, options, questions)
    policy = ONCE
    if options.invitation is not None:
        introduction, policy = Invited(applicant, options.invitation), invited.POLICY
    reply = retrying(introduction.make, policy)
    hello = retrying(applicant.prove, policy)
    was_other = retrying(partial(applicant.claim, hello), policy)
    if old_name is not None:
        client_key.put_in_force(path, options.key, old_name)
    # What waits for the file "destination" must not start if it is not wanted.
    schedule.hold(options.schedule)
    _remember(files, destination, hello.host)
    return Outcome(
        reply.result,
        hello.host,
        format_destination(destination),
        hello.byteback,
        key.fingerprint,
        introduction.server_fingerprint,
        schedule.arrange(options.schedule),
        was_other,
    )


def choose_name(
    former: str | None,
    given: str | None,
    questions: Questions,
    former_own: str | None = None,
) -> str:
    """The name to enrol under: ``given``, else the ``former`` one, else its own.

    A machine that was renamed since (``former_own`` is what it was called when it was
    last set up) is asked about. Raises UsageError if there is no terminal to ask on, or
    no usable name.
    """
    name = check_host_name(given if given is not None else host.full_host_name())
    if former is not None and former != name and is_same_host(former, name):
        return former
    if given is not None or former in (None, name):
        if given is None and name.partition(".")[0] == "localhost":
            raise UsageError(
                f"this machine is called {quote(name)}, like any other",
                hint="give it a name of its own, or say --hostname NAME",
            )
        return name
    former = check_host_name(former or "")
    if name == former_own:
        return former
    if not questions.can_confirm():
        raise UsageError(
            f"this machine was enrolled as {quote(former)}, and is now {quote(name)}",
            hint=f"--hostname {former} goes on with the history it has, "
            f"--hostname {name} begins a new one",
        )
    is_new = questions.confirm(
        f"This machine was enrolled as {former}, and is now called {name}.\n"
        f"Begin a new history as {name}? (No goes on as {former}.)"
    )
    return name if is_new else former


def _check_programs() -> None:
    """Raise NotSetUpError, naming the packages, without what backups need."""
    missing = [name for name in PROGRAMS if not process.has_program(name)]
    if missing:
        packages = {process.PROGRAM_PACKAGES[name] for name in missing}
        raise NotSetUpError(
            f"not installed here: {', '.join(missing)}",
            hint=f"on Debian and Ubuntu: apt-get install {' '.join(sorted(packages))}",
        )


def _prepare_directory(directory: Path) -> None:
    # Only the key in it is secret. A user who restores reads the rest, and so does the
    # store's user where a server backs itself up: its server.toml is in there, too.
    with locking.map_os_errors(directory):
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o755)  # whatever root's umask
    locking.make_private_directory(directory)


def _former_name(files: Files) -> str | None:
    text = (read_text(files.directory / NAME_FILE) or "").strip()
    return check_host_name(text) if text else None


def _remember(files: Files, destination: Destination, name: str) -> None:
    try:
        for path, text in (
            (files.directory / NAME_FILE, name),
            (files.directory / OWN_NAME_FILE, host.full_host_name()),
            (files.destination, format_destination(destination)),
        ):
            if read_text(path) != f"{text}\n":
                system_files.write_atomically(path, f"{text}\n".encode())
    except OSError as error:
        raise BytebackError(
            f"cannot write in {quote(str(files.directory))}: {error.strerror}",
            hint="the server knows this machine now: make room and run this again",
        ) from None
