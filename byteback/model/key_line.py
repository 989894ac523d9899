"""One line of authorized_keys, read as tolerantly as sshd(8) does."""

from __future__ import annotations

import base64
import binascii
import shlex
from dataclasses import dataclass
from pathlib import PurePath

from byteback.model.hostname import is_host_name
from byteback.model.public_key import KEY_TYPES, PublicKey

RECEIVE = "byteback-receive"
ENROL = "byteback-setup-client-receive"
_WHITE = " \t"


@dataclass(frozen=True)
class KeyLine:
    """A line that lets a key in: its options in order, the type and the blob."""

    options: tuple[tuple[str, str | None], ...]
    kind: str
    blob: bytes

    def option(self, name: str) -> str | None:
        """The value of the first option of that name; '' for one without a value."""
        for key, value in self.options:
            if key == name:
                return value or ""
        return None

    @property
    def host(self) -> str | None:
        """The client whose key this is, whichever style the line is in, or None."""
        words = self._command()
        if not words or PurePath(words[0]).name != RECEIVE:
            return None
        if words[1:2] == ["--replica"]:
            return None
        name = words[2] if words[1:2] == ["--host"] and len(words) == 3 else None
        # The old tool's lines name the host in a variable; sshd takes the first.
        for key, value in self.options:
            if name is None and key == "environment" and value:
                variable, _, text = value.partition("=")
                name = text if variable == "BYTEBACK_HOST" else None
        return name if name is not None and is_host_name(name) else None

    @property
    def needs_environment(self) -> bool:
        """True if it names its client as the old tool's lines do, in a variable."""
        return self.host is not None and self._command()[1:2] != ["--host"]

    @property
    def is_for_enrolling(self) -> bool:
        """True if this is an administrator's key that can do nothing but enrol."""
        words = self._command()
        return words[1:] == ["--forced"] and PurePath(words[0]).name == ENROL

    @property
    def invitation(self) -> str | None:
        """The token of an invitation (model/invitation.py), if this is its line."""
        words = self._command()
        is_one = words[1:2] == ["--invited"] and len(words) == 3
        return words[2] if is_one and PurePath(words[0]).name == ENROL else None

    @property
    def replica(self) -> str | None:
        """The name of the second server whose key this is, if it is one's."""
        words = self._command()
        is_one = words[1:2] == ["--replica"] and len(words) == 3
        is_one = is_one and PurePath(words[0]).name == RECEIVE
        return words[2] if is_one and is_host_name(words[2]) else None

    def _command(self) -> list[str]:
        try:
            return shlex.split(self.option("command") or "")
        except ValueError:  # an unbalanced quote: some administrator's own command
            return []


def parse_key_line(line: bytes) -> KeyLine | None:
    """The key and options of a line; None for blank lines, comments and rubbish."""
    text = line.decode("utf-8", "surrogateescape").strip(" \t\r\n")
    if not text or text.startswith("#"):
        return None
    key = _parse_key(text)
    if key is not None:
        return KeyLine((), *key)
    end = _end_of_options(text)
    key = _parse_key(text[end:].lstrip(_WHITE))
    return None if key is None else KeyLine(_parse_options(text[:end]), *key)


def format_client_line(
    key: PublicKey, host: str, program: PurePath, options: dict[str, str]
) -> bytes:
    """The line that binds ``key`` to ``host`` and to nothing else.

    The host is a word of the command, so that sshd's PermitUserEnvironment can stay
    off; ``options`` are further ones, such as ``from``.
    """
    command = shlex.join([str(program), "--host", host])
    return _format_line({"command": command, **options}, key)


def format_renamed_line(line: bytes, host: str) -> bytes:
    """A client's line, bound to ``host`` instead; all else stays as it is.

    The old tool's style becomes the new one. Raises ValueError if ``line`` is none of a
    client's.
    """
    text = line.decode("utf-8", "surrogateescape").strip(" \t\r\n")
    end = _end_of_options(text)
    parsed = parse_key_line(line)
    if parsed is None or parsed.host is None:
        raise ValueError("this line lets no client in")
    program = shlex.split(parsed.option("command") or "")[0]
    command = shlex.join([program, "--host", host])
    options = [
        (name, command if name == "command" else value)
        for name, value in parsed.options
        if not (name == "environment" and (value or "").startswith("BYTEBACK_HOST="))
    ]
    words = [
        name if value is None else f'{name}="{_escape(value)}"'
        for name, value in options
    ]
    return (",".join(words) + text[end:]).encode("utf-8", "surrogateescape")


def format_enrolling_line(key: PublicKey, program: PurePath) -> bytes:
    """The line that lets an administrator's key enrol clients, and nothing else."""
    return _format_line({"command": shlex.join([str(program), "--forced"])}, key)


def format_invitation_line(
    key: PublicKey, program: PurePath, token: str, expiry: str
) -> bytes:
    """The line that lets an invitation's key enrol one client.

    sshd itself refuses the key after ``expiry``, in its own form and time zone.
    """
    command = shlex.join([str(program), "--invited", token])
    return _format_line({"command": command, "expiry-time": expiry}, key)


def format_replica_line(key: PublicKey, name: str, program: PurePath) -> bytes:
    """The line that lets a second server read all finished snapshots (D55)."""
    command = shlex.join([str(program), "--replica", name])
    return _format_line({"command": command}, key)


def _format_line(options: dict[str, str], key: PublicKey) -> bytes:
    quoted = [f'{name}="{_escape(value)}"' for name, value in options.items()]
    text = f"{','.join(['restrict', *quoted])} {key.line}"
    return text.encode("utf-8", "surrogateescape")


def _escape(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError("a line break cannot be written in authorized_keys")
    return value.replace('"', '\\"')


def _parse_key(text: str) -> tuple[str, bytes] | None:
    words = text.split(None, 2)
    # Types that are refused today may stand in a file of long ago: ssh-dss.
    if len(words) < 2 or not (words[0] in KEY_TYPES or words[0] == "ssh-dss"):
        return None
    try:
        return words[0], base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None


def _end_of_options(text: str) -> int:
    quoted, at = False, 0
    while at < len(text) and (quoted or text[at] not in _WHITE):
        if text.startswith('\\"', at):
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        at += 1
    return at


def _parse_options(text: str) -> tuple[tuple[str, str | None], ...]:
    options: list[tuple[str, str | None]] = []
    for word in _split_at_commas(text):
        name, equals, value = word.partition("=")
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"')
        options.append((name.lower(), value if equals else None))
    return tuple(options)


def _split_at_commas(text: str) -> list[str]:
    words, start, quoted = [], 0, False
    for at, character in enumerate(text):
        if character == '"' and text[at - 1 : at] != "\\":
            quoted = not quoted
        elif character == "," and not quoted:
            words.append(text[start:at])
            start = at + 1
    return [*words, text[start:]]
