"""A client and its server on one machine, reduced to directories and a token."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from byteback.client.backup.changes import LIST_OPTIONS
from byteback.client.record.keeper import Place, Round, Selected
from byteback.client.record.transfer_list import TransferList
from byteback.client.record.walk import Domain
from byteback.model.rsync_names import plain_name
from tests.integration.conftest import unmount
from tests.integration.programs import require_program, run_program
from tests.integration.record import reference
from tests.integration.record.histories import RULES

RACY_NS = 30_000_000  # instead of two seconds; the kernel's clock ticks every 4 ms
DISC_SIZE = 400 << 20


@contextlib.contextmanager
def mounted_disc(kind: str, *options: str) -> Iterator[Path]:
    """A small file system: the copy of the machine is an overlay itself."""
    require_program(f"mkfs.{kind}")
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(DISC_SIZE)
        run_program([f"mkfs.{kind}", "-q", *options, image.name])
        place = Path(tempfile.mkdtemp(prefix="disc-", dir="/srv"))
        run_program(["mount", "-o", "loop", image.name, place])
        try:
            yield place
        finally:
            unmount(place)
            place.rmdir()


def do_nothing() -> None:
    """An event, mostly while a transfer runs."""


class Machine:
    """Back up as byteback-backup does, without a network."""

    def __init__(self, disc: Path, work: Path, rules: Sequence[str] = RULES) -> None:
        self.source, self.target = disc / "source", work / "target"
        self.aside = disc / "away"
        for directory in (self.source, self.target, self.aside, work / "record"):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        self.work = work
        self.words = [reference.remote_shell(work)]
        filters = [rule.format(top="") for rule in rules]
        self.selected = Selected(filters, "always the same", Domain(["/"], []))
        self.place = Place(work / "record" / "record", work / "run", str(self.source))
        self.token: str | None = None

    def back_up(
        self,
        *,
        full: str | None = None,
        meanwhile: Callable[[], None] = do_nothing,
        afterwards: Callable[[], None] = do_nothing,
    ) -> Round:
        """One backup; ``meanwhile`` before rsync runs, ``afterwards`` after it."""
        with Round(self.selected, self.token, full, place=self.place) as round_:
            meanwhile()
            if round_.partial is None or not self._push(round_, round_.partial):
                reference.push_all(self.words, self.source, self.target)
            afterwards()
            round_.settle()
            self.token = os.urandom(8).hex()
            round_.finish(self.token)
        return round_

    def _push(self, round_: Round, partial: TransferList) -> bool:
        names, rules = self.work / "names", self.work / "rules"
        names.write_bytes(partial.names_file())
        rules.write_bytes(partial.rules_file())
        linked = reference.linked_names(self.target)
        words = [
            *(f"--files-from={names}", "--from0", f"--filter=merge {rules}"),
            *(*self.words, *LIST_OPTIONS),
        ]
        for _ in range(2):  # once more for ACLs that rsync loses
            status, said = reference.run_rsync(words, self.source, self.target)
            assert status in (0, 24), said
            for line in reference.changed_lines(said):
                _, flags, name = line.split(" ", 2)
                if flags == "*deleting":
                    path = plain_name(name.strip()).rstrip("/")
                    assert partial.may_delete(path), line
            if reference.touches(said, linked):
                reference.separate(self.target)
                round_.go_full("files with several names")
                return False
        return True

    def differences(self) -> list[str]:
        """The differences from what should be."""
        expected = self.work / "expected"
        return reference.compare(self.words, self.source, self.target, expected)
