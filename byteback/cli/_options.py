"""Options that all commands share: --version, -h, and the types of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import byteback
from byteback.errors import EXIT_STATUSES

Function = TypeVar("Function", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 88}


def version_option(function: Function) -> Function:
    """``--version``: the suite's version, which all programs share."""
    return click.version_option(
        byteback.__version__, message="%(prog)s (byteback) %(version)s"
    )(function)


def verbose_option(function: Function) -> Function:
    """``-v``/``--verbose``: show what is run."""
    return click.option("-v", "--verbose", is_flag=True, help="Show what is run.")(
        function
    )


def compress_option(function: Function) -> Function:
    """``--compress``: whether rsync does, over what its file says."""
    from byteback.client.settings import COMPRESSION

    return click.option(
        "--compress",
        type=click.Choice(COMPRESSION),
        help="Compress what is sent: auto does where the line is slow enough for it to"
        " pay.  [default: auto]",
    )(function)


def ssh_key_option(function: Function) -> Function:
    """``-k``/``--ssh-key``: the file of this machine's key."""
    return click.option(
        "-k",
        "--ssh-key",
        type=click.Path(path_type=Path),
        help="This machine's private key.  [default: /etc/byteback/key]",
    )(function)


def io_timeout_option(default_s: int) -> Callable[[Function], Function]:
    """``-i``/``--io-timeout``; ``default_s`` is what holds without it."""
    return click.option(
        "-i",
        "--io-timeout",
        type=click.IntRange(min=1),
        help="Seconds of silence after which a transfer is given up."
        f"  [default: {default_s}]",
    )


def exit_status_help(*statuses: int) -> str:
    """The EXIT STATUS paragraph that ends each command's help."""
    lines = [f"  {status:<4}{EXIT_STATUSES[status]}" for status in statuses]
    return "\b\nEXIT STATUS\n" + "\n".join(lines)
