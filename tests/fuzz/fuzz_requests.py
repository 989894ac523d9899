"""Feeds the request parser with whatever leads to new ways through it.

    python3 -m tests.fuzz.fuzz_requests [-max_total_time=3600] [CORPUS-DIRECTORY]

It needs atheris (``pip install atheris``) and stops at the first crash, or at the first
request that is accepted although it leads out of the table of rsync_options.
"""

from __future__ import annotations

import sys
from pathlib import Path

from byteback.errors import RefusedError

TIMEOUT_S = 600
RECORDED = Path(__file__).parents[1] / "unit" / "rsync_requests.txt"


def check(command: bytes) -> None:
    """Parse one request as the server does; whatever is accepted must be harmless."""
    from byteback.model import pattern
    from byteback.server import rsync_options
    from byteback.wire import requests

    try:
        request = requests.parse_request(command)
        match request:
            case requests.Push(words):
                argv = rsync_options.build_push(words, TIMEOUT_S).argv
                check_argv(argv, ["./"])
            case requests.Pull(snapshot, _, words, patterns):
                assert "/" not in snapshot
                assert ".." not in snapshot.split(".")
                argv = rsync_options.build_pull(
                    words, TIMEOUT_S, ["./x"], is_confined=True
                ).argv
                assert "--sender" in argv
                check_argv(argv, ["./x"])
                check_patterns(pattern.compile_patterns(patterns))
            case requests.List(snapshot, _, _, patterns):
                assert "/" not in snapshot
                check_patterns(pattern.compile_patterns(patterns))
            case _:
                pass
    except RefusedError as refusal:
        message = refusal.message
        assert message
        assert message.isprintable()


def check_argv(argv: tuple[str, ...], names: list[str]) -> None:
    """Whatever rsync is told is the server's own, or an option that reaches nothing."""
    from byteback.server.rsync_options import PULL_OPTIONS, PUSH_OPTIONS

    end = len(argv) - len(names)
    assert argv[:2] == ("rsync", "--server")
    assert list(argv[end:]) == names
    assert argv[end - 2 : end] == ("--fake-super", ".")
    assert argv[end - 3].startswith("--timeout=")
    own = {"--sender", "--exclude=.", "--files-from=-", "--fake-super"}
    for word in argv[2 : end - 2]:
        assert word.startswith("-")
        assert "/" not in word
        assert len(word) < 300
        if word.startswith("--") and word not in own:
            name = word[2:].partition("=")[0]
            assert name in PUSH_OPTIONS or name in PULL_OPTIONS
        elif not word.startswith("--") and word[1] not in "B@":
            assert not set(word[1:].partition("e")[0]) & set("sLkKbyT")
            if "e" in word:
                assert "." in word.partition("e")[2]


def check_patterns(patterns: object) -> None:
    """No component of a compiled pattern leads upwards or through a slash."""
    from byteback.model.pattern import Literal, Pattern

    assert isinstance(patterns, list)
    for one in patterns:
        assert isinstance(one, Pattern)
        for component in one.components:
            if isinstance(component, Literal):
                assert component.name not in ("", ".", "..")


def main() -> None:
    """Run until told to stop, beginning from what real clients send."""
    import atheris

    with atheris.instrument_imports(include=["byteback"]):
        import byteback.model.pattern
        import byteback.server.rsync_options
        import byteback.wire.requests  # noqa: F401 # instrumented as they load

    for line in RECORDED.read_text().splitlines():
        if line and not line.startswith("#"):
            check(line.partition("\t")[2].encode())
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
