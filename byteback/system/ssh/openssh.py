"""The OpenSSH client's command line for unattended use."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from byteback.errors import ToolError
from byteback.model.destination import Destination
from byteback.system import process

# A line that is dead is noticed after INTERVAL * COUNT seconds, instead of whenever
# the kernel gives up or rsync's own time limit ends (three hours).
CONNECT_TIMEOUT_S = 30
ALIVE_INTERVAL_S = 30
ALIVE_COUNT = 4
# After a kill -9 of its user, the shared connection ends itself this much later.
PERSIST_S = 30

# Where the processor knows AES these take half the time of ssh's first choice.
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CPU_INFO = Path("/proc/cpuinfo")
CONFIG_TIMEOUT_S = 10.0  # for ssh to read its configuration

STATUS_FAILED = 255  # ssh(1): its own failures, as against the remote command's
STATUS_NO_LOGIN = 254  # sshd's own, while /etc/nologin is there and PAM is not used

# For ``ssh -G``: ForkAfterAuthentication in ssh_config makes ssh ask for a command, and
# RemoteCommand makes it refuse one.
NO_REMOTE_COMMAND = ("-o", "RemoteCommand=none")

# What would keep a request or its answer from getting through. OpenSSH 8.7 and later
# know these keywords, and earlier ones end at a keyword that they do not know.
_SESSION = {
    "SessionType": "default",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
}


def ssh_argv(
    destination: Destination,
    key: Path,
    *,
    known_hosts: Path | None = None,
    control_path: Path | None = None,
    ciphers: str | None = None,
    log_level: str = "ERROR",
) -> list[str]:
    """``ssh`` and its options, without the host, for an unattended run.

    ssh_config stays in force, so that aliases, ports and jump hosts work; what is set
    here beats it. With ``known_hosts`` only the keys pinned there are believed, under
    the name that the user typed; without it ssh's own files decide. With
    ``control_path`` all sessions share one connection, made by the first of them.
    ``ciphers`` of None leaves them to ssh.

    At the ``log_level`` INFO ssh also gives its reason for each connection that it does
    not make, and prints the server's banner.
    """
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "PubkeyAuthentication": "yes",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": str(ALIVE_INTERVAL_S),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "Tunnel": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "EscapeChar": "none",
        "Compression": "no",
        "LogLevel": log_level,
    }
    is_young = _knows_session_keywords()
    if is_young:
        options |= _SESSION
    if known_hosts is not None:
        options |= {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _quoted(known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": pinned_name(destination),
            "CheckHostIP": "no",
            "UpdateHostKeys": "no",
            "VerifyHostKeyDNS": "no",
        }
        if is_young:  # it is known since OpenSSH 8.5
            options["KnownHostsCommand"] = "none"
    if control_path is not None:
        options |= {
            "ControlMaster": "auto",
            "ControlPath": _quoted(control_path),
            "ControlPersist": str(PERSIST_S),
        }
    else:
        options |= {"ControlMaster": "no", "ControlPath": "none"}
    if ciphers is not None:
        options["Ciphers"] = ciphers
    argv = ["ssh", "-T", "-i", str(key), *_login(destination)]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return argv


def fast_ciphers(destination: Destination) -> str | None:
    """ssh's ciphers with the fastest first, for ssh_argv; None: leave them alone.

    That is done where this processor knows AES and ssh_config says nothing of ciphers:
    an administrator's own choice, or a distribution's policy, stays in force.
    """
    if not re.search(r"^(?:flags|Features)\b.*\baes\b", _cpu_info(), re.MULTILINE):
        return None
    offered = _ciphers([*_login(destination), "--", destination.host])
    if offered != _ciphers(None):
        return None
    fast = [cipher for cipher in FAST_CIPHERS if cipher in offered]
    rest = [cipher for cipher in offered if cipher not in fast]
    return ",".join([*fast, *rest]) if fast else None


def pinned_name(destination: Destination) -> str:
    """The name under which a server's key stands in byteback's known_hosts."""
    return destination.host.lower()


def control_argv(control_path: Path, command: str) -> list[str]:
    """``ssh -O command`` to the shared connection: ``check`` or ``exit``.

    The socket alone says which one it is. ssh wants a host as well, and reads no
    configuration for it here that could be broken or slow.
    """
    path = f"ControlPath={_quoted(control_path)}"
    return ["ssh", "-F", "none", "-O", command, "-o", path, "byteback"]


def join_for_rsync(argv: Sequence[str]) -> str:
    """``argv`` as one word for rsync's -e, which splits at spaces and knows quotes.

    Inside quotes a doubled quote stands for one (rsync(1), --rsh).
    """
    return " ".join(
        word
        if word and not set(word) & set(" \t\"'")
        else "'" + word.replace("'", "''") + "'"
        for word in argv
    )


def _login(destination: Destination) -> list[str]:
    port = [] if destination.port is None else ["-p", str(destination.port)]
    return ["-l", destination.user, *port]


def _ciphers(arguments: Sequence[str] | None) -> list[str]:
    """The algorithms that ssh would offer to a host, best first.

    None as ``arguments`` is for an ssh without any configuration.
    """
    effective = _defaults() if arguments is None else _effective(arguments)
    value = effective.get("ciphers")
    return value.split(",") if value else []


def _knows_session_keywords() -> bool:
    return "sessiontype" in _defaults()


@functools.cache
def _defaults() -> dict[str, str]:
    return _effective(["-F", "none", "--", "byteback"])


def _effective(arguments: Sequence[str]) -> dict[str, str]:
    """Keywords and values that ssh would go by; nothing if it does not say."""
    argv = ["ssh", "-T", "-G", *NO_REMOTE_COMMAND, *arguments, "true"]
    with contextlib.suppress(ToolError):
        shown = process.run(argv, timeout_s=CONFIG_TIMEOUT_S)
        pairs = (line.partition(" ") for line in shown.text.splitlines())
        return {keyword: value for keyword, _, value in pairs}
    return {}


def _cpu_info() -> str:
    with contextlib.suppress(OSError):
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    return ""


def _quoted(path: Path) -> str:
    """A path as ssh_config reads it: quotes keep spaces, %% stands for %."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text
