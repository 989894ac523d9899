"""The automatic excludes, mount points aside: caches, the machine's own store."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from byteback.model.rsync_filter import file_rule, leave_in
from byteback.system import time_limit
from byteback.system.mounts import is_below

# Left out where they exist: what is made anew, or (MySQL) useless when copied live.
PATHS = (
    "/swap.file",
    "/tmp",
    "/var/backups/localhost",
    "/var/lib/php5",
    "/var/tmp",
    "/var/lib/mysql",
)
# Packages, but not the directories, which are a package's own (dpkg --verify).
APT_CACHE = "/var/cache/apt/archives"
APT_RULES = (f"{APT_CACHE}/*.*", f"{APT_CACHE}/partial/*")
STORE_USER = "byteback"
LIMIT_S = 10.0


def find() -> dict[str, bool]:
    """The automatic excludes that exist here, and whether each is a directory.

    All of it where a file system does not answer: a rule too many does no harm.
    """
    (answer,) = time_limit.ask([_look], LIMIT_S)
    if isinstance(answer, dict):
        return {str(path): bool(is_directory) for path, is_directory in answer.items()}
    return dict.fromkeys((*PATHS, APT_CACHE), True)


def rules(found: Mapping[str, bool], sources: Sequence[str]) -> list[str]:
    """Filter rules for what was found, in a stable order.

    Only what is inside a directory is left out; the directory itself is kept. What is
    one of ``sources``, or in one of these, was asked for.
    """
    made: list[str] = []
    for path, is_directory in sorted(found.items()):
        if path == APT_CACHE:
            if not any(is_below(source, path) for source in sources):
                made += [f"- {rule}" for rule in APT_RULES]
        elif path not in sources:
            made += (
                leave_in(path, sources) if is_directory else [f"- {file_rule(path)}"]
            )
    return made


def _look() -> dict[str, bool]:
    found = {}
    for path in (*PATHS, APT_CACHE):
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode):  # what it points to is elsewhere
            found[path] = stat.S_ISDIR(mode)
    store = _own_store()
    return found if store is None else found | {store: True}


def _own_store() -> str | None:
    """The store's directory if this machine is a backup server too.

    Backed up to itself it would grow for ever.
    """
    try:
        home = pwd.getpwnam(STORE_USER).pw_dir
    except KeyError:
        return None
    return home if Path(home, ".byteback").is_dir() else None
