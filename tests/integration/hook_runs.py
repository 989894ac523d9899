"""Runs the hooks that come with byteback, as a backup does."""

from __future__ import annotations

from pathlib import Path

from tests.integration.conftest import CONFIGURATION, LIBRARY
from tests.integration.programs import SEARCH_PATH, Outcome, run_program

HOOKS = LIBRARY / "hooks"
DUMPS = Path("/var/backups/byteback")


def run_hook(name: str, *, check: bool = True) -> Outcome:
    """Run a hook by a link in pre-backup.d, with little in its environment."""
    link = CONFIGURATION / "pre-backup.d" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(HOOKS / name)
    return run_program(["env", "-i", f"PATH={SEARCH_PATH}", link], check=check)
