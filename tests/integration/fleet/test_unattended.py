"""The files in docs/unattended do what they say."""

from __future__ import annotations

import re
import shlex

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


@pytest.mark.parametrize("program", ["byteback-clients", "byteback-setup-client"])
def test_the_role_uses_words_that_there_are(inviting: Inviting, program: str) -> None:
    text = (DIRECTORY / "roles/byteback_client/tasks/main.yml").read_text()
    (block,) = re.findall(rf"argv:\n\s+- {program}\n((?:\s+- .*\n)+)", text)
    words = [shlex.split(line)[1] for line in block.splitlines()]
    options = [word for word in words if word.startswith("--")]
    assert options
    subcommand = words[:1] if program == "byteback-clients" else []
    shown = inviting.run([inviting.programs / program, *subcommand, "--help"]).stdout
    assert all(f"{option} " in shown for option in options)
