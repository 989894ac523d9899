"""Every combination of what can say what to send, judged on a real tree."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from byteback.client.backup.rules import Request, select
from byteback.client.settings import Files
from byteback.errors import UsageError
from tests.integration.selection.dry_run import dry_run
from tests.integration.selection.mounted import disc, mounted

NAMES = ("a.txt", "b.skip", "c.doc", "deep/er/d.txt", "deep/er/e.skip")
# Below the tree: two plain directories, a disc with others in it.
PLACES = ("plain", "other", "disc", "disc/memory", "disc/second")


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Directories with the same names in each, some of which are mount points."""
    with (
        tempfile.TemporaryDirectory(prefix="select-", dir="/srv") as top,
        contextlib.ExitStack() as stack,
    ):
        for place in PLACES:
            point = Path(top, place)
            point.mkdir()
            if place in ("disc", "disc/second"):
                stack.enter_context(disc(point))
            if place == "disc/memory":
                stack.enter_context(mounted(point, "-t", "tmpfs", "none"))
            for name in NAMES:
                (point / name).parent.mkdir(parents=True, exist_ok=True)
                (point / name).write_text(name)
        yield Path(top)


@dataclass(frozen=True)
class Case:
    """The log's text, where there is one."""

    sources: tuple[str, ...]  # below the tree
    filter_file: str = ""
    exclude_file: str = ""
    flags: str = ""
    exclude: str | None = None  # on the command line

    def expected(self, tree: Path) -> set[str]:
        """The files below the tree that are sent, told from the tree itself."""
        found = set()
        for source in self.sources:
            top = tree / source
            for path in [top] if top.is_file() else top.rglob("*"):
                if path.is_file() and self._is_sent(tree, top, path):
                    found.add(str(path.relative_to(tree)))
        return found

    def _is_sent(self, tree: Path, source: Path, path: Path) -> bool:
        above = [p for p in path.parents if p != source and source in p.parents]
        points = [p for p in above if p.is_mount()]
        # Rules that bring something in stand before what is left out by itself.
        includes = self.filter_file or "--include" in self.flags
        is_automatic = self.exclude is None and not includes
        if is_automatic and tree / "disc/memory" in points:
            return False
        if self.flags.startswith("-x") and points:
            return False
        if path == source:  # what is named is sent
            return True
        if self.filter_file and path.suffix != ".txt":
            return False
        return not (
            (self.exclude_file and path.suffix == ".doc")
            or (self.exclude and path.name == "a.txt" and not includes)
            or ("*.skip" in self.flags and path.suffix == ".skip")
        )


ONLY_TEXT = "+ *.txt\n+ */\n- *\n"
CASES = [
    Case(sources, filter_file, exclude_file, flags, exclude)
    for (sources, filter_file, exclude_file, flags), exclude in zip(
        itertools.product(
            [
                ("plain",),
                ("disc",),
                ("disc/second",),
                ("plain", "disc"),
                ("plain/deep/er", "disc/memory", "plain/b.skip"),
                ("disc", "disc/second/deep"),
            ],
            ["", ONLY_TEXT],
            ["", "*.doc\n"],
            ["", "--exclude=*.skip", "-x", "-xx --exclude '*.skip'", "--include='*'"],
        ),
        itertools.cycle([None, "a.txt", None]),
        strict=False,
    )
]


def sent(tree: Path, case: Case, files: Path) -> set[str]:
    """All paths that rsync would send, as absolute ones; directories end in a slash."""
    for name, text in (
        ("rsync_filter", case.filter_file),
        ("excludes", case.exclude_file),
        ("rsync_flags", case.flags),
    ):
        (files / name).unlink(missing_ok=True)
        if text:
            (files / name).write_text(text)
    excludes = None if case.exclude is None else [case.exclude]
    sources = [str(tree / source) for source in case.sources]
    return dry_run(select(Files(files), Request(sources, excludes)))


@pytest.mark.parametrize("group", range(12))
def test_every_combination(tree: Path, tmp_path: Path, group: int) -> None:
    wrong: list[tuple[Case, set[str], set[str]]] = []
    for case in CASES[group::12]:
        found = sent(tree, case, tmp_path)
        inside = {path for path in found if path.startswith(f"{tree}/")}
        files = {os.path.relpath(p, tree) for p in inside if not p.endswith("/")}
        expected = case.expected(tree)
        outside = found - inside - {"/", "/srv/", f"{tree}/"}
        if files != expected or outside:
            wrong.append((case, files - expected | outside, expected - files))
    assert wrong == []


@pytest.mark.parametrize("level", ["-x", "-xx"])
def test_one_file_system_keeps_or_drops_mount_points(
    tree: Path, tmp_path: Path, level: str
) -> None:
    found = sent(tree, Case(("disc",), flags=level), tmp_path)
    points = {f"{tree}/disc/memory/", f"{tree}/disc/second/"}
    assert found & points == (points if level == "-x" else set())


SMALL = ("etc", "proc", "sys", "srv")


@pytest.mark.parametrize(
    "case",
    [
        Case(("../..",), "+ *.txt\n+ */\n- *\n"),
        Case(("../..",), exclude="/srv"),
        Case(("../..",), flags="-f '+ /**' -f '+ /proc/**'", exclude="/srv"),
    ],
    ids=["filter", "exclude", "include"],
)
def test_the_kernels_files_are_never_sent(
    tree: Path, tmp_path: Path, case: Case
) -> None:
    # The rest of a machine takes minutes to go through.
    large = [f"- {path}\n" for path in Path("/").iterdir() if path.name not in SMALL]
    case = replace(case, filter_file="".join(large) + case.filter_file)
    found = sent(tree, case, tmp_path)
    assert {"/proc/", "/sys/", "/etc/"} <= found
    assert not [path for path in found if path.startswith(("/proc/s", "/sys/k"))]
    assert ("/etc/passwd" in found) is not ("*.txt" in case.filter_file)


def test_the_kernels_files_are_sent_if_they_are_asked_for(tmp_path: Path) -> None:
    selection = select(
        Files(tmp_path), Request(["/proc/sys/kernel/random", "/etc/fstab"])
    )
    found = dry_run(selection)
    assert "/proc/sys/kernel/random/boot_id" in found
    assert {"/proc/", "/proc/sys/", "/proc/sys/kernel/"} <= found
    assert not [path for path in found if path.startswith("/proc/self")]
    assert "/proc/sys/kernel/hostname" not in found


def test_what_is_left_out_by_itself_is_sent_if_it_is_asked_for(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as asked:
        Path(asked, "file").touch()
        selection = select(Files(tmp_path), Request([asked, "/etc/fstab"]))
        found = dry_run(selection)
    assert f"{asked}/file" in found
    assert len([path for path in found if path.startswith("/var/tmp/")]) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rsync_filter", "- /a\n!\n+ /b\n"),
        ("rsync_filter", "clear\n"),
        ("rsync_filter", ". {more}\n"),
        ("rsync_filter", "merge,w {more}\n"),
        ("rsync_filter", "merge,C {more}\n"),
        ("excludes", "/a\n!\n"),
        ("rsync_flags", "--filter=!\n"),
        ("rsync_flags", "-f clear\n"),
        ("rsync_flags", "--exclude '!'\n"),
        ("rsync_flags", "--exclude-from={more}\n"),
        ("rsync_flags", "-f '. {more}'\n"),
    ],
)
def test_rules_that_empty_all_rules_are_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "more").write_text("!\n")
    (tmp_path / name).write_text(text.format(more=tmp_path / "more"))
    with pytest.raises(UsageError, match="empties all rules"):
        select(Files(tmp_path), Request(["/etc/fstab"]))


def test_harmless_rules_that_look_alike_are_taken(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("clear\n!important\n# !\n")
    (tmp_path / "excludes").write_text("clear\n!!\n- !\n;!\n")
    (tmp_path / "rsync_filter").write_text(f"-! /srv\n. -\n.- {tmp_path / 'more'}\n")
    selection = select(Files(tmp_path), Request(["/etc/fstab"]))
    assert {Path(path).name for path, _ in selection.files} == {
        *("rsync_filter", "excludes", "more"),
    }
    changed = tmp_path / "more"
    changed.write_text("another\n")
    assert select(Files(tmp_path), Request(["/etc/fstab"])) != selection
    with pytest.raises(UsageError, match="empties all rules"):
        select(Files(tmp_path), Request(["/etc"], ["!"]))


def test_a_directorys_own_rules_stay_in_their_place(tree: Path, tmp_path: Path) -> None:
    """An ordinary user may write those that -F reads."""
    merged = tree / "plain/.rsync-filter"
    merged.write_text("!\n+ /../**\n+ *\n- /deep\n")
    try:
        found = sent(tree, Case(("plain",), flags="-F"), tmp_path)
    finally:
        merged.unlink()
    assert {path for path in found if not path.startswith(f"{tree}/plain/")} == {
        *("/", "/srv/", f"{tree}/"),
    }
