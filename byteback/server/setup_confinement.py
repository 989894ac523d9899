"""What will hold a client's transfer, and that nothing is served without it."""

from __future__ import annotations

from collections.abc import Iterator

from byteback.server import settings
from byteback.server.setup_steps import Hands, Outcome, found, warning
from byteback.server.store import USER
from byteback.tools import accounts, files, sandbox

POLICY = """\
# Settings of the backup server: see byteback(7).

# byteback-setup-server found that transfers can be confined here, so that none is
# served should that ever fail. With "auto" they would go on without.
confinement = "require"
"""


def provide_policy(hands: Hands) -> Iterator[Outcome]:
    """Say what confines transfers; where something does, require it from now on.

    A server.toml that is there already is left alone: it is the administrator's.
    """
    user = accounts.find_user(USER)  # none yet, in a dry run
    sentence = sandbox.describe(user.pw_name if user is not None else None)
    if not sandbox.is_available():
        yield warning(sentence)
        return
    yield found(sentence)
    if not settings.PATH.exists():
        yield hands.do(f"require that in {settings.PATH}", _write_policy)


def _write_policy() -> None:
    # The byteback user reads it, and on a client of itself the key beside it is 0600.
    settings.PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write_atomically(settings.PATH, POLICY.encode())
