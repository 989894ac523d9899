"""/etc/byteback/server.toml: every key optional, each checked by itself.

A key that is unknown or has a value of no use keeps no client from making backups: its
default holds instead, and every program says so. Only where safety depends on a key, a
misspelt one included, nothing is served (D44).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from byteback import log
from byteback.errors import UsageError, escape, quote
from byteback.model.hostname import is_same_host

PATH = Path("/etc/byteback/server.toml")


class ServerSettings(NamedTuple):
    """Settings of an administrator; the defaults suit a server left alone."""

    snapshot_interval_hours: float = 6.0  # a younger newest snapshot refuses a new one
    min_percent: float = 5.0  # free space at or below which pruning starts
    max_percent: float = 10.0  # free space at which pruning stops
    growth_factor: float = 2.0  # times the largest of ten: a backup suddenly larger,
    growth_percent: float = 1.0  # if it takes this much of the store as well
    shrink_factor: float = 2.0  # as many times fewer names: one suddenly smaller
    max_transfers: int = 20  # at once, over all clients
    io_timeout_s: int = 10800  # the longest silence that a transfer may ask for
    confinement: str = "auto"  # "auto", "require" or "off"
    sealed: bool = False  # whether pruning as root makes snapshots root's (D29)
    expect_hours: float = -1.0  # until a client is stale; 0: never, -1: by its habit
    replica_clients: int = 5000  # that each first server may have here
    replica_snapshots: int = 5000  # that each client of theirs may have here


class StatusSettings(NamedTuple):
    """``[status]``: where byteback-status --notify tells about the clients."""

    prometheus_file: str = ""  # absolute; "" stands for none
    html_directory: str = ""
    mail_to: str = ""  # addresses, separated by commas


CONFINEMENTS = ("auto", "require", "off")
GROWTH = ("growth_factor", "growth_percent", "shrink_factor")
MAX_HOURS = 24 * 366 * 10
MAX_FACTOR = 10**6  # as good as never
MAX_NUMBER = 2**31 - 1  # what rsync takes for a time-out
RANGES: dict[str, tuple[int, int]] = {
    "snapshot_interval_hours": (0, MAX_HOURS),
    "min_percent": (0, 100),
    "max_percent": (0, 100),
    "growth_factor": (1, MAX_FACTOR),
    "growth_percent": (0, 100),
    "shrink_factor": (1, MAX_FACTOR),
    "max_transfers": (1, MAX_NUMBER),
    "io_timeout_s": (1, MAX_NUMBER),
    "expect_hours": (0, MAX_HOURS),
    "replica_clients": (1, MAX_NUMBER),
    "replica_snapshots": (1, MAX_NUMBER),
}
PER_HOST = frozenset(
    {"snapshot_interval_hours", "io_timeout_s", "expect_hours", *GROWTH}
)
SAFETY = ("confinement", "sealed")  # never replaced by their defaults
_MEANT = ("confin", "seal")  # what a misspelt one of these most likely holds
SIMILAR = 0.75  # as difflib counts: "cofnmement", "saeled", but not "example"


class Fault(NamedTuple):
    """A key of server.toml that has no effect, and why."""

    error: UsageError
    key: str
    host: str | None = None  # whose table it is in
    is_safety: bool = False  # nothing is served until it is put right

    def is_about(self, client: str | None) -> bool:
        """True if the settings of ``client`` lack the key."""
        if self.host is None or client is None:
            return self.host is None
        return is_same_host(self.host, client)


class Interpretation(NamedTuple):
    """The meaning of a server.toml."""

    common: ServerSettings
    hosts: dict[str, ServerSettings]  # by names in lower case
    faults: list[Fault]

    def of(self, client: str | None) -> ServerSettings:
        """The settings in force for a host, or for none."""
        return self.hosts.get((client or "").lower(), self.common)


_told: set[str] = set()


def load(client: str | None = None, path: Path = PATH) -> ServerSettings:
    """The settings in force for ``client``: its ``[host.NAME]`` table beats the top.

    A missing file means the defaults, and so does a key that has a fault; each one is
    logged once. Raises UsageError for a file that is no TOML, and for a fault on which
    safety depends.
    """
    found = interpret(_read(path))
    _refuse_unsafe(found.faults)
    _log([fault for fault in found.faults if fault.is_about(client)])
    return found.of(client)


def load_all(hosts: Iterable[str], path: Path = PATH) -> dict[str, ServerSettings]:
    """The settings of several hosts, for which the file is read once."""
    found = interpret(_read(path))
    _refuse_unsafe(found.faults)
    return {client: found.of(client) for client in hosts}


def has_table(client: str, path: Path = PATH) -> bool:
    """True if ``client`` has a table of its own. Raises UsageError for no TOML."""
    return client.lower() in interpret(_read(path)).hosts


def load_status(path: Path = PATH) -> StatusSettings:
    """The table ``[status]``; raises UsageError for any fault in it."""
    return parse_status(_read(path))


def faults(path: Path = PATH) -> list[Fault]:
    """All that is wrong with the file, for programs that tell an administrator."""
    try:
        table = _read(path)
    except UsageError as error:
        return [Fault(error, "", is_safety=True)]
    found = list(interpret(table).faults)
    try:
        parse_status(table)
    except UsageError as error:
        found.append(Fault(error, "status"))
    return found


def refuse(found: Sequence[Fault]) -> None:
    """Raise UsageError for faults, if there are any: the first, and how many more."""
    if found:
        error = found[0].error
        more = len(found) - 1
        message = error.message + (f" (and {more} more such keys)" if more else "")
        raise UsageError(message, error.hint)


def parse(table: Mapping[str, Any], client: str | None = None) -> ServerSettings:
    """Turn a TOML table into settings; raises UsageError for any fault."""
    found = interpret(table)
    refuse(found.faults)
    return found.of(client)


def interpret(table: Mapping[str, Any]) -> Interpretation:
    """Read a TOML table, with the default for each key that has a fault."""
    own = {key: value for key, value in table.items() if key not in {"host", "status"}}
    common, faults_ = _apply(ServerSettings(), own, None)
    tables = table.get("host", {})
    if not isinstance(tables, dict):
        error = UsageError("'host' must hold tables: [host.\"NAME\"]")
        return Interpretation(common, {}, [*faults_, Fault(error, "host")])
    hosts: dict[str, ServerSettings] = {}
    for client, overrides in tables.items():
        if not isinstance(overrides, dict):
            error = UsageError(f"'host' must hold tables, and {quote(client)} is none")
            faults_.append(Fault(error, client, client))
            continue
        settings, more = _apply(common, overrides, client)
        hosts.setdefault(client.lower(), settings)
        faults_ += more
    return Interpretation(common, hosts, faults_)


def parse_status(table: Mapping[str, Any]) -> StatusSettings:
    """Turn ``[status]`` of a TOML table into settings; raises UsageError."""
    own = table.get("status", {})
    if not isinstance(own, dict):
        raise UsageError("'status' must be a table: [status]")
    for key, value in own.items():
        if key not in StatusSettings._fields:
            raise UsageError(
                f"[status]: unknown key {quote(key)} in server.toml",
                hint=f"known are: {', '.join(StatusSettings._fields)}",
            )
        if not isinstance(value, str) or not value.isprintable():
            raise UsageError(f"[status]: {quote(key)} cannot be {value!r}")
        if key != "mail_to" and value and not value.startswith("/"):
            raise UsageError(f"[status]: {quote(key)} must begin with /")
        if key == "mail_to" and value.startswith("-"):
            raise UsageError("[status]: 'mail_to' must be an address")
    return StatusSettings(**own)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {quote(str(path))}: {error.strerror}") from None
    import tomllib

    try:
        return tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{quote(str(path))} is no valid TOML: {error}") from None


def _apply(
    base: ServerSettings, table: Mapping[str, Any], client: str | None
) -> tuple[ServerSettings, list[Fault]]:
    """``base`` with what a table says, and the keys of it that say nothing."""
    found = []
    good = {}
    for key, value in table.items():
        error = _error_of(key, value, client)
        if error is None:
            good[key] = value
        else:
            found.append(Fault(error, key, client, _is_about_safety(key)))
    changed = base._replace(**good)
    if not changed.min_percent < changed.max_percent:
        error = UsageError(
            f"min_percent ({changed.min_percent:g}) must be below max_percent "
            f"({changed.max_percent:g})"
        )
        found.append(Fault(error, "min_percent", client))
        defaults = {key: getattr(base, key) for key in ("min_percent", "max_percent")}
        changed = changed._replace(**defaults)
    return changed, found


def _error_of(key: str, value: object, client: str | None) -> UsageError | None:
    """Why a key has no effect; None if it has."""
    where = "" if client is None else f"host {quote(client)}: "
    known = ServerSettings._field_defaults
    if client is not None and key not in PER_HOST:
        hint = f"per host: {', '.join(sorted(PER_HOST))}"
        if isinstance(value, dict):
            hint = f'names with dots need quotes: [host."{escape(f"{client}.{key}")}"]'
        return UsageError(
            f"{quote(key)} cannot be set for host {quote(client)} alone", hint=hint
        )
    if key not in known:
        return UsageError(
            f"{where}unknown key {quote(key)} in server.toml",
            hint=f"known are: {', '.join(known)}",
        )
    wanted = (int, float) if isinstance(known[key], float) else type(known[key])
    is_bool = isinstance(value, bool)
    if is_bool != (wanted is bool) or not isinstance(value, wanted):
        return UsageError(f"{where}{quote(key)} cannot be {value!r}")
    if key == "confinement" and value not in CONFINEMENTS:
        return UsageError(f"{where}{key} must be one of {', '.join(CONFINEMENTS)}")
    low, high = RANGES.get(key, (0, 0))
    if key in RANGES and value != known[key] and not low <= value <= high:
        return UsageError(f"{where}{key} must be between {low} and {high}")
    return None


def _is_about_safety(key: str) -> bool:
    """True if a key is, or was meant to be, one on which safety depends."""
    from difflib import get_close_matches

    name = key.lower()
    is_close = get_close_matches(name, SAFETY, 1, SIMILAR)
    return bool(is_close) or any(part in name for part in _MEANT)


def _refuse_unsafe(found: Sequence[Fault]) -> None:
    refuse([fault for fault in found if fault.is_safety])


def _log(found: Sequence[Fault]) -> None:
    """Log each fault, once a process: its key has no effect."""
    for message in (fault.error.message for fault in found):
        if message in _told:
            continue
        _told.add(message)
        text = f"{message}: its default holds instead"
        import logging

        if logging.getLogger("byteback").handlers:
            logging.getLogger(__name__).warning("server.toml: %s", text)
        else:  # byteback-receive, which has none
            log.audit("WARNING", what="server.toml", reason=text)
