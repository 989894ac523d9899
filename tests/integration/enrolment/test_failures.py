"""Clear words where a machine cannot be enrolled."""

from __future__ import annotations

import os
import socketserver
import threading
from pathlib import Path

import pytest

from tests.integration import conftest
from tests.integration.conftest import HOST, USER
from tests.integration.enrolment.server import ETC, ROOT_SSH, Server, replaced_programs
from tests.integration.programs import run_program
from tests.waiting import wait_until


class Chatterer(socketserver.BaseRequestHandler):
    """A service that is no sshd."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail.example ESMTP\r\n")


def test_clear_words_for_a_server_that_is_not_there(server: Server) -> None:
    conftest.make_admin_key()
    program = server.bin / "byteback-setup-client"
    listener = socketserver.TCPServer(("127.0.0.1", 0), Chatterer)
    not_ssh = listener.server_address[1]
    threading.Thread(target=listener.handle_request, daemon=True).start()
    for destination, words in (
        (f"ssh://{USER}@127.0.0.1:{conftest.free_port()}/", "refused the connection"),
        (f"{USER}@no-such-host.invalid:", "there is no host"),
        (f"ssh://{USER}@127.0.0.1:{not_ssh}/", "does not speak ssh"),
    ):
        options = ("--hostname", HOST, "--destination", destination)
        outcome = run_program([program, *options], check=False)
        assert outcome.status == 12
        assert words in outcome.stderr
        assert "\n  hint: " in outcome.stderr
    listener.server_close()


def test_a_port_behind_the_host_is_asked_back_for(open_server: Server) -> None:
    program = open_server.bin / "byteback-setup-client"
    options = ("--hostname", HOST, "--accept-new-host-key")
    wrong = f"{USER}@127.0.0.1:{open_server.sshd.port}"
    refused = run_program([program, *options, "--destination", wrong], check=False)
    assert refused.status == 2
    assert not ETC.exists() or not (ETC / "key").exists()
    right = refused.stderr.split()[-1]
    run_program([program, *options, "--destination", right])


def test_clear_words_for_a_server_without_byteback(open_server: Server) -> None:
    program = conftest.LAUNCHERS / "byteback-setup-client-receive"
    target = program.readlink()
    program.unlink()
    try:
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    finally:
        program.symlink_to(target)
    assert outcome.status == 10
    assert "not installed" in outcome.stderr


def test_clear_words_for_a_server_of_the_old_tool(open_server: Server) -> None:
    # It takes the first word for the host's name whatever it looks like.
    programs = {
        "byteback-setup-client-receive": """
            [ -n "$SSH_CONNECTION" ] || exit 1
            mkdir ~/"$1" && host=$1 && shift || exit 1
            options="command=\\"byteback-receive\\",environment=\\"BYTEBACK_HOST=$host\\""
            echo "$options $*" >>~/.ssh/authorized_keys
            echo "Create subvolume './$host/current'" """,
        "byteback-receive": """
            [ "$SSH_ORIGINAL_COMMAND" = "byteback-receive --ping" ] && exit 0
            echo "byteback-receive failed" >&2; exit 9""",
    }
    with replaced_programs(programs):
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    assert outcome.status == 9
    assert "upgrade the byteback package on the server first" in outcome.stderr
    assert not (ETC / "destination").exists()
    made = {path.name for path in open_server.store.iterdir()}
    assert made == {HOST, ".ssh", ".byteback"}


def test_clear_words_for_a_directory_of_roots(open_server: Server) -> None:
    (open_server.store / HOST).mkdir()
    outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    assert outcome.status == 10
    assert f"{HOST}' belongs to another user" in outcome.stderr
    assert open_server.client_lines == []


def test_a_store_that_is_read_only_is_not_another_users(open_server: Server) -> None:
    open_server.enrol_well()
    # Not while a session has a file open there.
    read_only: list[str | Path] = ["mount", "-o", "remount,ro", open_server.store]
    wait_until(lambda: run_program(read_only, check=False).status == 0)
    try:
        outcome = open_server.enrol("--hostname", HOST)
    finally:
        run_program(["mount", "-o", "remount,rw", open_server.store])
    assert "another user" not in outcome.stderr
    assert outcome.status == 0 or "\n  hint: " in outcome.stderr


def test_clear_words_for_a_key_that_opens_a_shell(open_server: Server) -> None:
    open_server.enrol_well()
    key = str(ROOT_SSH / "id_ed25519")
    argv: list[str | Path] = [
        open_server.bin / "byteback-backup",
        "--ssh-key",
        key,
        "-r0",
    ]
    outcome = run_program(argv, check=False)
    assert outcome.status == 9
    assert f"'{key}' opens a shell" in outcome.stderr
    assert "leave --ssh-key out" in outcome.stderr


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o755, "must be on btrfs"), (0o555, "cannot write to the store")],
)
def test_clear_words_for_an_unusable_store(
    open_server: Server, mode: int, words: str
) -> None:
    run_program(["mount", "-t", "tmpfs", "none", open_server.store])
    try:
        open_server.key_file.parent.mkdir(mode=0o700)
        open_server.let_in(ROOT_SSH / "id_ed25519.pub")
        for path in (open_server.store, open_server.key_file.parent):
            os.chown(path, open_server.user.uid, open_server.user.gid)
        open_server.store.chmod(mode)
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
        assert outcome.status == 10
        assert words in outcome.stderr
        assert open_server.client_lines == []
        assert not (open_server.store / HOST).exists()
    finally:
        conftest.unmount(open_server.store)
