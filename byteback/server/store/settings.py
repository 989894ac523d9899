"""/etc/byteback/server.toml: every key optional, unknown ones refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from byteback.errors import UsageError, quote
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
PER_HOST = frozenset(
    {"snapshot_interval_hours", "io_timeout_s", "expect_hours", *GROWTH}
)


def load(host: str | None = None, path: Path = PATH) -> ServerSettings:
    """The settings in force for ``host``: its ``[host.NAME]`` table beats the top.

    A missing file means the defaults. Raises UsageError for a file that is no TOML,
    an unknown key, a value of the wrong kind, or values that contradict each other.
    """
    return parse(_read(path), host)


def load_status(path: Path = PATH) -> StatusSettings:
    """The table ``[status]``; raises UsageError as load does."""
    return parse_status(_read(path))


def load_all(hosts: Iterable[str], path: Path = PATH) -> dict[str, ServerSettings]:
    """The settings of several hosts, for which the file is read once."""
    table = _read(path)
    common = parse(table)
    own = table.get("host", {})
    known = {name.lower() for name in own}
    return {
        host: parse(table, host) if host.lower() in known else common for host in hosts
    }


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


def parse(table: Mapping[str, Any], host: str | None = None) -> ServerSettings:
    """Turn a TOML table into settings; raises UsageError as load does."""
    own = dict(table)
    own.pop("status", None)
    hosts = own.pop("host", {})
    if not isinstance(hosts, dict) or any(
        not isinstance(value, dict) for value in hosts.values()
    ):
        raise UsageError("'host' must hold tables: [host.\"NAME\"]")
    settings = _apply(ServerSettings(), own, "")
    for name, overrides in hosts.items():
        for key in overrides:
            if key not in PER_HOST:
                raise UsageError(
                    f"{quote(key)} cannot be set for host {quote(name)} alone",
                    hint=f"per host: {', '.join(sorted(PER_HOST))}",
                )
        per_host = _apply(settings, overrides, f"host {quote(name)}: ")
        if host is not None and is_same_host(name, host):
            return per_host
    return settings


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


def _apply(
    settings: ServerSettings, table: Mapping[str, Any], where: str
) -> ServerSettings:
    known = settings._asdict()
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"{where}unknown key {quote(key)} in server.toml",
                hint=f"known are: {', '.join(known)}",
            )
        wanted = (int, float) if isinstance(known[key], float) else type(known[key])
        is_bool = isinstance(value, bool)
        if is_bool != (wanted is bool) or not isinstance(value, wanted):
            raise UsageError(f"{where}{quote(key)} cannot be {value!r}")
    changed = settings._replace(**table)
    _check(changed, where)
    return changed


def _check(settings: ServerSettings, where: str) -> None:
    if not 0 <= settings.min_percent < settings.max_percent <= 100:
        raise UsageError(
            f"{where}min_percent ({settings.min_percent:g}) must be below max_percent "
            f"({settings.max_percent:g}), both between 0 and 100"
        )
    if settings.confinement not in CONFINEMENTS:
        raise UsageError(f"{where}confinement must be one of {', '.join(CONFINEMENTS)}")
    if not 0 <= settings.snapshot_interval_hours <= MAX_HOURS:
        raise UsageError(
            f"{where}snapshot_interval_hours must be between 0 and {MAX_HOURS}"
        )
    for factor in (settings.growth_factor, settings.shrink_factor):
        if not 1 <= factor <= MAX_FACTOR:
            raise UsageError(
                f"{where}growth_factor and shrink_factor must be between 1 and "
                f"{MAX_FACTOR}"
            )
    if settings.expect_hours != -1 and not 0 <= settings.expect_hours <= MAX_HOURS:
        raise UsageError(f"{where}expect_hours must be between 0 and {MAX_HOURS}")
    if not 0 <= settings.growth_percent <= 100:
        raise UsageError(f"{where}growth_percent must be between 0 and 100")
    for number in (settings.max_transfers, settings.io_timeout_s):
        if not 1 <= number <= MAX_NUMBER:
            raise UsageError(
                f"{where}max_transfers and io_timeout_s must be between 1 and "
                f"{MAX_NUMBER}"
            )
