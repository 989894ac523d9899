"""The words about a backup that is done and lacks something."""

from __future__ import annotations

import pytest

from byteback.client.backup import verdict
from byteback.client.backup.shortfall import LONGEST_LINE, Shortfall, unread_names
from byteback.errors import IncompleteBackupError
from byteback.system.rsync.command import PARTIAL, VANISHED, Outcome
from tests.unit.test_connection import CONNECTION

UNREAD = (
    '[sender] send_files failed to open "/a b": Permission denied (13)',
    'opendir "/c" failed: Input/output error (5)',
    '[sender] send_files failed to open "/a b": Permission denied (13)',
)
TOO_LONG = f"filename overflows max-path len by 206: /srv/{'x' * 4200}/end"


def error(outcome: Outcome) -> IncompleteBackupError:
    found = Shortfall(outcome)
    assert found
    return found.error()


def test_names_of_unread_files_are_told_once_each() -> None:
    outcome = Outcome(PARTIAL, problems=UNREAD)
    assert unread_names(outcome) == ["/a b", "/c"]
    assert error(outcome).message == "the backup is done, but 2 files could not be read"
    one = Outcome(PARTIAL, problems=UNREAD[:1])
    assert error(one).message == "the backup is done, but one file could not be read"


def test_a_file_that_two_complaints_name_is_one() -> None:
    again = "ERROR: a b failed verification -- update discarded."
    found = error(Outcome(PARTIAL, problems=UNREAD[:1], remote_messages=(again,)))
    assert found.message == "the backup is done, but one file could not be read"


@pytest.mark.parametrize("status", [0, VANISHED])
def test_nothing_is_missing(status: int) -> None:
    assert not Shortfall(Outcome(status, remote_messages=("a banner",)))


def test_complaints_of_every_form_are_shown_and_long_ones_cut_in_the_middle() -> None:
    gone = 'file has vanished: "/tmp/x"'
    found = error(
        Outcome(PARTIAL, problems=UNREAD[:1], remote_messages=(gone, TOO_LONG))
    )
    assert found.message == "the backup is done, but some files could not be read"
    assert found.details[0] == UNREAD[0]
    (line,) = found.details[1:]
    assert line.startswith("filename overflows max-path len by 206: /srv/xxx")
    assert line.endswith("xxx/end")
    assert len(line) <= LONGEST_LINE


def test_a_partial_transfer_always_says_something() -> None:
    assert error(Outcome(PARTIAL)).details == (
        "some files could not be transferred (rsync status 23)",
    )


def test_deletions_that_rsync_left_out_are_told() -> None:
    found = error(Outcome(PARTIAL, problems=UNREAD, kept_deleted=True))
    assert found.message.endswith(
        "could not be read, and so files that were deleted here were kept in it"
    )


def test_files_whose_attributes_are_lost_are_named() -> None:
    paths = ("/srv/a", "/srv/\n", "/srv/c")
    found = Shortfall(Outcome(0), paths[:1]).error()
    assert found.message == (
        "the backup is done, but one file has attributes that no backup keeps"
    )
    assert found.details == ("/srv/a",)
    both = Shortfall(Outcome(PARTIAL, problems=UNREAD * 3), paths).error()
    assert both.message == (
        "the backup is done, but 2 files could not be read; and 3 files have "
        "attributes that no backup keeps"
    )
    assert both.details == (*UNREAD, "/srv/a", "/srv/\\n")


def test_a_long_path_does_not_make_a_disc_look_full() -> None:
    """The name of a file is the last thing in such a line."""
    line = f"{TOO_LONG}: No space left on device (28)"
    verdict.check(
        Outcome(PARTIAL, remote_messages=(line,), stderr_tail=(line,)), CONNECTION
    )
