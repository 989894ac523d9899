"""Writes a new server.toml: how transfers are confined, and who owns snapshots."""

from __future__ import annotations

from collections.abc import Iterator

from byteback.server.setup.steps import Outcome, StepRunner, found, warning
from byteback.server.store import settings
from byteback.server.store.layout import USER
from byteback.system import accounts, files
from byteback.system.confinement import sandbox

HEADER = """\
# Settings of the backup server: see byteback(7).
"""
CONFINED = """
# byteback-setup-server found that transfers can be confined here, so that none is
# served should that ever fail. With "auto" they would go on without.
confinement = "require"
"""
SEALED = """
# Pruning runs as root, which makes all snapshots its own: the user byteback can read
# them, and neither change nor delete them.
sealed = true
"""


def provide_policy(runner: StepRunner, *, with_schedule: bool) -> Iterator[Outcome]:
    """Say what confines transfers; where something does, require it from now on.

    Where pruning is scheduled as root, it seals the snapshots (D29). A server.toml
    that is there already is left alone: it is the administrator's.
    """
    user = accounts.find_user(USER)  # none yet, in a dry run
    sentence = sandbox.describe(user.pw_name if user is not None else None)
    parts = {}
    if sandbox.is_available():
        yield found(sentence)
        parts["require that"] = CONFINED
    else:
        yield warning(sentence)
    if with_schedule:
        parts["have root seal snapshots"] = SEALED
    yield from _check_settings()
    if parts and not settings.PATH.exists():
        text = HEADER + "".join(parts.values())
        what = " and ".join(parts)
        yield runner.do(f"{what} in {settings.PATH}", lambda: _write(text))


def _check_settings() -> Iterator[Outcome]:
    """Name each key of server.toml that has no effect, and what follows from that."""
    for fault in settings.faults():
        what = "its default holds instead"
        if fault.is_safety:
            what = "until that is put right, no client is served, and nothing is pruned"
        hint = f" ({fault.error.hint})" if fault.error.hint else ""
        yield warning(f"{settings.PATH}: {fault.error.message}{hint}; {what}")


def _write(text: str) -> None:
    # The byteback user reads it, and on a client of itself the key beside it is 0600.
    settings.PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write_atomically(settings.PATH, text.encode())
