"""Filter rules mean to a real rsync what they are meant to mean."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from byteback.model.rsync_filter import contents_rule, file_rule, source_rules

TREE = [
    "etc/hosts",
    "etc/a b/c",
    "home/x/.bashrc",
    "home/y/z",
    "odd*[1]?/in",
    "odd2/in",
    "back\\slash/in",
    "back\\[1]/in",
    "top",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "source"


def sent(tree: Path, rules: list[str]) -> set[str]:
    """The files that rsync sends of ``tree``, seen as /, under ``rules``."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    target = tree.parent / "target"
    words = [f"--filter={rule}" for rule in rules]
    subprocess.run(["rsync", "-a", *words, f"{tree}/", target], check=True)
    found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    shutil.rmtree(target)
    return found


def test_the_root_needs_no_rules() -> None:
    assert source_rules([("/etc", True), ("/", True)]) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([("/etc", True)], {"etc/hosts", "etc/a b/c"}),
        ([("/etc/a b", True)], {"etc/a b/c"}),
        ([("/home/x", True), ("/top", False)], {"home/x/.bashrc", "top"}),
        ([("/odd*[1]?", True)], {"odd*[1]?/in"}),
        ([("/odd*[1]?/in", False)], {"odd*[1]?/in"}),
        ([("/back\\slash", True)], {"back\\slash/in"}),
        ([("/back\\slash/in", False)], {"back\\slash/in"}),
        ([("/back\\[1]/in", False)], {"back\\[1]/in"}),
        ([("/home", True), ("/home/x", True)], {"home/x/.bashrc", "home/y/z"}),
    ],
)
def test_only_the_sources_are_sent(
    tree: Path, sources: list[tuple[str, bool]], expected: set[str]
) -> None:
    assert sent(tree, source_rules(sources)) == expected


@pytest.mark.parametrize("name", ["etc", "odd*[1]?", "back\\slash", "back\\[1]"])
def test_contents_are_left_out_and_the_directory_kept(tree: Path, name: str) -> None:
    rules = [f"- {contents_rule('/' + name)}"]
    assert sent(tree, rules) == {t for t in TREE if not t.startswith(f"{name}/")}


@pytest.mark.parametrize("name", ["top", "odd*[1]?/in", "back\\slash/in"])
def test_one_file_is_left_out(tree: Path, name: str) -> None:
    assert sent(tree, [f"- {file_rule('/' + name)}"]) == set(TREE) - {name}
