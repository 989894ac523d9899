"""Holds the shape of the code: who may import whom, homes, sizes, start-up."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "byteback"

# The map of the code: what each package may import from. Itself is always allowed, and
# a package does not stand for the packages inside it. client and server are two
# machines, of which one trusts nobody: they share code only through what is below them.
BASE = {"", "errors"}
SYSTEM = {
    *("system", "system.btrfs", "system.confinement", "system.rsync", "system.ssh"),
}
SHARED = BASE | SYSTEM | {"locking", "log", "model", "model.glob", "wire"}
STORE = SHARED | {"server", "server.store"}
RECORDED = STORE | {"server.accounting", "server.snapshots"}
ALLOWED = {
    "": set(),
    "errors": set(),
    "model": BASE,
    "model.glob": BASE,
    "log": BASE | {"model"},
    "locking": BASE | {"model"},
    "wire": BASE | {"model", "system"},
    "system": BASE | {"model"},
    "system.btrfs": BASE | {"model", "system"},
    "system.confinement": BASE | {"model", "system"},
    "system.rsync": BASE | {"model", "system"},
    "system.ssh": BASE | {"model", "system"},
    "client": SHARED,
    "client.transport": SHARED | {"client"},
    "client.dumps": SHARED | {"client"},
    "client.setup": SHARED | {"client", "client.transport"},
    "client.record": SHARED | {"client"},
    "client.backup": SHARED | {"client", "client.transport", "client.record"},
    "client.restore": SHARED | {"client", "client.transport", "client.backup"},
    "server": SHARED | {"server.store"},
    "server.store": SHARED,
    "server.access": STORE,
    "server.accounting": STORE,
    "server.snapshots": STORE | {"server.accounting"},
    "server.search": STORE | {"server.snapshots"},
    "server.transfer": RECORDED | {"server.search"},
    "server.fleet": RECORDED | {"server.access", "server.search", "server.transfer"},
    "server.prune": RECORDED
    | {"server.access", "server.fleet", "server.search", "server.transfer"},
    "server.status": RECORDED,
    "server.session": RECORDED | {"server.search", "server.transfer"},
    "server.replicate": RECORDED
    | {"server.access", "server.fleet", "server.session", "server.transfer"},
    "server.setup": STORE | {"server.access"},
    "server.discs": STORE | {"server.setup"},
}
PACKAGES = {
    ".".join(path.parent.relative_to(PACKAGE).parts)
    for path in PACKAGE.rglob("__init__.py")
}
ALLOWED["cli"] = SHARED | {name for name in PACKAGES if name != "cli"}
HOMES = {
    "click": "byteback.cli",
    "cryptography": "byteback.model.ed25519",
    "psutil": "byteback.system.host",
    "xattr": "byteback.system.rsync.fake_super",
    "jinja2": "byteback.server.status.page",
    "markupsafe": "byteback.server.status.page",
    "paramiko": "byteback.system.ssh.session",
    "subprocess": "byteback.system.process",
}
# Pure functions take the time as an argument and touch nothing outside.
NOT_IN_MODEL = {
    *("asyncio", "fcntl", "glob", "logging", "multiprocessing", "os", "platform"),
    *("pwd", "random", "select", "shutil", "signal", "socket", "sqlite3"),
    *("subprocess", "sys", "tempfile", "threading", "time", "urllib"),
}
CLOCKS = {"now", "utcnow", "today"}
DISC_METHODS = {
    *("chmod", "exists", "is_dir", "is_file", "iterdir", "lstat", "mkdir", "open"),
    *("read_bytes", "read_text", "stat", "symlink_to", "unlink", "write_bytes"),
    *("write_text",),
}
# A forced command must start in little more than bare Python.
SLOW_TO_IMPORT = {
    *("click", "cryptography", "dataclasses", "hashlib", "inspect", "logging"),
    *("paramiko", "psutil", "shutil", "tempfile", "traceback", "xattr"),
}

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 50
MAX_COMMAND_LINES = 25
# Name of a module or function: the reason why it may be larger.
SIZE_EXCEPTIONS = {
    "byteback.cli._boundary.run": "one clause for each way in which programs end",
    "byteback.cli.receive._serve": "the same for the forced command, without click",
}
# Launchers that start no installed program, with the reason.
OTHER_LAUNCHERS = {
    "byteback-trial": "a walk-through from a checkout, written in shell",
}


@dataclass(frozen=True)
class Module:
    """A module by its dotted name, parsed."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        """The second word of the name: a subpackage, or a module of the top."""
        return [*self.name.split("."), ""][1]

    @property
    def package(self) -> str:
        """The package below byteback that it is in; a module of the top is its own."""
        words = self.name.split(".")[1:]
        if self.path.name != "__init__.py" and len(words) > 1:
            words.pop()
        return ".".join(words)


def load_module(path: Path) -> Module:
    words = list(path.relative_to(CHECKOUT).with_suffix("").parts)
    if words[-1] == "__init__":
        words.pop()
    return Module(".".join(words), path, ast.parse(path.read_text(), str(path)))


MODULES = [load_module(path) for path in sorted(PACKAGE.rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)


def imports_of(module: Module) -> Iterator[str]:
    """Dotted names of all imports, those inside functions included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def functions_of(
    module: Module,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def package_of(imported: str) -> str:
    """Which package of byteback an import names; ``""`` is byteback itself."""
    words = imported.split(".")[1:]
    if words and (PACKAGE / f"{words[0]}.py").exists():
        return words[0]
    while words and ".".join(words) not in PACKAGES:
        words.pop()
    return ".".join(words)


@each_module
def test_imports_point_one_way(module: Module) -> None:
    assert module.package in ALLOWED, "a new package needs its arrows here"
    allowed = ALLOWED[module.package] | {module.package}
    own = [name for name in imports_of(module) if name.split(".")[0] == "byteback"]
    wrong = [name for name in own if package_of(name) not in allowed]
    assert not wrong, f"{module.name} must not import {wrong}"


def test_arrows_make_no_circle() -> None:
    left = {name: wanted - {name} for name, wanted in ALLOWED.items()}
    while left:
        free = [name for name, wanted in left.items() if not wanted & set(left)]
        assert free, f"these import each other: {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_say_what_is_done_there(package: str) -> None:
    path = PACKAGE.joinpath(*package.split(".") if package else (), "__init__.py")
    assert ast.get_docstring(ast.parse(path.read_text()))


@each_module
def test_each_outside_package_has_one_home(module: Module) -> None:
    for name in imports_of(module):
        home = HOMES.get(name.split(".")[0])
        assert home is None or f"{module.name}.".startswith(f"{home}."), (
            f"{name} is imported by {home} alone, not by {module.name}"
        )


@each_module
def test_nothing_prints(module: Module) -> None:
    names = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    assert "print" not in names


def test_library_does_not_exit() -> None:
    for module in MODULES:
        if module.part != "cli":
            assert "sys.exit" not in map(ast.unparse, called_functions(module))
            assert "SystemExit" not in ast.dump(module.tree)


def called_functions(module: Module) -> list[ast.expr]:
    nodes = ast.walk(module.tree)
    return [node.func for node in nodes if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.part == "model"], ids=lambda m: m.name
)
def test_model_does_no_input_or_output(module: Module) -> None:
    used = {name.split(".")[0] for name in imports_of(module)}
    assert not used & NOT_IN_MODEL
    for function in called_functions(module):
        assert not (isinstance(function, ast.Name) and function.id == "open")
        if isinstance(function, ast.Attribute):
            assert function.attr not in CLOCKS, "the time is an argument"
            assert function.attr not in DISC_METHODS


@each_module
def test_files_are_short(module: Module) -> None:
    lines = len(module.path.read_text().splitlines())
    assert lines < MAX_FILE_LINES or module.name in SIZE_EXCEPTIONS, lines


@each_module
def test_functions_are_short(module: Module) -> None:
    for function in functions_of(module):
        name = f"{module.name}.{function.name}"
        limit = MAX_COMMAND_LINES if module.part == "cli" else MAX_FUNCTION_LINES
        lines = body_lines(function)
        assert lines < limit or name in SIZE_EXCEPTIONS, f"{name}: {lines} lines"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its decorators and parameters and docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


def test_size_exceptions_are_still_needed() -> None:
    names = {module.name for module in MODULES}
    for module in MODULES:
        names |= {f"{module.name}.{f.name}" for f in functions_of(module)}
    assert set(SIZE_EXCEPTIONS) <= names
    assert all(SIZE_EXCEPTIONS.values())


@pytest.mark.parametrize(
    "modules",
    [
        "byteback.cli.receive",
        "byteback.server.search.run, byteback.server.accounting.ledger",
        "byteback.server.transfer.sessions",
        "byteback.server.snapshots.take, byteback.server.store.tree_token",
    ],
)
def test_forced_command_starts_fast(modules: str) -> None:
    """The modules that the program, a search, a transfer and its completion import."""
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & SLOW_TO_IMPORT
    assert not any(name.startswith("byteback.client") for name in done.stdout.split())


def test_launchers_are_the_installed_programs() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    launchers = {path.name for path in (CHECKOUT / "bin").iterdir() if path.is_file()}
    assert launchers - set(OTHER_LAUNCHERS) == set(project["scripts"])
    for program, target in project["scripts"].items():
        module, function = target.split(":")
        text = (CHECKOUT / "bin" / program).read_text()
        assert f"from {module} import {function}\n" in text
        assert text.startswith("#!/usr/bin/python3")


def test_programs_in_tests_import_what_there_is() -> None:
    """Tests start Python programs of their own, which no linter and no mypy reads.

    One that ends with ImportError can make an attack seem to fail.
    """
    statement = re.compile(r"^\s*from (byteback[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    for path in sorted((CHECKOUT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            for module, names in statement.findall(node.value):
                for name in names.split(" as ")[0].split(","):
                    assert is_there(module, name.strip()), (
                        f"{path}:{node.lineno}: {module} has no {name.strip()}"
                    )


def is_there(module: str, name: str) -> bool:
    """True if ``from module import name`` works."""
    place = CHECKOUT.joinpath(*module.split("."))
    if (place / f"{name}.py").exists() or (place / name / "__init__.py").exists():
        return True
    return hasattr(importlib.import_module(module), name)
