"""Settings of all tests: their kinds, what they need, and copies of the machine.

Integration tests change users, mounts and /etc. pytest run by root gives them to
processes that each run on a throw-away copy of the machine (tests/machine), one copy or
as many as ``-n`` says. pytest-xdist does that: it starts a Python, and it does not care
where.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.requirements import do_without, require_program

CHECKOUT = Path(__file__).resolve().parent.parent
INTEGRATION = CHECKOUT / "tests" / "integration"
MACHINE = CHECKOUT / "tests" / "machine"

# Kinds that run only when -m names them, and the packages that the copy needs for it.
ON_REQUEST = {
    "databases": ("mariadb-server", "postgresql"),
    "monitoring": (
        *("chromium", "chromium-driver", "dma", "prometheus"),
        *("prometheus-node-exporter", "python3-selenium"),
    ),
    "failover": (
        *("crmsh", "pacemaker-cli-utils", "resource-agents", "ceph-resource-agents"),
        "fence-agents",
    ),
    "whole_system": (),
    "lvm": (),
    "nightly": (),
    "benchmark": (),
}
# Modules that take minutes. They start first: a run ends when its last module does.
LONG = (
    "restore/",
    "hostile/test_rsync_protocol",
    "integration/backup/",
    "record/test_backups",
    "test_dead_mounts",
    "pruning/test_full_disc",
    "test_restore_obstacles",
    "test_growth",
    "enrolment/test_reasons",
    "hostile/test_rsync_arguments",
    "sealing/",
    "replicate/",
    "test_discs",
    "test_other_machine",
    "test_journey",
    "test_hostile_server",
    "server_setup/test_presence",
    "faults/",
    "record/",
    "enrolment/",
    "pruning/",
    "hostile/",
)
NO_COPY = pytest.StashKey[str]()

# A shared machine may stall for longer than hypothesis allows an example, or the making
# of one, and its database of failures would be written into a checkout that may belong
# to others.
hypothesis.settings.register_profile(
    "byteback",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("byteback")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the tests that can go on for as long as one likes."""
    parser.getgroup("byteback").addoption(
        "--nightly",
        type=float,
        metavar="SECONDS",
        help="kill processes and cut the power for so long, at random moments",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have integration tests run on copies of the machine, if this is a real one."""
    if hasattr(config, "workerinput"):
        # The controller's directory is on the real machine.
        config.option.basetemp = None
        return
    # A copy has copies of its own where -n asks for several.
    is_distributed = getattr(config.option, "dist", "no") != "no"
    if asks_for_integration(config) and (is_distributed or not is_on_a_copy()):
        reason = reason_against_copies(config)
        if reason:
            config.stash[NO_COPY] = reason
        else:
            run_on_copies(config)


def is_on_a_copy() -> bool:
    """True if this process runs on a copy of the machine already."""
    return os.environ.get("BYTEBACK_TEST_MACHINE") == "1"


def asks_for_integration(config: pytest.Config) -> bool:
    """True if the paths on the command line lead to integration tests."""
    for argument in config.args:
        path = Path(config.invocation_params.dir, argument.partition("::")[0]).resolve()
        if INTEGRATION.is_relative_to(path) or path.is_relative_to(INTEGRATION):
            return not config.option.collectonly
    return False


def reason_against_copies(config: pytest.Config) -> str | None:
    """The reason why there can be no copy, or None."""
    if os.geteuid() != 0:
        return "changes the machine: needs root, for a throw-away copy"
    if not config.pluginmanager.hasplugin("xdist"):
        return "changes the machine: needs pytest-xdist, or tests/machine PYTEST"
    if config.option.usepdb:
        return "changes the machine: --pdb needs tests/machine PYTEST"
    tried = subprocess.run([MACHINE, "true"], capture_output=True, check=False)
    said = tried.stderr.decode(errors="replace").strip()
    return said or "tests/machine failed" if tried.returncode else None


def run_on_copies(config: pytest.Config) -> None:
    """Tell pytest-xdist to start its processes on copies, a module for each."""
    option = config.option
    words = [str(MACHINE)]
    packages = [
        package
        for kind in ON_REQUEST
        if kind in option.markexpr
        for package in ON_REQUEST[kind]
    ]
    if packages:
        words += ["--with", ",".join(packages)]
    python = shlex.join([*words, sys.executable])
    option.tx = [f"{max(1, len(option.tx))}*popen//python={python}"]
    # Fixtures of modules and packages are expensive. The order is ours: see LONG.
    option.dist = "loadfile"
    option.loadscopereorder = False


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark integration tests as such."""
    if item.path.is_relative_to(INTEGRATION):
        item.add_marker("integration")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Skip the kinds that are not asked for; begin with what takes long."""
    for item in items:
        for kind in ON_REQUEST:
            if item.get_closest_marker(kind) and not is_asked_for(kind, config):
                item.add_marker(pytest.mark.skip(reason=f"on request: -m {kind}"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


def is_asked_for(kind: str, config: pytest.Config) -> bool:
    """True if the command line asks for one of the kinds of ON_REQUEST."""
    if kind == "nightly" and config.option.nightly is not None:
        return True
    return kind in config.option.markexpr


def rank(nodeid: str) -> int:
    """Sort key of a test: the place of its module among the long ones."""
    for number, part in enumerate(LONG):
        if part in nodeid:
            return number
    return len(LONG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose ``needs`` are not met, with the reason; fail it under CI."""
    if item.get_closest_marker("integration") and not is_on_a_copy():
        reason = item.config.stash.get(NO_COPY, "changes the machine")
        do_without(reason)
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            require_program(program)
