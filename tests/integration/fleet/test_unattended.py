"""The files in docs/unattended do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.integration.conftest import CHECKOUT, CONFIGURATION
from tests.integration.fleet.test_invite import Inviting, inviting

__all__ = ["inviting"]  # a fixture
DIRECTORY = CHECKOUT / "docs" / "unattended"


def test_cloud_init_enrols_a_machine(inviting: Inviting) -> None:
    word = inviting.invite("--valid", "1d", "www.example.com")
    text = (DIRECTORY / "cloud-init.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    assert "byteback-clients invite --valid 1d www.example.com" in text
    command = " ".join(text.partition("- >-\n")[2].split())
    place = f"ssh://{inviting.user.name}@127.0.0.1:{inviting.sshd.port}/"
    command = command.replace("WORD", word)
    command = command.replace("byteback@mybackuphost.net:", place)
    done = inviting.run(["sh", "-c", command])
    assert done.status == 0, done
    assert (CONFIGURATION / "destination").read_text().strip() == place
    assert "www.example.com" in inviting.clients("list").stdout


@pytest.mark.parametrize(
    ("role", "program"),
    [
        ("byteback_client", "byteback-clients"),
        ("byteback_client", "byteback-setup-client"),
        ("byteback_server", "byteback-setup-server"),
    ],
)
def test_the_role_uses_words_that_there_are(
    inviting: Inviting, role: str, program: str
) -> None:
    text = (DIRECTORY / f"roles/{role}/tasks/main.yml").read_text()
    blocks = re.findall(rf"argv:\n\s+- {program}\n((?:\s+- .*\n)+)", text)
    assert blocks
    for block in blocks:
        words = [shlex.split(line)[1] for line in block.splitlines()]
        options = [word for word in words if word.startswith("--")]
        assert options
        subcommand = words[:1] if program == "byteback-clients" else []
        argv: list[str | Path] = [inviting.programs / program, *subcommand, "--help"]
        shown = inviting.run(argv).stdout
        assert all(f"{option} " in shown for option in options)


def test_the_server_role_keeps_what_set_up_writes(inviting: Inviting) -> None:
    """The lines of server.toml that its users are told to keep, and its example has."""
    kept = ('confinement = "require"', "sealed = true")
    told = (DIRECTORY / "roles/byteback_server/defaults/main.yml").read_text()
    example = (DIRECTORY / "server.yml").read_text()
    settings = CONFIGURATION / "server.toml"
    before = settings.read_text()
    settings.unlink()
    try:
        inviting.run([inviting.programs / "byteback-setup-server"])
        written = settings.read_text()
    finally:
        settings.write_text(before)
    for line in kept:
        assert line in told
        assert line in example
        assert line in written
