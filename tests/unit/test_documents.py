"""The project's own documents: each path that they name exists, and versions agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import byteback

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/DESIGN.md"),
    "tests/README.md",
)
# In backticks, a path below one of the checkout's own directories.
_PATH = re.compile(r"`((?:\.ci|bin|byteback|debian|docs|hooks|man|tests)/[\w./*-]*)`")
_LINK = re.compile(r"\]\(([^):#]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_documents_exist(document: str) -> None:
    text = (CHECKOUT / document).read_text()
    for name in _PATH.findall(text):
        # README.md of tests/ names paths inside tests/ too: those start elsewhere.
        assert any(CHECKOUT.glob(name.rstrip("/"))), f"{document}: {name}"
    for link in _LINK.findall(text):
        assert (CHECKOUT / document).parent.joinpath(link).exists(), link


def test_where_to_start_names_files() -> None:
    text = (CHECKOUT / "docs/DESIGN.md").read_text()
    table = text.partition("## Where to start")[2].partition("\n## ")[0]
    assert len(_PATH.findall(table)) > 8


@pytest.mark.parametrize(
    ("version", "status"), [(byteback.__version__, 0), ("0.0.1", 1)]
)
def test_a_release_needs_one_version_everywhere(version: str, status: int) -> None:
    done = subprocess.run(
        [CHECKOUT / ".ci/release", "--check", version],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert ("make them all the same" in done.stderr) is bool(status)
