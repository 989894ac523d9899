"""The programs that are measured, each with the simple set-up that its manual has.

All of them reach the server by the same sshd and write onto the same volume. Their
passwords, if they must have one, are fixed: nothing here is anybody's.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.scene import CLIENT, HOST, SERVER, Scene, remove_tree

PLAIN = ("rsync", "-a", "--numeric-ids", "--inplace", "--relative")


class Contestant:
    """One program with its own place on the server."""

    name = ""
    needs: Sequence[str] = ()  # programs
    steps: Sequence[str] = ("first", "unchanged", "1 % changed", "restore")
    keeps_whole_files = False  # or large pieces of them, where little has changed

    def __init__(self, there: Scene, tree: Path) -> None:
        self.there = there
        self.tree = tree
        self.place = there.peers / self.name
        self.count = 0  # of backups

    def forget(self) -> None:
        """Begin anew: nothing of it is on the server."""
        remove_tree(self.place)
        self.place.mkdir(parents=True)

    def prepare(self) -> None:
        """Prepare what is no part of the backup itself."""

    def backup(self) -> None:
        """Back up the tree."""
        raise NotImplementedError

    def restore(self, target: Path) -> None:
        """Bring back all of the newest backup into an empty directory."""
        raise NotImplementedError


class Rsync(Contestant):
    """Plain rsync: what all are compared to."""

    name = "rsync"
    options: Sequence[str] = PLAIN

    def backup(self) -> None:
        """Into one directory; no snapshots."""
        target = f"{SERVER}:{self.place}/"
        self.there.run([*self.options, "--delete", str(self.tree), target])

    def restore(self, target: Path) -> None:
        """Out of that directory."""
        source = f"{SERVER}:{self.place}/.{self.tree}"
        self.there.run([*self.options, source, f"{target}/"])


class FakeSuper(Rsync):
    """rsync with byteback's own options, but without byteback."""

    name = "fake-super"
    options = (*PLAIN, "-AXH", "--modify-window=-1", "--rsync-path=rsync --fake-super")


class Byteback(Contestant):
    """This suite: its checks, its snapshot and its sync are part of each backup."""

    name = "byteback"

    def forget(self) -> None:
        """As just after enrolment, on both machines."""
        remove_tree(*(self.there.store / HOST).iterdir())
        for state in (self.there.store / ".byteback/hosts").glob(f"{HOST}.*"):
            state.unlink()
        shutil.rmtree("/var/lib/byteback", ignore_errors=True)

    def prepare(self) -> None:
        """Make the last snapshot old, so that one is due."""
        self.there.forget_snapshot_interval()

    def backup(self) -> None:
        """As the timer runs it."""
        command = self.there.bin / "byteback-backup"
        self.there.run([command, "--source", self.tree])

    def restore(self, target: Path) -> None:
        """With ACLs, attributes and hard links."""
        command = self.there.bin / "byteback-restore"
        self.there.run([command, "--restore", "--to", target, self.tree])


class Tar(Contestant):
    """tar over ssh: how fast all files can be read, sent and written."""

    name = "tar"
    steps = ("first", "restore")

    def backup(self) -> None:
        """Everything, each time."""
        tar = f"tar -C / -c .{self.tree}"
        self.there.shell(f"{tar} | ssh {SERVER} tar -C {self.place} -x")

    def restore(self, target: Path) -> None:
        """Everything."""
        tar = f"tar -C {self.place} -c .{self.tree}"
        self.there.shell(f"ssh {SERVER} {tar} | tar -C {target} -x")


class Btrfs(Contestant):
    """btrfs send: the client has the same file system and keeps its own snapshots."""

    name = "btrfs-send"

    def forget(self) -> None:
        """Also the snapshots at the client."""
        super().forget()
        remove_tree(*self.tree.parent.glob(".sent-*"))
        self.count = 0

    def backup(self) -> None:
        """The differences from the snapshot before."""
        there = self.tree.parent
        parent = f"-p {there}/.sent-{self.count}" if self.count else ""
        self.count += 1
        sent = there / f".sent-{self.count}"
        self.there.shell(
            f"btrfs -q subvolume snapshot -r {self.tree} {sent} && sync -f {sent} &&"
            f" btrfs -q send {parent} {sent} |"
            f" ssh {SERVER} btrfs -q receive {self.place}"
        )

    def restore(self, target: Path) -> None:
        """The whole subvolume."""
        sent = self.place / f".sent-{self.count}"
        self.there.shell(f"ssh {SERVER} btrfs -q send {sent} | btrfs receive {target}")


class Restic(Contestant):
    """restic over sftp, encrypted as it always is."""

    name = "restic"
    needs = ("restic",)
    keeps_whole_files = True

    def forget(self) -> None:
        """A new repository, and no cache of the old one."""
        super().forget()
        shutil.rmtree("/root/.cache/restic", ignore_errors=True)
        self._run("init")

    def backup(self) -> None:
        """One more snapshot."""
        self._run("backup", self.tree)

    def restore(self, target: Path) -> None:
        """The newest one."""
        self._run("restore", "latest", "--target", target)

    def _run(self, *words: str | Path) -> None:
        repository = f"sftp:{SERVER}:{self.place}"
        environment = {"RESTIC_PASSWORD": "benchmark"}
        self.there.run(["restic", "-q", "-r", repository, *words], env=environment)


class Borg(Contestant):
    """borg over ssh, without encryption, with the compression it comes with."""

    name = "borg"
    needs = ("borg",)
    keeps_whole_files = True

    def forget(self) -> None:
        """A new repository, and no cache of the old one."""
        super().forget()
        for directory in ("/root/.cache/borg", "/root/.config/borg"):
            shutil.rmtree(directory, ignore_errors=True)
        self._run("init", "--encryption", "none", self._repository)
        self.count = 0

    def backup(self) -> None:
        """One more archive."""
        self.count += 1
        self._run("create", f"{self._repository}::{self.count}", self.tree)

    def restore(self, target: Path) -> None:
        """The newest one."""
        self._run("extract", f"{self._repository}::{self.count}", cwd=target)

    @property
    def _repository(self) -> str:
        return f"ssh://{SERVER}{self.place}"

    def _run(self, *words: str | Path, cwd: Path | None = None) -> None:
        environment = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.there.run(["borg", *words], env=environment, cwd=cwd)


class Rsnapshot(Contestant):
    """rsnapshot, which runs on the server and logs in to the client as root."""

    name = "rsnapshot"
    needs = ("rsnapshot",)
    keeps_whole_files = True

    def forget(self) -> None:
        """An empty snapshot root; the rest is as Debian's configuration has it."""
        super().forget()
        settings = {
            "config_version": "1.2",
            "snapshot_root": f"{self.place}/",
            "cmd_cp": "/bin/cp",
            "cmd_rm": "/bin/rm",
            "cmd_rsync": shutil.which("rsync"),
            "cmd_ssh": "/usr/bin/ssh",
            "retain": "alpha\t30",
            "lockfile": "/run/rsnapshot.pid",
            "backup": f"root@{CLIENT}:{self.tree}/\tclient/",
        }
        lines = [f"{name}\t{value}\n" for name, value in settings.items()]
        self._configuration.write_text("".join(lines))

    def backup(self) -> None:
        """Hard links to what was there, then rsync."""
        words = ["rsnapshot", "-c", str(self._configuration), "alpha"]
        self.there.run(words, side=self.there.sides.server)

    def restore(self, target: Path) -> None:
        """By plain rsync, there being no other way."""
        newest = f"{SERVER}:{self.place}/alpha.0/client/.{self.tree}"
        self.there.run([*PLAIN, newest, f"{target}/"])

    @property
    def _configuration(self) -> Path:
        return Path("/run/rsnapshot.conf")


ALL: tuple[type[Contestant], ...] = (
    *(Rsync, FakeSuper, Byteback, Tar, Btrfs, Restic, Borg, Rsnapshot),
)


def chosen(names: Sequence[str] | None) -> tuple[list[type[Contestant]], list[str]]:
    """The contestants of these names, or all that are installed; and what is missing.

    Plain rsync is always one of them.
    """
    wanted = [
        kind
        for kind in ALL
        if names is None or kind.name in names or kind.name == Rsync.name
    ]
    missing = [
        f"{kind.name}: not measured, for {program} is not installed (--with-peers)"
        for kind in wanted
        for program in kind.needs
        if shutil.which(program) is None
    ]
    there = [kind for kind in wanted if all(shutil.which(name) for name in kind.needs)]
    return there, missing
