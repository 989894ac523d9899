"""docs/failover, with Pacemaker's own programs and agents, as far as one machine goes.

One machine is both gateways here: the one that has the store, and the one that has not.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from byteback.server.setup.volume import DISCARD, OPTIONS
from tests.integration.conftest import CHECKOUT, EnrolledClient
from tests.integration.programs import Outcome, run_program

pytestmark = pytest.mark.failover

RESOURCES = CHECKOUT / "docs" / "failover" / "byteback.crm"
AGENTS = Path("/usr/lib/ocf/resource.d")
NOT_RUNNING = 7  # of an agent's monitor, in the OCF standard


def parameters(resource: str) -> dict[str, str]:
    """The parameters of a resource in the page's file."""
    text = RESOURCES.read_text().replace("\\\n", " ")
    (line,) = re.findall(rf"^primitive {resource} .*", text, re.MULTILINE)
    words = shlex.split(line.partition(" params ")[2].partition(" op ")[0])
    return dict(word.split("=", 1) for word in words)


def run_agent(agent: str, action: str, values: Mapping[str, str]) -> Outcome:
    """Run an agent as Pacemaker does."""
    env = {"OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": "store"}
    env |= {f"OCF_RESKEY_{name}": value for name, value in values.items()}
    return run_program([AGENTS / agent, action], env=env, check=False)


def test_pacemaker_takes_the_resources(tmp_path: Path) -> None:
    base = tmp_path / "cib.xml"
    base.write_text(run_program(["cibadmin", "--empty"]).stdout)
    env = {"CIB_file": str(base), "HOME": str(tmp_path)}
    run_program(["crm", "configure", "load", "update", RESOURCES], env=env)
    checked = run_program(["crm_verify", "--live-check", "-VV"], env=env)
    assert "error" not in checked.stderr
    shown = run_program(["crm", "configure", "show"], env=env).stdout
    assert "group byteback-server store-image store-mount store-address" in shown


def test_the_mount_has_the_stores_options() -> None:
    wanted = {*OPTIONS, *DISCARD}
    assert set(parameters("store-mount")["options"].split(",")) == wanted
    assert parameters("store-mount")["directory"] == "/srv/byteback"
    assert parameters("store-image")["cephconf"] == "/etc/ceph/ceph.conf"


def test_pacemakers_mount_is_a_store(enrolled_client: EnrolledClient) -> None:
    """What has no mount is quiet, and what has it again serves its clients."""
    store = enrolled_client.store
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    (device,) = [line.split()[0] for line in mounts if line.split()[1] == str(store)]
    values = parameters("store-mount")
    values |= {"device": device, "directory": str(store)}
    values["options"] = values["options"].replace("discard=async", "nodiscard")
    with Path("/etc/fstab").open("a") as table:
        table.write(f"{device} {store} btrfs noauto,{values['options']} 0 0\n")
    agent = "heartbeat/Filesystem"
    backup: list[str | Path] = [enrolled_client.bin / "byteback-backup"]
    backup += ["--source", "/etc"]
    run_program(backup)
    assert run_agent(agent, "monitor", values).status == 0
    # The loop must not go with its mount, as an image of Ceph would not.
    held = os.open(device, os.O_RDONLY)
    assert run_agent(agent, "stop", values).status == 0
    assert run_agent(agent, "monitor", values).status == NOT_RUNNING
    for words in (["byteback-prune", "--prune"], ["byteback-status", "--notify"]):
        assert run_program(words) == Outcome(0, "", "")
    away = run_program([*backup, "--retry-number", "0"], check=False)
    # The keys are in the store: a client must not be sent to a machine without it.
    assert away.status == 9
    assert list(store.iterdir()) == []
    started = run_agent(agent, "start", values)
    assert started.status == 0, started
    os.close(held)
    run_program(backup)
    run_program(["byteback-prune", "--prune"])
