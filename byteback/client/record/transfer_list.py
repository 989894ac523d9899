"""Turns changes into what rsync is told: a list of names, and rules for what is gone.

rsync deletes only in directories whose contents it is asked for. So a directory in
which a name is gone is listed with a slash; rules hide from the sender what has not
changed in it, and protect at the receiver everything but that name. The option
--delete-missing-args would do, had not security updates broken it (rsync issue 910).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from byteback.client.record.compare import Change, Void
from byteback.model.rsync_filter import contents_rule, file_rule

MAX_RULES = 20_000  # each name on either side is held against each of them


@dataclass(frozen=True)
class TransferList:
    """The names that one partial push brings."""

    names: tuple[str, ...]  # below "/", a slash at the end for contents
    rules: tuple[str, ...]
    gone: tuple[str, ...]  # what may be deleted, with all below it

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to do."""
        return not self.names

    def names_file(self) -> bytes:
        """The list for --files-from with --from0."""
        return _joined(self.names)

    def rules_file(self) -> bytes:
        """The rules for --filter=merge, with --from0."""
        return _joined(self.rules)

    def may_delete(self, path: str) -> bool:
        """True if the receiver was to delete ``path``."""
        return Void(self.gone).covers(path)


def _joined(lines: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(line) + b"\0" for line in lines)


def make_list(
    changes: Iterable[Change], kept: Collection[str], void: Void, *, top: bool
) -> TransferList:
    """The list for ``changes``, of which rsync's rules let through what is in ``kept``.

    A directory that ``void`` covers is made what it is here, whatever the server has in
    it. With ``top`` the directory "/" itself has changed.
    """
    live: dict[str, None] = {}
    gone: dict[str, None] = {}
    contents: dict[str, None] = {"": None} if top else {}
    for change in changes:
        parent = change.path.rpartition("/")[0]
        if parent and parent not in kept:
            continue
        is_live = not change.is_gone and change.path in kept
        if is_live:
            live[change.path] = None
        is_void = void.covers(change.path)
        if is_live and change.is_directory:
            if is_void:
                contents[change.path] = None
                gone[change.path] = None
            continue
        was_sent = change.was_replaced or (change.is_gone and change.path in kept)
        if not (is_void or was_sent) or (is_live and not change.was_directory):
            continue
        # Gone, replaced or unknown: whatever the server has there may go.
        gone[change.path] = None
        contents[parent] = None
    return TransferList(
        tuple(_names(live, contents)),
        tuple(_rules(live, contents, gone)),
        tuple(gone),
    )


def _names(live: Iterable[str], contents: Collection[str]) -> Iterable[str]:
    """As a list has them: rsync takes a line that starts with "#" for a comment."""
    yield from (f"./{path}/" if path else "./" for path in contents)
    yield from (f"./{path}" for path in live if path not in contents)


def _rules(
    live: Collection[str], contents: Collection[str], gone: Iterable[str]
) -> Iterable[str]:
    for path in gone:
        yield f"R {file_rule(f'/{path}')}"
        yield f"R {contents_rule(f'/{path}')}**"
    yield "P *"
    for path in dict.fromkeys((*contents, *live)):
        if path and path.rpartition("/")[0] in contents:
            yield f"S {file_rule(f'/{path}')}"
    for path in contents:
        yield f"H {contents_rule(f'/{path}' if path else '')}"
