"""README speaks of messages, options and files that really are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()


def messages() -> list[str]:
    """The parts of messages that README explains, without what varies in them."""
    section = README.partition("| it says | do |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in section.splitlines()[2:]]
    quoted = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    return [part.strip() for text in quoted for part in text.split("…")]


def words_of_the_code() -> str:
    """All modules in one, with strings that go on in another line joined."""
    text = "\n".join(path.read_text() for path in CHECKOUT.glob("byteback/**/*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("message", messages())
def test_messages_are_the_programs_own(message: str) -> None:
    assert message in words_of_the_code()


def test_options_are_documented() -> None:
    pages = "".join(path.read_text() for path in (CHECKOUT / "man").iterdir())
    known = set(re.findall(r"--[a-z][a-z-]+", pages.replace("\\-", "-")))
    ours = re.findall(r"byteback-[a-z-]+(?: [^`\n#|]*?)?(--[a-z][a-z-]+)", README)
    assert ours
    assert set(ours) <= known


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (CHECKOUT / target).exists()
