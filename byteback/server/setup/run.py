"""Makes this machine a backup server, step by step, as often as one likes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from byteback import locking
from byteback.errors import BytebackError, quote
from byteback.model.destination import Destination, format_destination
from byteback.server.setup import (
    checks,
    confinement,
    gateway,
    keys,
    mark,
    old_store,
    schedule,
)
from byteback.server.setup import home as setup_home
from byteback.server.setup import store as setup_store
from byteback.server.setup.steps import Choice, Directory, Kind, Outcome, StepRunner
from byteback.server.store import mounting
from byteback.server.store.layout import USER, Store
from byteback.system import host, privilege

LOCK = Path("/run/byteback/setup-server.lock")


@dataclass(frozen=True)
class SetupRequest:
    """The administrator's request."""

    choice: Choice | None = None  # None: check and repair what is there
    mount_point: Path | None = None
    admin_keys: tuple[str, ...] = ()  # files of public keys, "-" for standard input
    with_schedule: bool = True
    dry_run: bool = False


def set_up(request: SetupRequest) -> Iterator[Outcome]:
    """Take every step that is still due, yielding what became of each.

    Each step looks first, so that a run that was cut off anywhere is finished by the
    next. Raises a BytebackError at the first step that fails; refusals that can be
    as_expected_error come before anything is changed.
    """
    privilege.require_root("only root can set a server up")
    try:
        yield from _set_up(request)
    except OSError as error:
        what = f"{quote(str(error.filename))}: " if error.filename else ""
        raise BytebackError(
            f"cannot go on: {what}{error.strerror}",
            hint="put that right and run this again",
        ) from error


def _set_up(request: SetupRequest) -> Iterator[Outcome]:
    checks.check_programs(request.choice)
    admin_keys = keys.read_admin_keys(request.admin_keys)
    home = setup_home.choose_home(request.choice, request.mount_point)
    if isinstance(request.choice, Directory):
        setup_home.check_takeover(home)
    with _one_at_a_time(request):
        yield from _steps(request, home, admin_keys)
    yield from _next_steps(Store(home), bool(admin_keys))


def _steps(
    request: SetupRequest, home: Path, admin_keys: list[str]
) -> Iterator[Outcome]:
    runner = StepRunner(request.dry_run)
    yield from setup_store.provide(request.choice, home, runner)
    if setup_store.is_there(home) and not mounting.find_unmounted(home):
        mark.check_mark(Store(home), is_named=request.choice is not None)
        gateway.check_owner(home)
    yield from setup_home.provide_user(home, runner)
    if request.dry_run and not setup_store.is_there(home):
        yield Outcome(Kind.WOULD, f"see to owners and modes in {quote(str(home))}")
    else:
        yield from setup_home.provide_layout(home, runner)
    yield from keys.provide_admin_keys(Store(home), admin_keys, runner)
    if setup_store.is_there(home):
        yield from mark.provide_mark(Store(home), runner)
        yield from mark.note_clock(Store(home), runner)
        yield from old_store.modernise(Store(home), runner)
    if request.with_schedule:
        for job in schedule.JOBS:
            program = host.program_path(job.program)
            yield from schedule.provide_schedule(job, program, runner)
    yield from checks.check_sshd()
    yield from checks.check_reach(host.program_path("byteback-receive"))
    yield from confinement.provide_policy(runner, with_schedule=request.with_schedule)
    if setup_store.is_there(home):
        yield from gateway.compare(Store(home), runner)


@contextlib.contextmanager
def _one_at_a_time(request: SetupRequest) -> Iterator[None]:
    if request.dry_run:
        yield
        return
    with locking.hold(LOCK):
        yield


def _next_steps(store: Store, has_keys: bool) -> Iterator[Outcome]:
    port = checks.sshd_port()
    where = Destination(
        USER, host.full_host_name(), None if port == checks.SSH_PORT else port
    )
    yield Outcome(
        Kind.NEXT,
        "on each machine to be backed up: "
        f"sudo byteback-setup-client --destination {format_destination(where)}",
    )
    if not setup_store.is_there(store.root):
        return
    if has_keys or keys.has_admin_key(store):
        yield Outcome(
            Kind.NEXT, "an administrator whose key is known here can do that from there"
        )
        return
    yield Outcome(
        Kind.NEXT,
        "no key may enrol clients yet: let yours do so with "
        "sudo byteback-setup-server --admin-key FILE.pub, or enrol each client here: "
        f"sudo {keys.PROGRAM} NAME 'LINE OF ITS /etc/byteback/key.pub'",
    )
