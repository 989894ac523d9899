"""Reads ssh_config(5) for one host, as the real ssh does (``ssh -G``)."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import ToolError, UsageError
from byteback.model.destination import Destination
from byteback.system import process
from byteback.system.ssh import openssh

_STRICTNESS = {
    "true": "yes",
    "yes": "yes",
    "accept-new": "accept-new",
    "false": "no",
    "no": "no",
    "off": "no",
}


@dataclass(frozen=True)
class SshConfig:
    """The way to one server, and the keys to trust there."""

    host: str  # as ssh would connect to it: an alias is resolved
    port: int
    user: str
    strict_host_key_checking: str  # "yes", "accept-new", "no" or "ask"
    known_hosts: tuple[Path, ...]
    identity_files: tuple[Path, ...]
    host_key_alias: str | None = None
    proxy: str | None = None  # a command for the shell
    agent: str | None = None  # a socket other than SSH_AUTH_SOCK's, or "none"
    identities_only: bool = False


def resolve(destination: Destination, login: str) -> SshConfig:
    """Ask ssh how it would reach the server as user ``login``.

    Raises UsageError if ssh cannot read its configuration.
    """
    argv = ["ssh", "-G", "-T", "-l", login]
    if destination.port is not None:
        argv += ["-p", str(destination.port)]
    argv += [*openssh.NO_REMOTE_COMMAND, "--", destination.host, "true"]
    try:
        shown = process.run(argv, timeout_s=60)
    except ToolError as error:
        if error.status != openssh.STATUS_FAILED:
            raise
        raise UsageError(
            "ssh cannot use its configuration",
            hint="correct the line that it names",
            details=error.details,
        ) from None
    return parse(shown.text)


def parse(text: str) -> SshConfig:
    """Read the output of ``ssh -G``: one ``keyword value`` a line."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key.lower(), []).append(value.strip())
    first = {key: found[0] for key, found in values.items()}
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    host, port = first.get("hostname", ""), int(first.get("port", "22"))
    tokens = {"%h": host, "%p": str(port), "%r": first.get("user", ""), "%%": "%"}
    known = " ".join(
        first.get(key, "") for key in ("userknownhostsfile", "globalknownhostsfile")
    )
    return SshConfig(
        host=host,
        port=port,
        user=first.get("user", ""),
        strict_host_key_checking=_STRICTNESS.get(
            first.get("stricthostkeychecking", ""), "ask"
        ),
        known_hosts=tuple(_expand(x, home, tokens) for x in known.split()),
        identity_files=tuple(
            _expand(x, home, tokens) for x in values.get("identityfile", [])
        ),
        host_key_alias=_unless_none(first.get("hostkeyalias")),
        proxy=_proxy(first, tokens),
        agent=first.get("identityagent"),
        identities_only=first.get("identitiesonly") == "yes",
    )


def _proxy(first: Mapping[str, str], tokens: Mapping[str, str]) -> str | None:
    jump = _unless_none(first.get("proxyjump"))
    if jump is not None:
        *before, last = jump.split(",")
        target = last if last.startswith("ssh://") else f"ssh://{last}"
        argv: Sequence[str] = ["ssh", "-W", f"[{tokens['%h']}]:{tokens['%p']}"]
        via = ["-J", ",".join(before)] if before else []
        return shlex.join([*argv, *via, "--", target])
    command = _unless_none(first.get("proxycommand"))
    return None if command is None else _replace_tokens(command, tokens)


def _expand(word: str, home: Path, tokens: Mapping[str, str]) -> Path:
    word = _replace_tokens(word.strip('"'), {**tokens, "%d": str(home)})
    if word.startswith("~/"):
        return home / word[2:]
    return Path(word)


def _replace_tokens(text: str, tokens: Mapping[str, str]) -> str:
    pieces, at = [], 0
    while at < len(text):
        token = text[at : at + 2]
        pieces.append(tokens.get(token, text[at]))
        at += 2 if token in tokens else 1
    return "".join(pieces)


def _unless_none(value: str | None) -> str | None:
    return None if value is None or value.lower() == "none" else value
