"""A client's line in authorized_keys gets another name, and keeps all else."""

from __future__ import annotations

import pytest

from byteback.model.key_line import format_renamed_line, parse_key_line

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIGqVnQ4zJ9r8Hn6xQx0J2uY8i9f0g1h2i3j4k5l6m7n8"
KEY = f"ssh-ed25519 {BLOB} root@old with  words"
PROGRAM = "/bin/byteback-receive"
FROM = 'from="10.0.0.0/8,!10.1.1.1"'
# As the old tool wrote them.
PINNED = 'command="byteback-receive{}",from="192.0.2.1",no-pty,'
OLD_NAME, OTHER = 'environment="BYTEBACK_HOST=old"', 'environment="A=\\"b\\""'


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            f'restrict,command="{PROGRAM} --host old" {KEY}',
            f'restrict,command="{PROGRAM} --host new" {KEY}',
        ),
        (
            f'command="{PROGRAM} --host old",{FROM},restrict {KEY}',
            f'command="{PROGRAM} --host new",{FROM},restrict {KEY}',
        ),
        (
            f"{PINNED.format('')}{OLD_NAME},{OTHER} {KEY}",
            f"{PINNED.format(' --host new')}{OTHER} {KEY}",
        ),
        (
            f"restrict,command=\"'/a b/byteback-receive' --host old\" {KEY}",
            f"restrict,command=\"'/a b/byteback-receive' --host new\" {KEY}",
        ),
    ],
)
def test_only_the_name_changes(line: str, wanted: str) -> None:
    renamed = format_renamed_line(line.encode(), "new")
    assert renamed.decode() == wanted
    before, after = parse_key_line(line.encode()), parse_key_line(renamed)
    assert before is not None
    assert after is not None
    assert (before.host, after.host) == ("old", "new")
    assert after.blob == before.blob


@pytest.mark.parametrize("line", [KEY, "# nothing", f'command="/bin/sh" {KEY}'])
def test_others_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="lets no client in"):
        format_renamed_line(line.encode(), "new")
