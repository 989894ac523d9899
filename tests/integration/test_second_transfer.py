"""What a backup sends once more is sent, too, when that transfer is cut off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import run_program

# For the client alone: in a name space of its own. The second transfer has --existing;
# the connection of its first attempt breaks when the server has done it all.
CUT_OFF = """
#!/bin/sh
/usr/bin/rsync "$@"
status=$?
case " $* " in *" --existing "*)
    echo "$status $*" >> {log}
    [ $(wc -l < {log}) != 1 ] || exit 12 ;;
esac
exit $status
"""
APART = 'mount --bind "$1" /usr/local/sbin && shift && exec "$@"'


@pytest.fixture
def source() -> Iterator[Path]:
    """A directory whose ACL rsync sends once more (see lost_acls.py)."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        source = Path(directory)
        (source / "home").mkdir()
        run_program(["setfacl", "-m", "u:nobody:r", source / "home"])
        run_program(["setfattr", "-n", "user.a", "-v", "b", source / "home"])
        yield source


def test_a_second_transfer_is_sent_again_to_the_tree_that_it_has_changed(
    enrolled_client: EnrolledClient, source: Path, tmp_path: Path
) -> None:
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    rsync = programs / "rsync"
    rsync.write_text(CUT_OFF.format(log=log).lstrip())
    rsync.chmod(0o755)
    program = enrolled_client.bin / "byteback-backup"
    words: list[str | Path] = ["--source", source, "--retry-delay", "0", "--verbose"]
    apart: list[str | Path] = ["unshare", "--mount", "sh", "-c", APART, "sh", programs]
    outcome = run_program([*apart, program, *words])
    sent = log.read_text().splitlines()
    statuses = [int(line.split()[0]) for line in sent]
    assert len(sent) == 3, outcome
    assert (statuses[0], statuses[2]) == (0, 0)
    assert statuses[1] != 0, "the server has another tree now"
    bases = ["--tree-base" in line for line in sent]
    assert bases == [True, True, False]
    assert "attempt 1 of 4 failed" in outcome.stderr
    copy = enrolled_client.current / source.relative_to("/") / "home"
    assert "user.rsync.%aacl" in os.listxattr(copy)
    # The next one compares everything, for the tree has no name that is known here.
    done = run_program([program, *words])
    assert "everything is compared" in done.stderr
