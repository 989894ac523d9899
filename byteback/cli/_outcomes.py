"""Shows what became of each step of a set-up."""

from __future__ import annotations

from collections.abc import Iterable

import click

from byteback.cli import _boundary
from byteback.server.setup.steps import Outcome


def show(outcomes: Iterable[Outcome]) -> None:
    """Print a line for each, as it comes."""
    for outcome in outcomes:
        click.echo(f"{outcome.kind + ':':<9}{_boundary.escape_line(outcome.text)}")
