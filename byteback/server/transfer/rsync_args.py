"""The server's rsync command: which words of a client's are let through, as a table.

A client's words are never passed on: they are read into this table's terms and a new
argument list is built from what they mean. Whatever is not in the table is refused by
name. The path, ``--fake-super`` and the direction are always the server's own. The list
is complete when it is known where rsync runs and what it can do (ServerCommand.finish).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from byteback.errors import RefusedError, quote
from byteback.system.confinement.sandbox import Grant, View

# Single letters, in rsync's bundled form (-vlogDtpre.iLsfxCIvu).
# Missing on purpose: s (secluded arguments: the real ones would arrive on stdin, past
# this table), k K L (follow links), b (backup files next to the real ones), y (fuzzy),
# a, h and the like (never sent to a server).
LETTERS = frozenset("lHogDtpAXrRzvqcnWUNdmuOJExSI")

# What rsync can do, told to the other side behind the letter e: -e31.2LsfxCIvu. A bare
# e would take the word behind it, one of ours, for its value.
_CAPABILITIES = re.compile(r"e[0-9]{0,3}\.[A-Za-z0-9.]{0,40}", re.ASCII)
_BLOCK_SIZE = re.compile(r"-B([0-9]{1,6})", re.ASCII)
_MODIFY_WINDOW = re.compile(r"-@(-?[0-9]{1,6})", re.ASCII)
MAX_BLOCK_SIZE = 128 * 1024  # rsync's own MAX_BLOCK_SIZE since protocol 30

MAX_VERBOSITY = 3  # more shows the workings of the server's rsync
# Letters that may stand twice. A client that was told to use -X and gives it by itself
# as well sends -XX, which to rsync is another option.
_COUNTED = frozenset("v")

_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,15}[A-Za-z]{0,3}", re.ASCII)
# With "help" among the names rsync ends at once, successfully: a transfer of nothing
# would count as a whole one.
_NAMES = re.compile(r"(?!.*help)[A-Za-z0-9,]{1,80}", re.ASCII | re.IGNORECASE)
# Character sets of real file names. Each name makes the C library load a converter, and
# through an unusual one of those a program has been taken over (CVE-2024-2961).
_CHARSET = re.compile(
    r"\.|utf-?8(-mac)?|(us-)?ascii|iso-?8859-\d{1,2}|latin-?\d|cp\d{3,4}|koi8-[ru]",
    re.ASCII | re.IGNORECASE,
)
_LOG_FORMAT = re.compile(r"%i|X|%i %n%L|%o|", re.ASCII)

# Long options without a value. None as pattern: no value is taken.
_COMMON_OPTIONS: dict[str, re.Pattern[str] | None] = {
    "bwlimit": _SIZE,
    "checksum-choice": _NAMES,
    "compress-choice": _NAMES,
    "compress-level": _NUMBER,
    "dirs": None,
    "iconv": _CHARSET,
    "info": _NAMES,
    "inplace": None,
    "log-format": _LOG_FORMAT,
    "max-size": _SIZE,
    "min-size": _SIZE,
    "modify-window": _NUMBER,
    "msgs2stderr": None,
    "new-compress": None,
    "no-W": None,
    "no-implied-dirs": None,
    "no-msgs2stderr": None,
    "no-r": None,
    "no-relative": None,
    "no-specials": None,
    "numeric-ids": None,
    "old-compress": None,
    "open-noatime": None,
    "partial": None,
    "specials": None,
    "stats": None,
    "timeout": _NUMBER,
}
PUSH_OPTIONS = _COMMON_OPTIONS | {
    "delete": None,
    "delete-after": None,
    "delete-before": None,
    "delete-delay": None,
    "delete-during": None,
    "delete-excluded": None,
    "delete-missing-args": None,
    "existing": None,
    "force": None,
    "fsync": None,
    "ignore-errors": None,
    "ignore-existing": None,
    "max-delete": _NUMBER,
}
# Names inside the protocol: safe only where the kernel confines the sender to its own
# tree, for rsync itself would follow "../" in them. build_pull checks that.
FILES_FROM = "--files-from=-"
PULL_OPTIONS = _COMMON_OPTIONS | {"from0": None}

# Our own, or without effect here: read and left out of what is built.
_DROPPED = frozenset({"--fake-super", "--debug=NONE"})

# Where links could lead to other clients' files, rsync 3.5 is told to stay inside.
# Where there is no other client's file, it is spared the walk to each file from the
# top, component by component, that looks out for such links: two thirds of its system
# calls (D26).
_CONFINE, _NEEDS_NO_CONFINING = "--confine-root", "--insecure-links"
_LOG_OPTIONS = ("--log-file-format=%i %n", "--log-file=")
# With hard links and files that change under other names rsync 3.5 comes to a
# standstill that no time-out ends, unless it knows all names from the start.
_ALL_NAMES_FIRST = "--no-inc-recursive"

# Not rsync's: what a push is called, and what it takes current to be (tree_token.py).
_TREE_PUSH, _TREE_BASE = "--tree-push=", "--tree-base="
_TREE = re.compile(r"[0-9a-f]{32}", re.ASCII)

_HINTS = {
    "-s": "run rsync with --no-protect-args: byteback must see what is asked for",
    "--super": "byteback keeps owners by --fake-super",
}


class _Words:
    """A client's words, understood."""

    def __init__(self) -> None:
        self.letters = ""
        self.capabilities = ""
        self.options: list[str] = []
        self.is_server = False
        self.is_sender = False
        self.timeout_s = 0
        self.tree: dict[str, str] = {}


class ServerCommand(NamedTuple):
    """The server's own rsync command for a request, but for where it runs."""

    words: tuple[str, ...]
    is_dry_run: bool
    deletes: bool  # what the client does not have: as every backup does
    push: str | None = None  # the client's own number of this transfer
    base: str | None = None  # what it takes current for, where it sends only changes
    reads_names: bool = False  # inside the protocol
    # Of an rsync that fetches, and speaks to the other side through a bridge.
    fds: tuple[int, ...] = ()
    helpers: tuple[Grant, ...] = ()
    output: int | None = None

    @property
    def must_be_confined(self) -> bool:
        """True if rsync is never to run where it could go anywhere."""
        return self.reads_names or bool(self.fds)

    def finish(
        self, view: View, known: Collection[str], *, knows_names_first: bool = False
    ) -> list[str]:
        """rsync's whole argument list, without its name, for the place of ``view``.

        ``known`` are the options that this rsync has (options.options). With
        ``knows_names_first`` it reads all names before it changes anything.
        """
        words = list(self.words)
        if knows_names_first:
            words.insert(0, _ALL_NAMES_FIRST)
        if view.fifo is not None:
            *options, last = _LOG_OPTIONS
            words[:0] = [*options, f"{last}{view.fifo}"]
        if _CONFINE in known:
            confining = f"{_CONFINE}={view.tree}"
            words.insert(0, _NEEDS_NO_CONFINING if view.is_alone else confining)
        return words


def build_push(words: Sequence[str], io_timeout_s: int) -> ServerCommand:
    """The command that receives into the working directory.

    ``words`` are the client's, up to the lone "." and the path, which is ignored.
    ``io_timeout_s`` caps the silence that the client may ask for.
    Raises RefusedError, naming the word, for anything outside the table.
    """
    if "." not in words:
        raise RefusedError("the rsync request has no '.' before its path")
    options = list(words[: list(words).index(".")])
    read = _read(options, PUSH_OPTIONS)
    if read.is_sender:
        raise RefusedError(
            "rsync cannot read from here directly", hint="use byteback-restore"
        )
    if "--inplace" in read.options:
        # Together they rewrite whole files for a small change, which no two snapshots
        # could share then (and rsync 3.1.3 even corrupts them).
        read.letters = read.letters.replace("S", "")
    return _build(read, io_timeout_s, ["./"])


def build_pull(
    words: Sequence[str],
    io_timeout_s: int,
    names: Sequence[str],
    *,
    is_confined: bool,
) -> ServerCommand:
    """The command that sends ``names``, which the server resolved, to the client.

    With ``--files-from=-`` among the words the names come through the protocol: that
    is refused unless the transfer ``is_confined`` to its tree by the kernel.
    """
    options = list(words)
    if FILES_FROM in options:
        if not is_confined:
            raise RefusedError(
                "this server cannot confine a restore, so it takes no list of files",
                hint="on the server, install bubblewrap or use a kernel with Landlock",
            )
        options.remove(FILES_FROM)
        read = _read(options, PULL_OPTIONS)
        read.options.append(FILES_FROM)
    else:
        read = _read(options, PULL_OPTIONS)
        # The implied top of what the old clients pull is not theirs to change.
        read.options.append("--exclude=.")
    if not read.is_sender:
        raise RefusedError("a restore can only read: --sender is missing")
    return _build(read, io_timeout_s, names)


def build_whole_pull(words: Sequence[str], io_timeout_s: int) -> ServerCommand:
    """The command that sends all of the working directory, its own top included.

    ``words`` are as build_push takes them; raises RefusedError as that does.
    """
    if "." not in words:
        raise RefusedError("the rsync request has no '.' before its path")
    read = _read(list(words[: list(words).index(".")]), PULL_OPTIONS)
    if not read.is_sender:
        raise RefusedError("this key can only read: --sender is missing")
    command = _build(read, io_timeout_s, ["./"])
    # Filter rules travel in the protocol, and could name files outside (D4).
    return command._replace(reads_names=True)


def _build(read: _Words, io_timeout_s: int, paths: Sequence[str]) -> ServerCommand:
    if not read.is_server:
        raise RefusedError("rsync runs here as --server only")
    timeout_s = min(read.timeout_s or io_timeout_s, io_timeout_s)
    cluster = "-" + read.letters + read.capabilities
    built = [
        "--server",
        *(["--sender"] if read.is_sender else []),
        *([cluster] if cluster != "-" else []),
        *read.options,
        f"--timeout={timeout_s}",
        # Last of all, for of --super and --fake-super the last one wins.
        "--fake-super",
        ".",
        *paths,
    ]
    deletes = any(option.startswith("--delete") for option in read.options)
    return ServerCommand(
        tuple(built),
        "n" in read.letters,
        deletes,
        read.tree.get(_TREE_PUSH),
        read.tree.get(_TREE_BASE),
        reads_names=FILES_FROM in read.options,
    )


def _read(
    words: Sequence[str],
    options: dict[str, re.Pattern[str] | None],
) -> _Words:
    read = _Words()
    for word in words:
        if word == "--server":
            read.is_server = True
        elif word == "--sender":
            read.is_sender = True
        elif word in _DROPPED:
            continue
        elif word.startswith((_TREE_PUSH, _TREE_BASE)) and options is PUSH_OPTIONS:
            name, equals, value = word.partition("=")
            if not _TREE.fullmatch(value):
                raise _refused(name)
            read.tree[name + equals] = value
        elif word.startswith("--"):
            _read_option(read, word, options)
        elif word.startswith("-") and len(word) > 1:
            _read_letters(read, word)
        else:
            raise _refused(word)
    return read


def _read_option(
    read: _Words, word: str, options: dict[str, re.Pattern[str] | None]
) -> None:
    name, equals, value = word[2:].partition("=")
    if name not in options:
        raise _refused(f"--{name}")
    pattern = options[name]
    if pattern is None:
        if equals:
            raise _refused(word)
    elif not equals or not pattern.fullmatch(value):
        raise _refused(word)
    if name == "timeout":
        read.timeout_s = max(0, int(value))
    else:
        _add_option(read, word)


def _add_option(read: _Words, word: str) -> None:
    if word not in read.options:
        read.options.append(word)


def _read_letters(read: _Words, word: str) -> None:
    block = _BLOCK_SIZE.fullmatch(word)
    if block or _MODIFY_WINDOW.fullmatch(word):
        if block and not 0 < int(block[1]) <= MAX_BLOCK_SIZE:
            raise _refused(word)
        _add_option(read, word)
        return
    plain, e, rest = word[1:].partition("e")
    for letter in plain:
        if letter not in LETTERS:
            raise _refused(f"-{letter}")
        if letter not in read.letters or letter in _COUNTED:
            read.letters += letter
    if e:
        if not _CAPABILITIES.fullmatch(e + rest):
            raise _refused(word)
        read.capabilities = e + rest
    if read.letters.count("v") > MAX_VERBOSITY:
        raise _refused("-" + "v" * read.letters.count("v"))


def _refused(word: str) -> RefusedError:
    return RefusedError(
        f"rsync's {quote(word)} is not allowed here", hint=_HINTS.get(word)
    )
