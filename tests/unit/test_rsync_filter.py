"""Filter rules mean to a real rsync what they are meant to mean."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from byteback.model.rsync_filter import bounds, contents_rule, file_rule, leave_in

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
    assert bounds(["/etc", "/"]) == []


SOURCES: list[tuple[list[str], set[str]]] = [
    (["/etc"], {"etc/hosts", "etc/a b/c"}),
    (["/etc/a b"], {"etc/a b/c"}),
    (["/home/x", "/top"], {"home/x/.bashrc", "top"}),
    (["/odd*[1]?"], {"odd*[1]?/in"}),
    (["/odd*[1]?/in"], {"odd*[1]?/in"}),
    (["/back\\slash"], {"back\\slash/in"}),
    (["/back\\slash/in"], {"back\\slash/in"}),
    (["/back\\[1]/in"], {"back\\[1]/in"}),
    (["/home", "/home/x"], {"home/x/.bashrc", "home/y/z"}),
    (["/home/y/z", "/home/x"], {"home/x/.bashrc", "home/y/z"}),
    (["/no/such"], set()),
]


@pytest.mark.parametrize(("sources", "expected"), SOURCES)
def test_only_the_sources_are_sent(
    tree: Path, sources: list[str], expected: set[str]
) -> None:
    assert sent(tree, bounds(sources)) == expected
    # Whatever is said behind them.
    assert sent(tree, [*bounds(sources), "+ *", "+ /**"]) == expected


@pytest.mark.parametrize(("sources", "expected"), SOURCES)
def test_what_stands_behind_the_bounds_rules_inside_them(
    tree: Path, sources: list[str], expected: set[str]
) -> None:
    rules = [*bounds(sources), "- .bashrc", "- /back*", "- c"]
    gone = {name for name in expected if name.endswith(("/.bashrc", "/c"))}
    assert sent(tree, rules) == expected - gone


def test_a_source_in_what_is_left_out_is_kept(tree: Path) -> None:
    rules = leave_in("/home", ["/home/y/z", "/etc", "/"])
    assert sent(tree, rules) == set(TREE) - {"home/x/.bashrc"}


@pytest.mark.parametrize("name", ["etc", "odd*[1]?", "back\\slash", "back\\[1]"])
def test_contents_are_left_out_and_the_directory_kept(tree: Path, name: str) -> None:
    rules = [f"- {contents_rule('/' + name)}"]
    assert sent(tree, rules) == {t for t in TREE if not t.startswith(f"{name}/")}


@pytest.mark.parametrize("name", ["top", "odd*[1]?/in", "back\\slash/in"])
def test_one_file_is_left_out(tree: Path, name: str) -> None:
    assert sent(tree, [f"- {file_rule('/' + name)}"]) == set(TREE) - {name}
