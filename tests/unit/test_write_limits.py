"""A program that may write below one directory only, as a restore's rsync."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from byteback.system import process
from byteback.system.confinement import landlock, write_limits

PROGRAM = """
import os, sys
for name in sys.argv[1:]:
    kind, _, path = name.partition(":")
    try:
        if kind == "write": open(path, "w").close()
        elif kind == "append": open(path, "a").close()
        elif kind == "remove": os.unlink(path)
        elif kind == "mkdir": os.mkdir(path)
        elif kind == "link": os.link(*path.split(":"))
        elif kind == "rename": os.rename(*path.split(":"))
        elif kind == "symlink": os.symlink("/etc/passwd", path)
        elif kind == "fifo": os.mkfifo(path)
        elif kind == "truncate": os.truncate(path, 0)
        elif kind == "kill": os.kill(int(path), 0)
        elif kind == "read": open(path).close()
        elif kind == "run": assert os.system(path) == 0
        print("yes")
    except OSError:
        print("no")
"""


def tried(target: Path, *words: str) -> list[str]:
    confine = write_limits.only_below([target])
    if confine is None:
        assert not landlock.is_available()
        pytest.skip("Landlock does not work here")
    argv = [sys.executable, "-c", PROGRAM, *words]
    return process.run(argv, in_child=confine).text.split()


def test_what_is_outside_stays_as_it_is(tmp_path: Path) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    target.mkdir()
    other.mkdir()
    (other / "file").write_text("kept")
    (target / "way out").symlink_to(other)
    forbidden = [
        f"write:{other}/new",
        f"write:{target}/way out/new",
        f"append:{other}/file",
        f"remove:{other}/file",
        f"mkdir:{other}/directory",
        f"link:{other}/file:{target}/link",
        f"rename:{other}/file:{target}/moved",
        f"symlink:{other}/symlink",
        f"fifo:{other}/fifo",
        f"kill:{os.getpid()}",
    ]
    if landlock.abi() < 6:
        forbidden.pop()
    assert tried(target, *forbidden) == ["no"] * len(forbidden)
    assert [path.name for path in other.iterdir()] == ["file"]
    assert (other / "file").read_text() == "kept"


def test_what_a_restore_needs_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    allowed = [
        f"write:{tmp_path}/new",
        f"mkdir:{tmp_path}/directory",
        f"link:{tmp_path}/new:{tmp_path}/below/link",
        f"rename:{tmp_path}/new:{tmp_path}/directory/moved",
        f"truncate:{tmp_path}/below/link",
        f"symlink:{tmp_path}/symlink",
        f"fifo:{tmp_path}/fifo",
        f"remove:{tmp_path}/fifo",
        "write:/dev/null",
        "read:/etc/passwd",
        "run:true",
    ]
    assert tried(tmp_path, *allowed) == ["yes"] * len(allowed)
