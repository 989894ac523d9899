"""A server that has fallen into other hands, and root on the client who restores."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program

ASKED = Path("/srv/asked")
EVIL = Path("/etc/cron.d/evil")
PROGRAM = Path("/usr/local/lib/evil-receive")
TREE = Path("/srv/evil-tree")
# What byteback-receive would be, were it the attacker's: it lists what $LIES holds and
# sends whatever it is asked for.
SOURCE = f"""#!/usr/bin/python3 -I
import os, sys
words = os.environ["SSH_ORIGINAL_COMMAND"].split()
if "--find" in words:
    sys.stdout.write(open("{PROGRAM}.lies").read())
elif words[0] == "byteback-restore":
    os.chdir("{TREE}")
    os.execv("/usr/bin/rsync", ["rsync", *words[words.index("--server"):]])
"""


@dataclass(frozen=True)
class Liar:
    """The client, and what its server says."""

    client: EnrolledClient

    def lists(self, *paths: Path | str, snapshot: str = "current") -> None:
        """From now on any search brings these."""
        common = {"snapshot": snapshot, "mode": stat.S_IFREG | 0o644, "size": 5}
        numbers = {"uid": 0, "gid": 0, "mtime_ns": 0}
        lines = [{"path": str(path), **common, **numbers} for path in paths]
        end = {"found": len(lines), "current_is_whole": True}
        text = "".join(json.dumps(line) + "\n" for line in [*lines, end])
        Path(f"{PROGRAM}.lies").write_text(text)

    def restore(self, *words: str | Path) -> Outcome:
        program = self.client.bin / "byteback-restore"
        return run_program([program, "--restore", *words], check=False, cwd=Path("/"))


@pytest.fixture
def liar(enrolled_client: EnrolledClient) -> Iterator[Liar]:
    for path in (EVIL, ASKED):
        place = TREE / str(path).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("evil\n")
    PROGRAM.write_text(SOURCE)
    PROGRAM.chmod(0o755)
    keys = enrolled_client.store / ".ssh" / "authorized_keys"
    key = enrolled_client.configuration / "key.pub"
    keys.write_text(f'restrict,command="{PROGRAM}" {key.read_text()}')
    assert not EVIL.exists()
    yield Liar(enrolled_client)
    ASKED.unlink(missing_ok=True)
    shutil.rmtree("/current", ignore_errors=True)


@pytest.mark.parametrize("where", [("--in-place", "--yes"), ("--to", "/"), ()], ids=str)
def test_nothing_is_written_that_was_not_asked_for(
    liar: Liar, where: tuple[str, ...]
) -> None:
    """The names that rsync is sent for come out of the server's own listing."""
    for path in (EVIL, "/", f"{ASKED}/below", "/etc/../etc/cron.d/evil"):
        liar.lists(path)
        refused = liar.restore(*where, ASKED)
        assert refused.status == 9, refused
    liar.lists(ASKED, EVIL)
    assert liar.restore(*where, ASKED).status == 9
    assert not ASKED.exists(), "nothing of a listing that lies"
    for snapshot in ("..", "etc/cron.d", "*", ".", "-e"):
        liar.lists(ASKED, snapshot=snapshot)
        assert liar.restore(*where, ASKED).status == 9
    liar.lists(ASKED)
    assert liar.restore(*where, ASKED).status == 0, "honest use"
    top = Path("/") if where else Path("/current")
    assert (top / str(ASKED).lstrip("/")).read_text() == "evil\n"
    assert not EVIL.exists()
    assert not list(Path("/").glob("*/etc/cron.d/evil"))


def test_a_sender_that_adds_names_is_refused_by_rsync(liar: Liar) -> None:
    """Its names are checked against those that it was asked for (D4)."""
    text = PROGRAM.read_text()
    swap = '["rsync", *[w for w in words[words.index("--server"):] if "files-from" not '
    text = text.replace(
        '["rsync", *words[words.index("--server"):]]',
        swap + 'in w and w != "--from0"], "./etc/cron.d/evil"]',
    )
    PROGRAM.write_text(text)
    liar.lists(ASKED)
    done = liar.restore("--in-place", "--yes", ASKED)
    assert done.status != 0
    assert not EVIL.exists()


def test_bombs_are_refused_in_a_sentence(liar: Liar) -> None:
    """Not by a traceback, and not without an end."""
    lies = Path(f"{PROGRAM}.lies")
    for bomb in ("[" * 200_000, '{"found": ' + "9" * 10_000 + "}", "x" * (4 << 20)):
        lies.write_text(bomb + "\n")
        for words in (
            ("--restore", "--to", "/srv/x"),
            ("--list",),
            ("--diff", "current", "2*"),
        ):
            program = liar.client.bin / "byteback-restore"
            done = run_program([program, *words, ASKED], check=False)
            assert done.status in (9, 12), done
            assert "Traceback" not in done.stderr
