"""Sealed snapshots, honest use of them, and what a taken-over store's user can do."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.model import listing, pattern
from byteback.model.listing import Entry
from byteback.model.snapshot import format_snapshot_name
from byteback.server import lineage, seal, search
from byteback.server.store import Store
from byteback.tools import subvolume
from tests.integration import test_search
from tests.integration.conftest import (
    CHECKOUT,
    CONFIGURATION,
    INTERPRETER,
    LIBRARY,
    ServerUser,
)
from tests.integration.programs import Outcome, run_program
from tests.integration.test_prune import (
    FULL,
    PruneStore,
    fill_with_names,
    long_name,
)

HOST = "a"
OTHER = "b"
CONTENT = b"what the client backed up"
STAT = "user.rsync.%stat"


class SealedStore(PruneStore):
    """A store whose snapshots are of ``current``, as the server takes them."""

    def settings(self, text: str) -> None:
        CONFIGURATION.mkdir(mode=0o755, exist_ok=True)
        (CONFIGURATION / "server.toml").write_text(text)

    def client(self, host: str) -> Path:
        directory = super().client(host)
        with become(self.user):
            (directory / "current" / "etc").mkdir()
            (directory / "current" / "etc" / "file").write_bytes(CONTENT)
        return directory

    def snapshot(
        self, host: str, days_old: int, megabytes: int = 0, names: int = 0
    ) -> Path:
        assert (megabytes, names) == (0, 0)
        time = datetime.now(UTC) - timedelta(days=days_old)
        path = self.root / host / format_snapshot_name(time)
        with become(self.user):
            (path.parent / "current" / "age").write_text(str(days_old))
        self.as_user(
            *("btrfs", "subvolume", "snapshot", "-r", path.parent / "current", path)
        )
        return path

    def tick(self, *options: str) -> Outcome:
        """A run of root's that finds enough space."""
        return self.prune("--prune", "--verbose", *options)

    def sealed(self, host: str, *days_old: int) -> list[Path]:
        """A client with sealed snapshots, the newest first."""
        self.client(host)
        made = [self.snapshot(host, days) for days in sorted(days_old, reverse=True)]
        assert self.tick().status == 0
        assert all(map(is_sealed, made))
        return made[::-1]


@contextlib.contextmanager
def become(user: ServerUser) -> Iterator[None]:
    """Be the store's user where files are concerned."""
    groups = os.getgroups()
    os.setgroups([user.gid])
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def in_child_of(user: ServerUser, attack: Callable[[], object]) -> str:
    """Do ``attack`` as the user for good; how it ended. Its effects count, not this."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "crashed"
        try:
            os.setgroups([user.gid])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            answer = f"done: {attack()}"
        except OSError as error:
            answer = f"{error}"
        finally:
            os.write(writer, answer.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(pid, 0)
    assert answer != "crashed"
    return answer


def mark_of(path: Path) -> str | None:
    try:
        return os.getxattr(path, seal.ATTRIBUTE, follow_symlinks=False).decode()
    except OSError:
        return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def is_sealed(path: Path) -> bool:
    """Root's, read-only, marked with its own name, and whole."""
    with opened(path) as fd:
        return (
            os.fstat(fd).st_uid == 0
            and subvolume.is_read_only(fd)
            and mark_of(path) == f"{path.parent.name}/{path.name}"
            and (path / "etc" / "file").read_bytes() == CONTENT
        )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def volume_size() -> int:
    """One GiB."""
    return 1 << 30


@pytest.fixture
def store(installed: Path, server_user: ServerUser) -> Iterator[SealedStore]:
    """An empty store whose snapshots root seals."""
    made = SealedStore(server_user, installed)
    made.settings("sealed = true\n")
    yield made
    (CONFIGURATION / "server.toml").unlink()


# --- What a run of root's does -----------------------------------------------------


def test_a_run_of_roots_seals_what_it_finds(store: SealedStore) -> None:
    store.client(HOST)
    made = [store.snapshot(HOST, 9), store.snapshot(HOST, 1)]
    (store.root / HOST / "current" / "later").touch()
    before = made[0].stat()
    outcome = store.tick()
    assert outcome.stderr.count("sealed a/") == 2
    for path in made:
        assert is_sealed(path)
        assert mode_of(path) == lineage.UNTOUCHED_MODE
        assert path.stat().st_gid == store.user.gid
        note = os.getxattr(path, STAT).decode()
        uid, gid = store.user.uid, store.user.gid
        assert note == f"{before.st_mode:o} 0,0 {uid}:{gid}"
        assert path.stat().st_mtime_ns
    assert made[0].stat().st_mtime_ns == before.st_mtime_ns
    assert mark_of(store.root / HOST / "current") is None
    assert (store.root / HOST / "current").stat().st_uid == store.user.uid
    assert store.as_user("cat", made[0] / "etc" / "file").stdout == CONTENT.decode()


def test_what_the_client_noted_stays(store: SealedStore) -> None:
    current = store.client(HOST) / "current"
    with become(store.user):
        os.setxattr(current, STAT, b"41755 0,0 0:0")
        current.chmod(0o777)
    made = store.snapshot(HOST, 1)
    store.tick()
    assert is_sealed(made)
    assert os.getxattr(made, STAT) == b"41755 0,0 0:0"


def test_a_mark_of_somebody_elses_is_none(store: SealedStore) -> None:
    """A client's rsync, or the user, may give ``current`` any attribute."""
    current = store.client(HOST) / "current"
    with become(store.user):
        os.setxattr(current, seal.ATTRIBUTE, b"a/1999-01-01T00:00+0000")
    made = [store.snapshot(HOST, 10), store.snapshot(HOST, 0)]
    outcome = store.tick()
    assert "renamed" not in outcome.stderr
    assert all(map(is_sealed, made))
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in made] == [False, True]


def test_a_tick_with_all_sealed_writes_nothing(store: SealedStore) -> None:
    store.sealed(HOST, 0, 1, 10, 20)
    store.commit()
    before = store.generation()
    assert store.prune("--prune") == Outcome(0, "", "")
    store.commit()
    assert store.generation() == before


def test_what_somebody_wrote_to_does_not_pass_for_untouched(store: SealedStore) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    with opened(made) as fd:
        subvolume.thaw(fd)
        (made / "added").touch()
        subvolume.freeze(fd)
    store.tick()
    assert is_sealed(made)
    assert mode_of(made) & 0o777 != lineage.UNTOUCHED_MODE
    assert mode_of(made) & 0o022 == 0


def test_a_writable_and_an_old_root_owned_one_are_sealed(store: SealedStore) -> None:
    directory = store.client(HOST)
    writable = directory / "2020-01-01T00:00+0000"
    roots = directory / "2020-01-02T00:00+0000"
    current = directory / "current"
    store.as_user("btrfs", "subvolume", "snapshot", current, writable)
    run_program(["btrfs", "subvolume", "snapshot", current, roots])
    os.chown(roots, 0, 0)
    store.tick()
    assert is_sealed(writable)
    assert is_sealed(roots)


@pytest.mark.parametrize("text", ["", "sealed = false\n"])
def test_without_the_setting_nothing_new_is_sealed(
    store: SealedStore, text: str
) -> None:
    old = store.sealed(HOST, 30, 20)
    store.settings(text)
    new = store.snapshot(HOST, 10)
    newest = store.snapshot(HOST, 0)
    store.tick()
    assert [mark_of(path) for path in (new, newest)] == [None, None]
    assert all(map(is_sealed, old)), "and what is sealed stays so"
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in (*old, new, newest)] == [False] * 3 + [True]


def test_the_users_own_run_seals_nothing(store: SealedStore) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    assert store.prune("--prune", as_root=False).status == 0
    assert mark_of(made) is None
    assert made.stat().st_uid == store.user.uid


def test_the_services_rights_are_enough(store: SealedStore) -> None:
    """What the package's unit leaves root."""
    unit = CHECKOUT / "debian" / "byteback-server.byteback-prune.service"
    lines = [line.partition("=") for line in unit.read_text().splitlines()]
    rights = " ".join(v for k, _, v in lines if k == "CapabilityBoundingSet").split()

    def service(*options: str) -> Outcome:
        bound = ",".join(["-all", *(f"+{name[4:].lower()}" for name in rights)])
        setpriv = ["setpriv", "--no-new-privs", f"--bounding-set={bound}"]
        return run_program([*setpriv, store.program, *options])

    store.client(HOST)
    with become(store.user):
        (store.root / HOST / "current").chmod(0o700)
    made = [store.snapshot(HOST, 10), store.snapshot(HOST, 0)]
    assert service("--prune") == Outcome(0, "", "")
    assert all(map(is_sealed, made))
    made[1].rename(made[1].with_name("2031-01-01T00:00+0000"))
    service("--prune")
    assert all(map(is_sealed, made))
    service("--discard", HOST)
    service(*FULL)
    assert [path.exists() for path in made] == [False, True]
    rights.remove("CAP_CHOWN")
    one_more = store.snapshot(HOST, 5)
    assert "needs CAP_CHOWN" in service("--prune", "--verbose").stderr
    with opened(one_more) as fd:
        assert subvolume.is_read_only(fd)


def test_an_administrators_own_name_is_kept(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 20)
    saved = made[1].rename(made[1].with_name("saved-do-not-delete"))
    assert "renamed" not in store.tick().stderr
    assert store.prune(*FULL).status == 0
    assert saved.exists()
    saved.rename(made[1])
    assert is_sealed(made[1])


def test_one_is_unsealed_by_hand(store: SealedStore) -> None:
    """By what byteback-prune(1) says."""
    made = store.sealed(HOST, 0, 20)
    store.settings("sealed = false\n")
    run_program(["btrfs", "property", "set", made[1], "ro", "false"])
    run_program(["chown", "byteback:", made[1]])
    run_program(["chmod", "u+w", made[1]])
    run_program(["btrfs", "property", "set", made[1], "ro", "true"])
    store.tick()
    assert store.prune("--prune-force", as_root=False).status == 0
    assert [path.exists() for path in made] == [True, False]


STEPS = {
    "thaw": "subvolume.thaw",
    "note": "os.setxattr",
    "owner": "os.fchown",
    "mode": "os.fchmod",
    "mark": "os.setxattr",
    "freeze": "subvolume.freeze",
}
KILLED = """
import os, sys, signal
sys.path.insert(0, {library!r})
from byteback.server import prune, sealing
from byteback.tools import subvolume
from byteback.model.free_space import Limits
skip = {skip}
def killing(real):
    def call(*words):
        global skip
        if skip:
            skip -= 1
            return real(*words)
        if {after}:
            real(*words)
        os.kill(os.getpid(), signal.SIGKILL) if {kill} else fail()
    return call
def fail():
    raise OSError(28, "No space left on device")
holder, name = {target!r}.split(".")
holder = {{"os": os, "subvolume": subvolume}}[holder]
setattr(holder, name, killing(getattr(holder, name)))
with prune.opened_store() as store:
    prune.Pruner(store).prune(Limits(1, 2))
"""


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "failed"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", list(STEPS))
def test_cut_off_at_any_step_the_next_run_finishes(
    store: SealedStore, step: str, after: bool, kill: bool
) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    assert store.prune("--prune", as_root=False).status == 0  # makes the reserve
    skip = int(step in {"mark", "freeze"})
    text = KILLED.format(
        library=str(LIBRARY), target=STEPS[step], skip=skip, after=after, kill=kill
    )
    outcome = run_program([INTERPRETER, "-c", text], check=False)
    assert outcome.status == (-signal.SIGKILL if kill else 0), outcome
    done = is_sealed(made)
    assert done == (step == "freeze" and after) or not kill
    assert store.tick().status == 0
    assert is_sealed(made)
    note = os.getxattr(made, STAT).decode()
    assert note.endswith(f" 0,0 {store.user.uid}:{store.user.gid}")
    with opened(made) as fd:
        found = subvolume.read(fd)
    assert found is not None
    if step == "thaw" or (step == "note" and not after):
        assert mode_of(made) == lineage.UNTOUCHED_MODE
    assert store.prune("--prune") == Outcome(0, "", "")


# --- As the store's user, taken over ------------------------------------------------


def set_flags(path: Path) -> None:
    with opened(path) as fd:
        fcntl.ioctl(fd, subvolume._SET_FLAGS, subvolume._FLAGS.pack(0))


def delete_by_number(path: Path, number: int) -> None:
    run_program(
        ["btrfs", "subvolume", "delete", "--subvolid", str(number), path.parent],
        check=False,
    )


def mount_over(path: Path) -> None:
    steps = [
        f"btrfs property set {path} ro false",
        f"mount --bind {path} {path}; mount -o remount,bind,rw {path}",
        f"chown 0 {path}; chmod 777 {path}; setfattr -x {seal.ATTRIBUTE} {path}",
        f"mount --bind {path}/etc /mnt; echo evil >/mnt/file; rm -rf /mnt/*",
        f"mount -t tmpfs tmpfs {path}; rm -rf {path}; umount {path}; rmdir {path}",
    ]
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    run_program([*unshare, "\n".join(steps)], check=False)


def run(*argv: str | Path) -> Outcome:
    return run_program(argv, check=False)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("gone"))
    path.symlink_to("/etc")


def link_of_host(path: Path) -> None:
    path.parent.rename(path.parent.with_name(".gone"))
    path.parent.symlink_to("/srv")


Attack = Callable[[Path, Path], object]  # a sealed snapshot, another client's directory
ATTACKS: dict[str, Attack] = {
    "property set": lambda path, _: run(
        "btrfs", "property", "set", path, "ro", "false"
    ),
    "ioctl": lambda path, _: set_flags(path),
    "subvolume delete": lambda path, _: run("btrfs", "subvolume", "delete", path),
    "snapshot": lambda path, _: run(
        *("btrfs", "subvolume", "snapshot", path, path.parent / "clone")
    ),
    "rm": lambda path, _: run("rm", "-rf", path),
    "rmdir": lambda path, _: path.rmdir(),
    "rename elsewhere": lambda path, other: path.rename(other / path.name),
    "rename deeper": lambda path, _: path.rename(path.parent / "current" / "x"),
    "exchange elsewhere": lambda path, other: ctypes.CDLL(None).renameat2(
        -100, bytes(path), -100, bytes(other / "current"), 2
    ),
    "rename over": lambda path, _: (path.parent / "empty").rename(path),
    "chmod": lambda path, _: path.chmod(0o777),
    "chown": lambda path, _: os.chown(path, os.getuid(), os.getgid()),
    "note": lambda path, _: os.setxattr(path, STAT, b"x"),
    "false mark": lambda path, _: os.setxattr(path, seal.ATTRIBUTE, b"b/x"),
    "remove mark": lambda path, _: os.removexattr(path, seal.ATTRIBUTE),
    "acl": lambda path, _: run("setfacl", "-m", f"u:{os.getuid()}:rwx", path),
    "times": lambda path, _: os.utime(path, (0, 0)),
    "truncate": lambda path, _: os.truncate(path / "etc" / "file", 0),
    "write": lambda path, _: (path / "etc" / "file").write_bytes(b"evil"),
    "chmod inside": lambda path, _: (path / "etc" / "file").chmod(0),
    "create inside": lambda path, _: (path / "etc" / "new").touch(),
    "unlink inside": lambda path, _: (path / "etc" / "file").unlink(),
    "hard link": lambda path, _: os.link(path / "etc" / "file", path.parent / "l"),
    "mounts": lambda path, _: mount_over(path),
    "own pruning": lambda *_: run("byteback-prune", "--prune-force"),
    "own discard": lambda *_: run("byteback-prune", "--discard", HOST),
}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attack_on_a_sealed_snapshot(store: SealedStore, name: str) -> None:
    other = store.client(OTHER)
    made = store.sealed(HOST, 0, 10)
    with become(store.user):
        (made[0].parent / "empty").mkdir()
    for path in made:
        answer = in_child_of(store.user, lambda: ATTACKS[name](path, other))  # noqa: B023 # called at once
        assert is_sealed(path), answer
    store.tick()
    assert all(map(is_sealed, made))
    assert not (made[0].parent / "clone").exists()


@pytest.mark.parametrize("name", ["subvolume delete", "rm", "truncate"])
def test_it_is_an_attack_where_nothing_is_sealed(store: SealedStore, name: str) -> None:
    other = store.client(OTHER)
    store.client(HOST)
    made = store.snapshot(HOST, 10)
    in_child_of(store.user, lambda: ATTACKS["property set"](made, other))
    in_child_of(store.user, lambda: ATTACKS[name](made, other))
    file = made / "etc" / "file"
    assert not file.exists() or file.read_bytes() != CONTENT


def test_deletion_by_number(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    number = int(run_program(["btrfs", "inspect-internal", "rootid", made[1]]).stdout)
    in_child_of(store.user, lambda: delete_by_number(made[1], number))
    assert is_sealed(made[1])


@pytest.mark.parametrize("name", ["1999-01-01T00:00+0000", "current"])
def test_a_renamed_one_gets_its_name_back(store: SealedStore, name: str) -> None:
    made = store.sealed(HOST, 0, 2, 10)
    directory = made[0].parent
    store.as_user("mkdir", "-p", store.root / ".ssh")
    keys = store.root / ".ssh" / "authorized_keys"
    keys.write_text(
        f'restrict,command="/usr/bin/byteback-receive --host {HOST}" ssh-ed25519 '
        "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T a\n"
    )
    keys.chmod(0o600)
    os.chown(keys, store.user.uid, store.user.gid)
    if name == "current":
        store.as_user("mv", directory / "current", directory / "aside")
    store.as_user("mv", "--no-target-directory", made[1], directory / name)
    outcome = store.tick()
    assert "has its name back" in outcome.stderr
    assert all(map(is_sealed, made))
    current = directory / "current"
    assert current.stat().st_uid == store.user.uid
    assert mark_of(current) is None
    assert (current / "etc" / "file").read_bytes() == CONTENT
    store.as_user("touch", current / "written")


@pytest.mark.parametrize("options", [FULL, ("--prune-force",), ("--discard", HOST)])
def test_a_false_name_has_nothing_deleted(
    store: SealedStore, options: tuple[str, ...]
) -> None:
    made = store.sealed(HOST, 0, 2, 10, 20)
    names = ["1999-01-01T00:00+0000", ".byteback-discarded"]
    for path, name in zip(made, names, strict=False):
        store.as_user("mv", "--no-target-directory", path, made[0].with_name(name))
    assert store.prune(*options).status in {0, 13}
    store.tick()
    assert all(map(is_sealed, made[:2])), "those that rules keep"
    gone = {FULL: 2, ("--prune-force",): 1}.get(options, 0)
    assert [path.exists() for path in made[2:]].count(False) == gone


def test_names_in_a_circle_are_put_right(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 2, 10, 20)
    directory = made[0].parent
    store.as_user("mv", "-T", made[0], directory / "t")
    for path, wrong in itertools.pairwise(made):
        store.as_user("mv", "-T", wrong, path)
    store.as_user("mv", "-T", directory / "t", made[-1])
    store.tick()
    assert all(map(is_sealed, made))


@pytest.mark.parametrize("decoy", ["directory", "link", "fifo", "subvolume"])
def test_a_decoy_does_not_keep_the_name(store: SealedStore, decoy: str) -> None:
    made = store.sealed(HOST, 0, 10)
    false = made[1].with_name("1999-01-01T00:00+0000")
    store.as_user("mv", "-T", made[1], false)
    argv: dict[str, tuple[str | Path, ...]] = {
        "directory": ("mkdir", made[1]),
        "link": ("ln", "-s", "/etc", made[1]),
        "fifo": ("mkfifo", made[1]),
        "subvolume": ("btrfs", "subvolume", "create", made[1]),
    }
    store.as_user(*argv[decoy])
    store.tick()
    assert is_sealed(made[1])
    assert os.path.lexists(false)


def test_nothing_is_pruned_in_a_renamed_directory(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, *range(10, 20))
    store.client(OTHER)
    mine = [store.snapshot(OTHER, 10), store.snapshot(OTHER, 0)]
    store.as_user("mv", "-T", store.root / HOST, store.root / "c")
    outcome = store.prune(*FULL, "--verbose")
    assert outcome.status == 0
    assert outcome.stderr.count("was renamed") == 1
    assert [path.exists() for path in mine] == [False, True], "others go on"
    assert all((store.root / "c" / path.name).exists() for path in made)
    store.as_user("mv", "-T", store.root / "c", store.root / HOST)
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in made] == [True] + [False] * 10


def test_what_is_planted_is_not_sealed(store: SealedStore) -> None:
    directory = store.client(HOST)
    good = store.snapshot(HOST, 1)
    outside = store.root / "outside"
    run_program(["btrfs", "subvolume", "create", outside])
    daemons = directory / "2020-01-01T00:00+0000"
    run_program(["btrfs", "subvolume", "create", daemons])
    os.chown(daemons, 1, 1)
    names = [f"2020-01-{day:02}T00:00+0000" for day in range(2, 9)]
    plain, link, deep, fifo, file, mount, loop = (directory / n for n in names)
    with become(store.user):
        plain.mkdir()
        link.symlink_to("/etc")
        deep.symlink_to(outside)
        os.mkfifo(fifo)
        file.touch()
        mount.mkdir()
        loop.symlink_to(loop)
        (store.root / "h").symlink_to("/srv")
    run_program(["mount", "--bind", outside, mount])
    try:
        before = {
            path: path.lstat() for path in (Path("/etc"), outside, daemons, mount)
        }
        assert store.tick().status == 0
        for path, status in before.items():
            assert path.lstat() == status, path
            assert mark_of(path) is None
    finally:
        run_program(["umount", mount])
    assert plain.stat().st_uid == store.user.uid
    assert is_sealed(good)


def test_a_race_of_names_loses_nothing(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 2, 4, 10, 20, 30)
    directory = made[0].parent

    def race() -> None:
        libc = ctypes.CDLL(None)
        names = [bytes(path) for path in made]
        spare = bytes(directory / "1999-01-01T00:00+0000")
        discarded = bytes(directory / ".byteback-discarded")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for name in names:
                libc.renameat2(-100, name, -100, names[-1], 2)
                libc.renameat2(-100, name, -100, spare, 1)
                libc.renameat2(-100, name, -100, discarded, 1)
                libc.renameat2(-100, spare, -100, names[0], 1)
                libc.renameat2(-100, discarded, -100, names[1], 1)

    pid = os.fork()
    if pid == 0:
        os.setgroups([store.user.gid])
        os.setresgid(*[store.user.gid] * 3)
        os.setresuid(*[store.user.uid] * 3)
        try:
            race()
        finally:
            os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        store.prune(*FULL)
        store.prune("--discard", HOST)
    for path in directory.iterdir():  # the tick sees only dated ones
        if path.name.startswith("1999") and mark_of(path) is None:
            path.rmdir()
    for _ in range(3):
        store.tick()
    assert all(map(is_sealed, made[:3])), sorted(directory.iterdir())


# --- Honest use ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_searches_find_the_same_and_as_fast(store: SealedStore, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 # dice, no secret
    host = test_search.HOST
    directory = store.client(host)
    current = directory / "current"
    for day in range(1, 13):
        for _ in range(chance.choice([0, 2, 30])):
            test_search.change(current, chance)
        # So that but for its ctime the top might be the same in all of them.
        os.utime(current, (0, 0))
        path = directory / f"2026-01-{day:02}T00:00+0000"
        store.as_user("btrfs", "subvolume", "snapshot", "-r", current, path)
    place = Store(store.root)
    names = place.trees(host)
    chains = lineage.chains_of(lineage.read_trees(directory, names))
    answers = searched(place, names, chains)
    assert store.tick().status == 0
    assert lineage.chains_of(lineage.read_trees(directory, names)) == chains
    assert len(chains[0]) == 13
    tops = {(directory / name).stat().st_ctime_ns for name in names}
    assert len(tops) == 13, "by their ctimes a search tells them apart"
    assert searched(place, names, chains) == answers


def searched(
    place: Store, names: list[str], chains: lineage.Chains
) -> dict[str, list[Entry]]:
    """What is found, which is also what is there."""
    trees = listing.rank_trees(names, current_is_whole=True, now=datetime.now(UTC))
    answers = {}
    for texts, scope in itertools.product(test_search.PATTERNS, test_search.SCOPES):
        found = search.find(
            *(place, test_search.HOST, "*", scope, texts),
            current_is_whole=True,
            chains=chains,
        )
        compiled = pattern.compile_patterns(texts)
        answer = list(found)
        assert answer == test_search.naive(place, trees, compiled, scope)
        answers[f"{scope} {texts}"] = answer
    return answers


def test_a_lost_current_is_made_by_root(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    current = made[0].parent / "current"
    mode = current.stat().st_mode
    run_program(["btrfs", "subvolume", "delete", current])
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T"
    keys = store.root / ".ssh" / "authorized_keys"
    keys.write_text(f'restrict,command="byteback-receive --host a" ssh-ed25519 {key}\n')
    keys.chmod(0o600)
    os.chown(keys, store.user.uid, store.user.gid)
    push = "rsync --fake-super --server -logDtpre.iLsfxCIvu --numeric-ids . ."
    become_user = store._become()
    environment = [f"SSH_ORIGINAL_COMMAND={push}", "SSH_CONNECTION=127.0.0.1 1 ::1 2"]
    receive = store.program.with_name("byteback-receive")
    session = [*become_user, *environment, receive, "--host", HOST]
    refused = run_program(session, check=False)
    assert refused.status == 75
    assert "try again" in refused.stderr
    assert store.prune("--prune", as_root=False).status == 0
    assert not current.exists()
    assert "made it again" in store.tick().stderr
    assert current.stat().st_uid == store.user.uid
    assert current.stat().st_mode == mode
    assert mark_of(current) is None
    store.as_user("touch", current / "written")
    assert is_sealed(made[0])
    # And a snapshot of it can be taken, and sealed.
    again = store.snapshot(HOST, 3)
    store.tick()
    assert is_sealed(again)
    assert mode_of(again) == lineage.UNTOUCHED_MODE


def test_discarding_a_sealed_hosts_backup(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    current = made[0].parent / "current"
    mode = current.stat().st_mode
    (current / "evil").touch()
    refused = store.prune("--discard", HOST, as_root=False)
    assert refused.status == 1
    assert "sealed" in refused.stderr
    assert (current / "evil").exists()
    assert store.prune("--discard", HOST).status == 0
    assert not (current / "evil").exists()
    assert (current / "etc" / "file").read_bytes() == CONTENT
    assert current.stat().st_uid == store.user.uid
    assert current.stat().st_mode == mode
    assert mark_of(current) is None
    assert not current.with_name(".byteback-discarded").exists()
    assert all(map(is_sealed, made))


def test_the_user_leaves_sealed_ones_to_root(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, *range(10, 20))
    store.client(OTHER)
    own = [store.snapshot(OTHER, 10), store.snapshot(OTHER, 0)]
    outcome = store.prune(*FULL, as_root=False)
    assert outcome.status == 13
    assert outcome.stderr.count("sealed") == 1
    assert "11 snapshots are sealed" in outcome.stderr
    assert [path.exists() for path in own] == [False, True], "it goes on with others"
    assert all(map(is_sealed, made))
    forced = store.prune("--prune-force", as_root=False)
    assert forced.status == 13
    assert "is sealed: only root deletes that" in forced.stderr
    assert store.prune(*FULL) == Outcome(0, "", "")
    assert [path.exists() for path in made] == [True] + [False] * 10


def test_a_full_disc_heals_and_what_is_new_is_sealed_then(store: SealedStore) -> None:
    directory = store.client(HOST)
    current = directory / "current"
    with become(store.user):
        for number in range(6000):
            (current / long_name(number)).touch()
    old = store.snapshot(HOST, 20)
    with become(store.user):
        for number in range(6000):
            (current / long_name(number)).unlink()
    store.snapshot(HOST, 10)
    store.tick()
    newest = store.snapshot(HOST, 0)
    with become(store.user):
        fill_with_names(current)
    store.commit()
    assert store.prune("--prune").status == 0
    assert not old.exists()
    (current / "afterwards").touch()
    store.tick()
    assert is_sealed(newest)


def test_hundreds_of_sealed_ones_cost_a_tick_little(store: SealedStore) -> None:
    directory = store.client(HOST)
    for number in range(300):
        moment = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=number)
        path = directory / format_snapshot_name(moment)
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", directory / "current", path],
            check=True,
        )
    assert store.tick().status == 0
    ticks = []
    for _ in range(5):
        started = time.monotonic()
        assert store.prune("--prune").status == 0
        ticks.append(time.monotonic() - started)
    assert min(ticks) < 0.5, ticks
