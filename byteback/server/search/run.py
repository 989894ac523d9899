"""Finds what patterns match in a client's snapshots, for a client that may be hostile.

All snapshots are walked together, one directory after the other, and all patterns at
once: what is found comes sorted by path, without being collected first.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

from byteback.errors import RefusedError, quote
from byteback.model import listing
from byteback.model.difference import Difference
from byteback.model.glob import pattern
from byteback.model.listing import Entry
from byteback.server.search import limits as search_limits
from byteback.server.search import name_index, walk
from byteback.server.search.limits import Limits
from byteback.server.search.name_index import Index
from byteback.server.snapshots import lineage
from byteback.server.snapshots.lineage import Chains
from byteback.server.store import tree
from byteback.server.store.layout import Store
from byteback.wire import requests

# Where a search ends that finds too much or takes too long. The client gives a
# request up after five minutes of silence.
MAX_RESULTS = 1_000_000
MAX_SECONDS = 240.0
# Linux takes up to 2 MiB of arguments, the environment and pointers included.
MAX_ARGUMENTS = 1_000_000  # bytes
CHUNK = 1 << 20
MAX_SAMPLE = 50_000


def read_history(store: Store, client: str) -> tuple[Chains, Index | None]:
    """Read the history and the index that make a search faster, for find and resolve.

    Read before the process is confined, which after that sees only the trees.
    """
    trees = lineage.read_trees(store.host_directory(client), store.trees(client))
    return lineage.chains_of(trees), name_index.load(store, client, trees)


def find(
    store: Store,
    client: str,
    snapshot: str,
    scope: str,
    patterns: Sequence[str],
    *,
    current_is_whole: bool,
    chains: Chains = (),
    index: Index | None = None,
) -> Iterator[Entry]:
    """Find what the patterns match in the trees of ``client`` that ``snapshot`` names.

    Sorted by path. Scope "newest" gives the newest copy of each path, "versions" each
    distinct (path, mtime, size), newest first and of each the newest copy, and
    "copies" every copy, oldest first. With the ``chains`` of the client's trees (see
    read_history) little is looked at more than once that did not change, and with
    an ``index`` that covers all trees only directories that hold what is looked for.
    Raises RefusedError if no tree has such a name, and, while it is being read,
    if the search finds too much or takes too long.
    """
    search = _prepare(
        *(store, client, snapshot, scope, patterns),
        current_is_whole=current_is_whole,
        chains=chains,
    )
    if index is not None:
        led = index.lead(search.trees, search.patterns, search.limits.step)
        search = search._replace(led=led)
    return walk.walk(search)


def _prepare(
    store: Store,
    client: str,
    snapshot: str,
    scope: str,
    patterns: Sequence[str],
    *,
    current_is_whole: bool,
    chains: Chains,
) -> walk.Search:
    trees = _choose_trees(store, client, snapshot, current_is_whole=current_is_whole)
    compiled = pattern.compile_patterns(patterns)
    limits = Limits(MAX_RESULTS, MAX_SECONDS)
    search_limits.allow_open_files()
    directory = store.host_directory(client)
    return walk.Search(directory, trees, chains, compiled, scope, limits)


def changes(
    store: Store,
    client: str,
    newer: str,
    older: str,
    patterns: Sequence[str],
    *,
    current_is_whole: bool,
    chains: Chains = (),
) -> Iterator[Difference]:
    """List the changes between two trees of ``client``, in and below what matches.

    With a star in a name the newest tree counts that it stands for. Sorted by path.
    Raises RefusedError as find does.
    """
    trees = [
        _choose_trees(store, client, name, current_is_whole=current_is_whole)[0]
        for name in (newer, older)
    ]
    compiled = pattern.compile_patterns(patterns)
    limits = Limits(MAX_RESULTS, MAX_SECONDS)
    search_limits.allow_open_files()
    directory = store.host_directory(client)
    if trees[0] == trees[1]:
        return iter(())
    search = walk.Search(directory, trees, chains, compiled, "changes", limits)
    return walk.differences(search)


def sample(
    store: Store,
    client: str,
    snapshot: str,
    patterns: Sequence[str],
    count: int,
    *,
    current_is_whole: bool,
    chains: Chains = (),
) -> list[str]:
    """Patterns for ``count`` paths at random, each as likely as any other.

    They are taken from all that is in and below what the patterns match.
    Raises RefusedError as find does.
    """
    if count > MAX_SAMPLE:
        raise RefusedError(f"a sample has no more than {MAX_SAMPLE} files")
    search = _prepare(
        *(store, client, snapshot, "newest", patterns),
        current_is_whole=current_is_whole,
        chains=chains,
    )
    paths = (path for _, path in walk.matches(search, with_all_below=True))
    return [pattern.escape_name(path) for path in pick(paths, count)]


def total_size(
    store: Store,
    client: str,
    snapshot: str,
    patterns: Sequence[str],
    *,
    current_is_whole: bool,
) -> int:
    """Bytes that all files in and below what matches take, without their holes.

    Of several trees only the newest is looked at; what is in two directories that
    match is counted twice. Raises RefusedError as find does.
    """
    search = _prepare(
        *(store, client, snapshot, "newest", patterns),
        current_is_whole=current_is_whole,
        chains=(),
    )
    newest = search._replace(trees=search.trees[:1])
    total = 0
    for candidate, _ in walk.matches(newest):
        parent = candidate.place.descriptor(0)
        if parent is None or not candidate.runs:
            continue
        if candidate.runs[0].is_directory:
            try:
                total += tree.size_below(parent, candidate.name, search.limits.step)
            except OSError as error:
                raise walk.refusal(error) from None
        else:
            total += tree.size_of(candidate.runs[0].status)
    return total


def pick(items: Iterable[str], count: int) -> list[str]:
    """``count`` of the items, or all if there are less, without keeping the others."""
    import random

    chosen: list[str] = []
    for number, item in enumerate(items):
        if len(chosen) < count:
            chosen.append(item)
        elif (place := random.randrange(number + 1)) < count:  # noqa: S311 # no secret
            chosen[place] = item
    return chosen


def read_patterns(stream: BinaryIO) -> list[str]:
    """NUL-terminated patterns from a new client's standard input.

    Raises RefusedError for more than a request may bring, or for none at all.
    """
    data = bytearray()
    while chunk := stream.read(CHUNK):
        data += chunk
        if len(data) > requests.MAX_PATTERN_INPUT:
            raise RefusedError("the request brings too many patterns")
    if data and not data.endswith(b"\0"):
        raise RefusedError("the request was cut off in its last pattern")
    patterns = bytes(data).decode("utf-8", "surrogateescape").split("\0")[:-1]
    if not patterns:
        raise RefusedError("no pattern was given", hint="name the files to find")
    if any(len(text) > requests.MAX_WORD for text in patterns):
        raise RefusedError(f"a pattern is longer than {requests.MAX_WORD} characters")
    return patterns


def resolve(
    store: Store,
    client: str,
    request: requests.Pull,
    *,
    current_is_whole: bool,
    chains: Chains = (),
    index: Index | None = None,
) -> list[str]:
    """Names for rsync's arguments, relative to ``HOST/``: ``./SNAPSHOT/etc/hosts``.

    What lies in a directory that is named is left out, for rsync sends it anyway.
    Raises RefusedError if nothing matches, or more than fits in a command line.
    """
    entries = find(
        store,
        client,
        request.snapshot,
        "versions" if request.every_version else "newest",
        request.patterns,
        current_is_whole=current_is_whole,
        chains=chains,
        index=index,
    )
    names: list[str] = []
    covered: set[tuple[str, str]] = set()
    size = 0
    for entry in entries:
        if _is_covered(entry, covered):
            continue
        if entry.is_directory:
            covered.add((entry.snapshot, entry.path.rstrip("/")))
        name = f"./{entry.snapshot}{entry.path}"
        size += len(name.encode("utf-8", "surrogateescape")) + 1
        if size > MAX_ARGUMENTS:
            raise RefusedError(
                "too many files match for one restore", hint=pattern.NARROW
            )
        names.append(name)
    if not names:
        raise RefusedError(
            "nothing in the backups matches",
            hint="look with byteback-restore --list first",
        )
    return names


def _is_covered(entry: Entry, covered: set[tuple[str, str]]) -> bool:
    above = entry.path
    while above:
        above = above.rpartition("/")[0]
        if (entry.snapshot, above) in covered and entry.path != "/":
            return True
    return False


def _choose_trees(
    store: Store, client: str, snapshot: str, *, current_is_whole: bool
) -> list[str]:
    now = datetime.now(UTC)
    ranked = listing.rank_trees(
        store.trees(client), current_is_whole=current_is_whole, now=now
    )
    # Only "*" is special; check_snapshot has let through neither "?" nor "[".
    wanted = re.compile(fnmatch.translate(requests.check_snapshot(snapshot)))
    trees = [name for name in ranked if wanted.match(name) and not name.startswith(".")]
    if not trees:
        raise RefusedError(
            f"there is no snapshot {quote(snapshot)}"
            if ranked
            else f"there is no backup of {quote(client)} yet",
            hint="byteback-restore --verbose / lists all snapshots" if ranked else None,
        )
    return trees
