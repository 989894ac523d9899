"""byteback-restore's --diff and --verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import click

from byteback.cli import _boundary
from byteback.client.restore import diff, drill, other_machine, verify
from byteback.client.restore.diff import Changed
from byteback.client.restore.query import Server
from byteback.errors import UsageError
from byteback.model.difference import Difference, format_difference
from byteback.model.snapshot import CURRENT


def show_differences(server: Server, words: Sequence[str], *, as_json: bool) -> None:
    """Print a line for each difference."""
    if not words:
        raise UsageError(
            "--diff needs a snapshot",
            hint="name one or two: byteback-restore --verbose / lists them all",
        )

    def show(found: list[Changed]) -> None:
        for changed in found:
            click.echo(_line(changed, as_json=as_json))

    comparison = diff.read_words(words)
    if server.origin is not None:
        other_machine.check_patterns(server.origin.client, comparison.patterns)
        if comparison.newer == diff.NOW:
            comparison = replace(comparison, newer=CURRENT)
    diff.compare(server, comparison, show)


def _line(changed: Changed, *, as_json: bool) -> str:
    if not as_json:
        return f"{changed.kind:<8} {_boundary.escape_line(changed.path)}"
    if changed.entry is not None:
        return format_difference(Difference(changed.kind, changed.entry))
    return json.dumps({"change": changed.kind, "path": changed.path})


def check_sample(server: Server, words: Sequence[str], sample: int) -> None:
    """Compare a sample; what is wrong is an error."""
    if words:
        raise UsageError("--verify takes no pattern", hint="it picks files at random")
    if server.origin is not None:
        drill.restore_sample(server, sample)
    else:
        verify.verify(server, sample)
