"""The first server is gone: clients as they are restore from the second one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    free_port,
    wait_for_port,
    write_sshd_configuration,
)
from tests.integration.programs import require_program, run_program
from tests.integration.replicate.world import USER, First, Second
from tests.integration.source_tree import describe_tree, differences, make_source_tree
from tests.waiting import PATIENCE_S

Servers = tuple[First, Second]


@pytest.fixture
def second_sshd(servers: Servers, tmp_path: Path) -> Iterator[int]:
    """An sshd on the second server; its port. This machine's ssh knows its key."""
    _, second = servers
    program = require_program("sshd")
    host_key, configuration = tmp_path / "host_key", tmp_path / "sshd_config"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
    port, log = free_port(), tmp_path / "sshd.log"
    write_sshd_configuration(program, configuration, host_key, port)
    argv = second.inside(program, "-D", "-f", configuration, "-E", log)
    server = subprocess.Popen(list(map(str, argv)))
    try:
        wait_for_port(port, server, log)
        key = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        known = Path("/root/.ssh/known_hosts")
        known.parent.mkdir(mode=0o700, exist_ok=True)
        known.write_text(f"[127.0.0.1]:{port} {key}\n")
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def test_from_the_second(servers: Servers, second_sshd: int, tmp_path: Path) -> None:
    first, second = servers
    source = tmp_path / "source"
    make_source_tree(source)
    first.fill("www", source)
    (name,) = [first.snapshot("www", 2)]
    second.replicate()
    key = tmp_path / "client-key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    public = (tmp_path / "client-key.pub").read_text().strip()
    second.program("byteback-clients", "key", "--replace", public, "www")
    place = ("-d", f"ssh://{USER}@127.0.0.1:{second_sshd}/", "-k", key)
    restore = first.programs / "byteback-restore"
    listed = run_program([restore, *place, "--all", "/kinds/large"]).stdout
    assert name in listed or "current" in listed
    target = tmp_path / "target"
    words = (*("--restore", "--yes", "--snapshot", name), "--to", target)
    run_program([restore, *place, *words, "/names", "/kinds", "/rights"])
    for part in ("names", "kinds", "rights"):
        there, here = describe_tree(source / part), describe_tree(target / part)
        assert differences(there, here) == ""


def test_a_copy_takes_no_backups(
    servers: Servers, second_sshd: int, tmp_path: Path
) -> None:
    first, second = servers
    first.history("copied", 3)
    second.replicate()
    key = tmp_path / "copied"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    second.program("byteback-clients", "key", "--replace", f"{key}.pub", "copied")
    ssh = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    ssh += ["-i", str(key), "-p", str(second_sshd), f"{USER}@127.0.0.1"]
    assert run_program([*ssh, "byteback-receive --ping"]).status == 0
    for request in (
        "rsync --fake-super --server -logDtpre.iLsfxCIvu --delete . .",
        "byteback-receive --complete",
        f"byteback-receive --claim --machine={'0' * 32}",
    ):
        refused = run_program([*ssh, request], check=False)
        assert refused.status == 9, refused
        assert "fetches from another server" in refused.stderr
        assert "reason: replica" in refused.stderr
    listed = run_program([*ssh, "byteback-receive --list /etc/day"])
    assert "/etc/day" in listed.stdout
