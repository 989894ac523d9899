"""Lines through a fifo: all of them, and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.system import fifo


def test_all_lines_are_taken(tmp_path: Path) -> None:
    path, heard = tmp_path / "fifo", list[bytes]()
    path.write_text("left by a run that was killed")
    with fifo.listening(path, heard.append), path.open("wb") as file:
        file.writelines(b"%d\n" % n for n in range(50_000))
        file.write(b"x" * (fifo.MAX_LINE + 1))
    assert len(heard) == 50_002
    assert heard[1] == b"1\n"
    assert not path.exists()


def test_nobody_who_writes_is_no_line(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with fifo.listening(tmp_path / "fifo", heard.append):
        pass
    assert heard == []


def test_who_fails_to_listen_holds_up_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "fifo"

    def fail(line: bytes) -> None:
        raise ValueError(line)

    with (
        pytest.raises(ValueError, match="0"),
        fifo.listening(path, fail),
        path.open("wb") as file,
    ):
        file.writelines(b"%d\n" % n for n in range(50_000))


def test_a_writer_that_stays_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fifo, "END_S", 0.1)
    path = tmp_path / "fifo"
    with pytest.raises(TimeoutError), fifo.listening(path, lambda _: None):
        file = path.open("wb")
    file.close()
    assert not path.exists()
