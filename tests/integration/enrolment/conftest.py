"""Servers to enrol at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import conftest
from tests.integration.conftest import ServerUser, SshServer
from tests.integration.enrolment.server import Server, sshd_that


@pytest.fixture
def server(
    server_user: ServerUser, installed: Path, sshd: SshServer
) -> Iterator[Server]:
    conftest.forget_client()
    yield Server(server_user, sshd, installed)
    conftest.forget_client()


@pytest.fixture
def open_server(server: Server) -> Server:
    """One where the administrator's default key opens a shell."""
    server.let_in(conftest.make_admin_key().with_suffix(".pub"))
    return server


@pytest.fixture
def password_server(server: Server, tmp_path: Path) -> Iterator[Server]:
    """One whose sshd takes the store user's password."""
    with sshd_that(server, tmp_path, "PasswordAuthentication yes") as with_passwords:
        yield with_passwords
