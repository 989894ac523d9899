"""/etc/fstab is edited without touching anybody else's line."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.errors import UsageError
from byteback.system import fstab

OTHERS = b"# a comment\n\nUUID=1-2  /\text4 defaults 0 1\n/x\\040y /m\\040n none bind\n"
ENTRY = fstab.Entry("/var/my image", "/srv/byte back", "btrfs", ("loop", "nofail"))
LINE = b"/var/my\\040image /srv/byte\\040back btrfs loop,nofail 0 0\n"
MARK = fstab.MARK.encode() + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fstab"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OTHERS, OTHERS + MARK + LINE),
        (OTHERS + b"last", OTHERS + b"last\n" + MARK + LINE),
        (b"bad \xff byte\r\n", b"bad \xff byte\r\n" + MARK + LINE),
        (b"\n", b"\n" + MARK + LINE),
        (b"", MARK + LINE),
        (None, MARK + LINE),
    ],
)
def test_add_leaves_other_lines_alone(
    path: Path, before: bytes | None, after: bytes
) -> None:
    if before is not None:
        path.write_bytes(before)
    fstab.add(ENTRY, path)
    assert path.read_bytes() == after


def test_added_entry_is_found_again(path: Path) -> None:
    path.write_bytes(OTHERS)
    fstab.add(ENTRY, path)
    found = fstab.find("/srv/byte back", path)
    assert found is not None
    assert found.is_ours
    assert (found.spec, found.options) == (ENTRY.spec, ENTRY.options)


def test_others_entries_are_read_but_not_ours(path: Path) -> None:
    path.write_bytes(OTHERS)
    found = fstab.find("/m n", path)
    assert found is not None
    assert found.spec == "/x y"
    assert not found.is_ours


@pytest.mark.parametrize("text", ["a b\tc", "back\\slash", "\\040", "#hash", "plain"])
def test_fields_survive_encoding(text: str) -> None:
    assert fstab.decode(fstab.encode(text)) == text
    assert not {" ", "\t"} & set(fstab.encode(text))


def test_a_trailing_slash_does_not_hide_an_entry(path: Path) -> None:
    path.write_bytes(b"/dev/sdb /srv/byteback/ btrfs defaults 0 0\n")
    assert fstab.find("/srv/byteback", path) is not None


def test_add_options_changes_one_field(path: Path) -> None:
    path.write_bytes(OTHERS + b"/dev/sdb   /srv/x\tbtrfs  noatime   0 2\n# end\n")
    entry = fstab.find("/srv/x", path)
    assert entry is not None
    fstab.add_options(entry, ["nofail", "user_subvol_rm_allowed"], path)
    assert path.read_bytes() == (
        OTHERS + b"/dev/sdb   /srv/x\tbtrfs  "
        b"noatime,nofail,user_subvol_rm_allowed   0 2\n# end\n"
    )


def test_mode_and_link_survive(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(OTHERS)
    real.chmod(0o640)
    path.symlink_to(real)
    fstab.add(ENTRY, path)
    assert path.is_symlink()
    assert real.read_bytes().endswith(LINE)
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fstab", "real"]


def test_a_newline_cannot_forge_a_line() -> None:
    forged = fstab.Entry("/x\n/dev/sda", "/srv", "btrfs", ("loop",))
    with pytest.raises(UsageError):
        fstab.format_line(forged)
