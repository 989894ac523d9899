"""byteback-restore's --diff and --verify."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from byteback.cli import _boundary
from byteback.client import differences, verify
from byteback.client.find import Server
from byteback.errors import UsageError
from byteback.model.difference import Difference, format_difference


def show_differences(server: Server, words: Sequence[str], *, as_json: bool) -> None:
    """Print a line for each difference."""
    if not words:
        raise UsageError("--diff needs a snapshot", hint="name one or two")
    for changed in differences.compare(server, differences.read_words(words)):
        if not as_json:
            click.echo(f"{changed.kind:<8} {_boundary.escape_line(changed.path)}")
        elif changed.entry is not None:
            click.echo(format_difference(Difference(changed.kind, changed.entry)))
        else:
            click.echo(json.dumps({"change": changed.kind, "path": changed.path}))


def check_sample(server: Server, words: Sequence[str], sample: int) -> None:
    """Compare a sample; what is wrong is an error."""
    if words:
        raise UsageError("--verify takes no pattern", hint="it picks files at random")
    verify.verify(server, sample)
