"""Administrators' keys: those who hold one may enrol clients from afar."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.server.access import authorized_keys
from byteback.server.setup.steps import Outcome, StepRunner, found
from byteback.server.store.layout import Store
from byteback.system import host

PROGRAM = "byteback-setup-client-receive"
_PUBLIC = "name a file of public keys, such as ~/.ssh/id_ed25519.pub"
MAX_BYTES = 1_000_000  # of one --admin-key; far above any list of people


def read_admin_keys(sources: Sequence[str]) -> list[str]:
    """The public keys in files, ``-`` being standard input; one key a line.

    Raises UsageError for what cannot be read, holds no key, or is no public key.
    """
    lines = []
    for source in sources:
        own = [
            line.strip()
            for line in _read(source).splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not own:
            raise UsageError(f"there is no key in {quote(source)}", hint=_PUBLIC)
        for line in own:
            _parse(line, source)
        lines += own
    return lines


def provide_admin_keys(
    store: Store, lines: Sequence[str], runner: StepRunner
) -> Iterator[Outcome]:
    """See to it that each key may run the enrolling program, and nothing else."""
    for line in lines:
        key = parse_public_key(line)
        who = f"administrator's key {key.fingerprint}"
        if runner.dry_run and _is_present(store, key):
            yield found(f"{who} is there")
            continue
        add = _Addition(store, line)
        outcome = runner.do(f"let {who} enrol clients", add)
        yield outcome if add.changed else found(f"{who} is there")


class _Addition:
    """Adds one key when called; ``changed`` says whether that was needed."""

    def __init__(self, store: Store, line: str) -> None:
        self.store = store
        self.line = line
        self.changed = True

    def __call__(self) -> None:
        program = host.program_path(PROGRAM)
        self.changed = authorized_keys.add_admin_key(self.store, self.line, program)


def has_admin_key(store: Store) -> bool:
    """True if any key at all may enrol clients."""
    try:
        entries = authorized_keys.read(store).key_lines().values()
    except OSError:
        return False
    return any(entry.is_for_enrolling for entry in entries)


def _is_present(store: Store, key: PublicKey) -> bool:
    try:
        entries = authorized_keys.read(store).lines_of_key(key.blob).values()
    except OSError:
        return False
    return any(entry.is_for_enrolling for entry in entries)


def _parse(line: str, source: str) -> None:
    if "PRIVATE KEY" in line:
        raise UsageError(
            f"{quote(source)} holds a private key",
            hint="give the public one, the file whose name ends in .pub",
        )
    try:
        parse_public_key(line)
    except UsageError as error:
        raise UsageError(f"{quote(source)}: {error.message}", hint=_PUBLIC) from None


def _read(source: str) -> str:
    try:
        if source == "-":
            content = sys.stdin.buffer.read(MAX_BYTES)
        else:
            with Path(source).open("rb") as file:
                content = file.read(MAX_BYTES)
    except OSError as error:
        raise UsageError(
            f"cannot read {quote(source)}: {error.strerror}", hint=_PUBLIC
        ) from None
    return content.decode("utf-8", "surrogateescape")
