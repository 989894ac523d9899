"""Asks rsync what it would send of this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile

from byteback.client.backup import push
from byteback.client.backup.rules import Selection


def dry_run(selection: Selection) -> set[str]:
    """The names that rsync would send of /."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [
                *("rsync", "--dry-run", "--out-format=%n", *push.OPTIONS),
                *selection.words,
                *("/", empty),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    lines = done.stdout.split("\n\n")[0].splitlines()
    return {
        os.path.normpath(f"/{line}").replace("//", "/") + _slash(line) for line in lines
    }


def _slash(line: str) -> str:
    return "/" if line.endswith("/") and line.strip("./") else ""
