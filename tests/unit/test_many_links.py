"""Names that the server cannot link are found again, and only those."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from byteback.client.backup import many_links
from byteback.system.rsync.command import PARTIAL, Outcome, Unlinked, transfer

LINE = 'rsync: [generator] link "/backup{0}" => {1} failed: Too many links (31)'


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_links, "FEWEST", 3)
    monkeypatch.setattr(many_links, "NAMES_AT_ONCE", 2)


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Those of one file, without the first slash; some are odd."""
    (tmp_path / "below").mkdir()
    odd = ["a", "b => c", 'd" => "e', "below/f\n", ".g.h", "below/i"]
    paths = [tmp_path / name for name in odd]
    paths[0].write_text("x")
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    return [str(path)[1:] for path in paths]


def run(lines: Sequence[str], status: int = PARTIAL) -> Outcome:
    """The outcome of an rsync that prints these lines."""
    script = 'printf "%s\\n" "$@" >&2; exit ' + str(status)
    shown = [line.replace("\n", "\\#012") for line in lines]
    return transfer(["sh", "-c", script, "sh", *shown])


class Sender:
    """Notes what is sent, and how that ends."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.sent: list[list[str]] = []
        self.outcome = outcome or Outcome(0)

    def __call__(self, names: Sequence[str]) -> Outcome:
        self.sent.append(list(names))
        return self.outcome


def complete(outcome: Outcome, source: Path, send: Sender, *foreign: str) -> Outcome:
    return many_links.complete(outcome, [str(source)], foreign, send)


def test_all_are_sent_once_more(tmp_path: Path, names: list[str]) -> None:
    target, *rest = names
    outcome = run([LINE.format(f"/{name}", target) for name in rest])
    assert not outcome.problems
    assert not outcome.all_problems
    send = Sender()
    done = complete(outcome, tmp_path, send)
    assert done.is_success
    assert sorted(chain(*send.sent)) == sorted(rest)
    assert max(map(len, send.sent)) == 2


def test_a_name_under_which_rsync_replaces_a_file(
    tmp_path: Path, names: list[str]
) -> None:
    line = LINE.format(f"/{tmp_path}/below/.i.157", names[0])
    send = Sender()
    assert complete(run([line]), tmp_path, send).is_success
    assert send.sent == [[names[-1]]]


def test_what_cannot_be_found_is_named(tmp_path: Path, names: list[str]) -> None:
    lines = [LINE.format(f"/{tmp_path}/gone", names[0])]
    done = complete(run(lines), tmp_path, Sender())
    assert done.status == PARTIAL
    assert done.problems == (
        f'link "/backup/{tmp_path}/gone" => {names[0]} failed: Too many links',
    )


def test_other_complaints_stay(tmp_path: Path, names: list[str]) -> None:
    other = 'rsync: [sender] send_files failed to open "/x": Permission denied (13)'
    lines = [other, LINE.format(f"/{names[1]}", names[0])]
    send = Sender()
    done = complete(run(lines), tmp_path, send)
    assert done.status == PARTIAL
    assert done.problems == (other.removeprefix("rsync: "),)
    assert send.sent == [[names[1]]]
    again = Sender(Outcome(PARTIAL, problems=("no",), unlinked=(Unlinked("a", "b"),)))
    done = complete(run(lines[1:]), tmp_path, again)
    assert done.problems == ("no", 'link "a" => b failed: Too many links')


def test_a_server_gets_no_other_file(tmp_path: Path, names: list[str]) -> None:
    """A hostile one may say anything, and learn nothing that is left out."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "secret2").hardlink_to(secret)
    for target in (names[0], str(secret)[1:], "no/such/file", "", "..", "/"):
        done = complete(run([LINE.format(secret, target)]), tmp_path, send := Sender())
        assert not send.sent
        assert not done.is_success
    # Nor what is outside of what is backed up, or on another file system there.
    line = LINE.format(f"/{names[-1]}", names[0])
    for source, foreign in ((tmp_path / "other", ""), (tmp_path, f"{tmp_path}/below")):
        done = complete(run([line]), source, send := Sender(), foreign)
        assert not send.sent
        assert not done.is_success


def test_the_next_backup_begins_as_this_one_ended(tmp_path: Path) -> None:
    state = tmp_path / "below/state"
    assert many_links.options(state) == []
    many_links.remember(Outcome(PARTIAL, unlinked=(Unlinked("a", "b"),)), state)
    assert many_links.options(state) == [many_links.ALL_AT_ONCE]
    many_links.remember(Outcome(0), state)
    assert many_links.options(state) == []
