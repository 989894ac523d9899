"""Checks of what set-up leaves alone: the programs, sshd, the kernel."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from byteback.errors import NotSetUpError, quote
from byteback.server.setup.steps import Choice, Directory, Outcome, found, warning
from byteback.server.store.layout import USER
from byteback.system import accounts, process

SSH_PORT = 22
SSHD_CONFIG = Path("/etc/ssh/sshd_config")
SSHD_DROP_INS = Path("/etc/ssh/sshd_config.d")
PACKAGES = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "rsync": "rsync",
    "mount": "mount",
    "losetup": "mount",
    "wipefs": "util-linux",
    "useradd": "passwd",
}
ONLY_FOR_VOLUMES = ("mkfs.btrfs", "mount", "losetup", "wipefs")


def check_programs(choice: Choice | None) -> None:
    """Raise NotSetUpError, naming the packages, if a needed program is missing."""
    needed = set(PACKAGES)
    if choice is None or isinstance(choice, Directory):
        needed -= set(ONLY_FOR_VOLUMES)
    missing = sorted(name for name in needed if not process.has_program(name))
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        raise NotSetUpError(
            f"not installed here: {', '.join(missing)}",
            hint=f"on Debian and Ubuntu: apt-get install {packages}",
        )


def check_sshd() -> Iterator[Outcome]:
    """Tell what would keep clients from reaching the store. Changes nothing."""
    if not process.has_program("sshd"):
        yield warning(
            "no OpenSSH server is installed here, so no client can come in: on Debian "
            "and Ubuntu, apt-get install openssh-server"
        )
        return
    user = accounts.find_user(USER)
    groups = accounts.group_names(user) if user is not None else {USER}
    obstacles = find_obstacles(_sshd_lines(), groups)
    for obstacle in obstacles:
        yield warning(f"sshd's configuration keeps '{USER}' out: {obstacle}")
    if not obstacles:
        yield found("an OpenSSH server is installed; its configuration is left alone")


def check_reach(program: Path) -> Iterator[Outcome]:
    """Tell if the byteback user cannot run ``program``, as in a checkout below /root.

    Looks at what others may do on the way there; he is in no group that matters.
    """
    way = program.resolve()
    closed = [path for path in way.parents if not path.stat().st_mode & 0o001]
    if way.stat().st_mode & 0o005 != 0o005:
        closed.append(way)
    if closed:
        yield warning(
            f"the user '{USER}' cannot run {quote(str(program))}, because "
            f"{quote(str(closed[-1]))} is closed to him: no client will get in; put "
            "byteback where every user can read it"
        )


def sshd_port(lines: Iterable[str] | None = None) -> int:
    """The port that sshd's configuration names; ssh's own if that is among several."""
    values = _values(_sshd_lines() if lines is None else lines)
    ports = [int(word) for word in values.get("port", []) if word.isdecimal()]
    return ports[0] if ports and SSH_PORT not in ports else SSH_PORT


def host_keys(lines: Iterable[str] | None = None) -> list[Path]:
    """The files with the public keys by which clients know this machine's sshd."""
    named = _values(_sshd_lines() if lines is None else lines).get("hostkey")
    if named is None:
        return sorted(SSHD_CONFIG.parent.glob("ssh_host_*_key.pub"))
    return [Path(f"{name.removesuffix('.pub')}.pub") for name in named]


def find_obstacles(lines: Iterable[str], groups: Collection[str]) -> list[str]:
    """Find lines of sshd_config(5) that keep byteback from logging in by key.

    Only what stands before any Match is looked at: a warning must be right.
    """
    values = _values(lines)
    return [
        text
        for text in (_judge(values, keyword, groups) for keyword in _JUDGED)
        if text
    ]


def permits_environment(lines: Iterable[str] | None = None) -> bool:
    """True if sshd lets a line of authorized_keys set variables, as old ones do."""
    values = _values(_sshd_lines() if lines is None else lines)
    first = values.get("permituserenvironment", ["no"])[0]
    return first.lower() == "yes" or _matches("BYTEBACK_HOST", first.split(","))


def _values(lines: Iterable[str]) -> dict[str, list[str]]:
    """Each keyword's words, in the order of the lines, outside of every Match."""
    values: dict[str, list[str]] = {}
    in_match = False
    for line in lines:
        words = line.split("#", 1)[0].replace("=", " ", 1).split()
        if not words:
            continue
        keyword = words[0].lower()
        in_match = (in_match or keyword == "match") and words[1:] != ["all"]
        if not in_match:
            values.setdefault(keyword, []).extend(words[1:])
    return values


_JUDGED = (
    "allowusers",
    "denyusers",
    "allowgroups",
    "denygroups",
    "pubkeyauthentication",
    "authorizedkeysfile",
)


def _judge(
    values: dict[str, list[str]], keyword: str, groups: Collection[str]
) -> str | None:
    words = values.get(keyword)
    if not words:
        return None
    names = groups if keyword.endswith("groups") else {USER}
    listed = any(_matches(name, words) for name in names)
    if keyword.startswith("allow") and not listed:
        return f"{keyword} does not name {' or '.join(sorted(names))}"
    if keyword.startswith("deny") and listed:
        return f"{keyword} names {' or '.join(sorted(names))}"
    if keyword == "pubkeyauthentication" and words[0].lower() == "no":
        return "pubkeyauthentication is no"
    if keyword == "authorizedkeysfile" and not _reads_our_keys(words):
        return "authorizedkeysfile does not name .ssh/authorized_keys"
    return None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """True if a ``name`` or ``name@host`` pattern is for ``name``; ! excludes."""
    hit = False
    for pattern in patterns:
        if fnmatch.fnmatchcase(name, pattern.lstrip("!").split("@")[0]):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit


def _reads_our_keys(patterns: Iterable[str]) -> bool:
    return any(
        pattern.removeprefix("%h/") == ".ssh/authorized_keys" for pattern in patterns
    )


def _sshd_lines() -> list[str]:
    """The drop-ins first: that is where Debian and Fedora include them."""
    paths = [*sorted(SSHD_DROP_INS.glob("*.conf")), SSHD_CONFIG]
    lines: list[str] = []
    for path in paths:
        try:
            lines += path.read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            continue
        lines.append("Match all")
    return lines
