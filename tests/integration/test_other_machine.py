"""byteback-restore --host: a lost machine's files, from the server, without network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback import locking
from byteback.server import limits
from byteback.server.store.layout import Store
from tests.integration import source_tree
from tests.integration.conftest import (
    CONFIGURATION,
    HOST,
    EnrolledClient,
    SshServer,
    enrolled,
    mounted_volume,
)
from tests.integration.programs import Outcome, run_program
from tests.integration.sealing.store import become

SOURCE = Path("/home/data")
FIRST = "2026-01-01T00:00+0000"
LATER = "2026-01-02T00:00+0000"
NOTE = "user.rsync.%stat"


@dataclass(frozen=True)
class Server:
    """A server with the backups of one machine, which is gone with its key."""

    client: EnrolledClient
    expected: dict[bytes, source_tree.Entry]

    def restore(
        self, *words: str | Path, cwd: Path = Path("/root"), status: int = 0
    ) -> Outcome:
        """byteback-restore --host on a machine without any network."""
        program = self.client.bin / "byteback-restore"
        argv = ["unshare", "--net", program, "--host", HOST, *words]
        done = run_program(argv, check=False, cwd=cwd)
        assert done.status == status, done
        return done

    def differences(self, found: Path) -> str:
        return source_tree.differences(
            self.expected, source_tree.describe_tree(found / "home/data")
        )


@pytest.fixture(scope="module")
def server(installed: Path, sshd: SshServer) -> Iterator[Server]:
    shutil.rmtree(SOURCE, ignore_errors=True)
    with mounted_volume(1 << 30) as volume, enrolled(installed, volume, sshd) as client:
        source_tree.make_source_tree(SOURCE)
        backup: list[str | Path] = [client.bin / "byteback-backup", "--source", SOURCE]
        run_program(backup)
        snapshot(client, FIRST)
        (SOURCE / "names/new").write_text("new")
        (SOURCE / "names/plain").write_text("changed")
        run_program(backup)
        snapshot(client, LATER)
        expected = source_tree.describe_tree(SOURCE)
        shutil.rmtree(SOURCE)
        for path in CONFIGURATION.iterdir():
            if path.name != "server.toml" and path.is_file():
                path.unlink()
        yield Server(client, expected)


def snapshot(client: EnrolledClient, name: str) -> None:
    run_program(
        [
            *("runuser", "-u", client.user.name, "--", "btrfs", "subvolume"),
            *("snapshot", "-r", client.current, client.current.parent / name),
        ]
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "for the administrator"
    made.mkdir(mode=0o755)
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_of_a_lost_machine_comes_back(server: Server, directory: Path) -> None:
    target = directory / "new"
    listed = server.restore("--json", "/home/data/names/*").stdout.splitlines()
    assert len(listed) == len(source_tree.NAMES) + 1  # "deep" and "new", no ".hidden"
    foreseen = server.restore("-r", "--dry-run", "--to", target, "/").stdout
    assert "create  home/data/names/new" in foreseen
    assert not target.exists()
    # The sender is confined, as for a client: else this policy would refuse it.
    assert 'confinement = "require"' in (CONFIGURATION / "server.toml").read_text()
    server.restore("-r", "--to", target, "/")
    assert server.differences(target) == ""
    assert mode_of(target) == 0o700
    assert target.stat().st_uid == 0
    with contextlib.closing(
        sqlite3.connect(server.client.store / ".byteback/ledger.sqlite")
    ) as ledger:
        query = "SELECT address, result FROM transfer WHERE kind = 'pull'"
        assert set(ledger.execute(query)) == {("root", "whole")}


def test_what_is_restored_is_for_root_alone(server: Server, directory: Path) -> None:
    """Setuid programs and devices of a hostile client must not be in others' reach."""
    server.restore("-r", "-s", LATER, "/", cwd=directory)
    assert server.differences(directory / LATER) == ""
    assert mode_of(directory / LATER) == 0o700
    server.restore("-r", "--all", "/home/data/names/plain", cwd=directory)
    versions = [path.read_text() for path in directory.glob("*/home/data/names/plain")]
    assert {"content of plain", "changed"} == set(versions)
    open_one = directory / "open"
    open_one.mkdir(mode=0o755)
    words: list[str | Path] = ["-r", "--to", open_one, "/home/data/names/plain"]
    refused = server.restore(*words, status=2)
    assert "other users can enter" in refused.stderr
    assert list(open_one.iterdir()) == []
    server.restore(*words, "--yes")
    open_one.chmod(0o700)
    server.restore(*words)
    left = directory / FIRST
    left.mkdir(mode=0o755)
    refused = server.restore("-r", "-s", FIRST, "/home", cwd=directory, status=1)
    assert "other users can enter" in refused.stderr


def test_nothing_goes_where_others_could_lead_it(
    server: Server, directory: Path
) -> None:
    """A directory on the way that others can replace, or a link of theirs."""
    target = directory / "above" / "between" / "target"
    words: list[str | Path] = ["-r", "--to", target, "/home/data/names/plain"]
    above = directory / "above"
    above.mkdir()
    link = directory / "link"
    link.symlink_to(above)
    os.lchown(link, 65534, 65534)
    for mode, owner in ((0o777, 0), (0o770, 0), (0o1777, 65534)):
        above.chmod(mode)
        os.chown(above, owner, 0)
        refused = server.restore(*words, status=2)
        assert f"other users can replace what is in '{above}'" in refused.stderr
        assert list(above.iterdir()) == []
    refused = server.restore("-r", words[3], cwd=above, status=2)
    assert f"other users can replace what is in '{above}'" in refused.stderr
    above.chmod(0o1777)
    os.chown(above, 0, 0)
    through = [*words[:2], link / "target", *words[3:]]
    refused = server.restore(*through, status=2)
    assert f"other users can replace what is in '{link}'" in refused.stderr
    # The control: the sticky bit keeps others from root's own directory there.
    server.restore(*words)
    assert (target / "home/data/names/plain").exists()
    above.chmod(0o777)
    server.restore(*words, "--yes")


def test_this_machines_own_files_are_safe(server: Server, directory: Path) -> None:
    root = directory / "a link to the root"
    root.symlink_to("/")
    store = server.client.store
    for words in (
        ["--in-place", "/home/data"],
        ["--in-place", "--yes", "/home/data"],
        ["--to", "/", "--yes", "/home/data"],
        ["--to", "/home/..", "--yes", "/home/data"],
        ["--to", root, "--yes", "/home/data"],
        ["--to", store / HOST / "current", "--yes", "/home/data"],
        ["--to", store / "new/one", "--yes", "/home/data"],
    ):
        refused = server.restore("-r", *words, status=2)
        assert "hint:" in refused.stderr
        assert not SOURCE.exists()
    server.restore("-r", "/home/data", cwd=store / HOST, status=2)
    assert not (store / "new").exists()
    names = [path.name for path in (store / HOST).iterdir()]
    assert all(name == "current" or name.startswith("20") for name in names)
    assert not list((store / HOST).glob("*/20*"))


def test_snapshots_are_compared_in_the_store(server: Server) -> None:
    expected = ["changed  /home/data/names/plain", "new      /home/data/names/new"]
    for words in ((FIRST, LATER), (FIRST,), (FIRST, "now", "/home")):
        lines = server.restore("--diff", *words).stdout.splitlines()
        assert sorted(lines) == expected
    shown = server.restore("--all", "--json", "/home/data/names/plain").stdout
    sizes = [json.loads(line)["size"] for line in shown.splitlines()]
    assert sizes == [len("changed"), len("content of plain")]


def test_words_that_cannot_be_meant_are_explained(server: Server) -> None:
    program = server.client.bin / "byteback-restore"
    for words, status, said in (
        (["--host", "client.exmple", "/"], 10, f"is it '{HOST}'?"),
        (["--host", "nothing-like-it", "/"], 10, "is no client of this server"),
        (["--host", "../etc", "/"], 10, "is no client of this server"),
        (["--host", HOST, "etc"], 2, "begin each pattern with a slash"),
        (["--host", HOST, "-d", "server:", "/"], 2, "contradict each other"),
        (["--host", HOST, "--verify", "/etc"], 2, "takes no pattern"),
        (["--host", HOST, "--diff", FIRST, "now", "etc"], 2, "with a slash"),
        (["--host", HOST, "/none"], 1, "nothing in the backups matches"),
        (["--host", HOST, "-s", "2020-01-01T00:00+0000", "/"], 9, "no snapshot"),
    ):
        argv: list[str | Path] = [program, *words]
        done = run_program(argv, check=False)
        assert done.status == status, done
        assert said in done.stderr
    user: list[str | Path] = ["runuser", "-u", "nobody", "--", program]
    done = run_program([*user, "--host", HOST, "/"], check=False)
    assert done.status == 2, done
    assert "only root on the server" in done.stderr
    assert server.restore("--host", HOST.upper(), "/home").status == 0


def test_a_client_cannot_keep_root_out(server: Server) -> None:
    """Neither by holding all of its places, nor because it was retired."""
    store = Store(server.client.store)
    with contextlib.ExitStack() as stack:
        with become(server.client.user):
            for path in limits.place_paths(store, HOST):
                if "+root." not in path.name:
                    stack.enter_context(locking.hold(path))
        assert server.restore("/home/data/names/plain").stdout
    clients = server.client.bin / "byteback-clients"
    run_program([clients, "retire", HOST])
    try:
        assert server.restore("/home/data/names/plain").stdout
    finally:
        run_program([clients, "retire", "--undo", HOST])


def test_a_sample_is_restored_to_verify_it(server: Server) -> None:
    shown = server.restore("--verify", "--verbose").stderr
    assert "bytes: restored from 20" in shown
    assert not list(Path("/var/tmp").glob("byteback-verify-*"))
    # What rsync notes of a file is damaged in the newest snapshot.
    newest = max(server.client.current.parent.glob("20*"))
    aside = newest.rename(newest.with_name("aside"))
    damaged = server.client.current / "home/data/names/plain"
    note = os.getxattr(damaged, NOTE)
    try:
        os.setxattr(damaged, NOTE, b"nonsense")
        snapshot(server.client, newest.name)
    finally:
        os.setxattr(damaged, NOTE, note)
    refused = server.restore("--verify", "--sample", "1000", status=1)
    assert "/home/data/names/plain" in refused.stderr
    run_program(["btrfs", "subvolume", "delete", newest])
    aside.rename(newest)


def test_root_asks_for_nothing_else(server: Server) -> None:
    receive = server.client.bin / "byteback-receive"
    argv: list[str | Path] = [receive, "--host", HOST, "--local", "localhost"]
    push = "rsync --fake-super --server -logDtpre.iLsfxCIvu . ."
    for words in ("byteback-receive --complete", push):
        done = run_program([*argv, *words.split()], check=False)
        assert done.status == 9, done
        assert "list and restore" in done.stderr


def test_a_store_that_is_not_there_is_named(server: Server) -> None:
    mark = Path("/var/lib/byteback/store")
    kept = mark.read_text()
    try:
        mark.write_text(kept.replace("subvolume 5", "subvolume 6"))
        done = server.restore("/", status=10)
        assert "the store is not mounted" in done.stderr
    finally:
        mark.write_text(kept)
