"""rsync's words for a file whose note of owner and mode is damaged."""

from __future__ import annotations

import pytest

from byteback.client.restore import damaged
from byteback.client.restore.damaged import DamagedNoteError
from byteback.system.rsync.command import Outcome

NAME = "2026-11-22T20:15+0000"


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("/backup/srv/a", "/srv/a"),
        ("/backup/backup/x", "/backup/x"),
        (f"/home/byteback/web/{NAME}/srv/a", "/srv/a"),
        (f"/home/byteback/web/{NAME}/srv/{NAME}/a", f"/srv/{NAME}/a"),
        ('/backup/srv/a "b"', '/srv/a "b"'),
        ('/backup/srv/a": "b', "/srv/a"),  # what is left out then is not this file
        ("/backup/srv/nl\\#012x", "/srv/nl\nx"),
        ("/elsewhere/a", "/elsewhere/a"),
    ],
)
def test_the_file_is_known_by_its_path_on_the_client(told: str, path: str) -> None:
    line = f'Corrupt user.rsync.%stat xattr attached to "{told}": "100640 0,0"'
    with pytest.raises(DamagedNoteError) as caught:
        damaged.check(Outcome(12, stderr_tail=(line,)), NAME)
    assert (caught.value.path, caught.value.snapshot) == (path, NAME)


def test_other_words_are_none_of_it() -> None:
    damaged.check(Outcome(12, stderr_tail=('rsync: "Corrupt" "user" ', "x")), NAME)
