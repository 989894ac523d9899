"""A server and a client in network namespaces of their own, joined by one cable.

Both share the copy's files and processes; whose a process is shows in its network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.integration import conftest as machine
from tests.integration.faults.parts import (
    ADDRESS,
    ADDRESS6,
    CABLE,
    HOST,
    NAME,
    SIDES,
    constants,
    lay_cable,
    mount_store,
    server_sshd,
    start_sshd,
    store_volume,
    unmount_store,
)
from tests.integration.programs import (
    SEARCH_PATH,
    Outcome,
    require_program,
    run_program,
)
from tests.waiting import PATIENCE_S, wait_until

RUN = Path("/run/byteback")
HOSTS = Path("/etc/hosts")
IN_TIME_S = PATIENCE_S
LINGER_S = 60.0  # for what has been told to end
PERSIST_S = 3600  # an idle connection ends by itself, but long after that

LIMIT = "bound"  # a table of rules
# In the title of the process that serves a session: sshd's, and since OpenSSH 9.8
# sshd-session's.
SESSION = ": byteback"


@dataclass
class Running:
    """A byteback-backup that was started, and where it prints to."""

    popen: subprocess.Popen[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    @property
    def pid(self) -> int:
        """Of the program itself: nsenter becomes it."""
        return self.popen.pid

    def finish(self, timeout_s: float = IN_TIME_S) -> Outcome:
        """Wait for its end."""
        self.popen.wait(timeout_s)
        return Outcome(self.popen.returncode, _read(self.stdout), _read(self.stderr))

    def wait_for_words(self, words: str) -> None:
        """Wait until it has printed that on standard error."""
        wait_until(lambda: self._has_ended() or words in _read(self.stderr))
        said = _read(self.stderr)
        assert words in said, f"{words!r} was not printed:\n{said}"

    def _has_ended(self) -> bool:
        return self.popen.poll() is not None


@dataclass
class World:
    """The things that a test can do to the two machines."""

    bin: Path
    store: Path
    source: Path
    sshd: subprocess.Popen[bytes]
    sshd_configuration: Path
    user: machine.ServerUser
    image: Path
    configuration: Path = machine.CONFIGURATION
    started: list[Running] = field(default_factory=list)
    client_environment: dict[str, str] = field(default_factory=dict)
    aged: int = 0

    # --- Backups ---------------------------------------------------------------

    @property
    def host(self) -> Path:
        """The client's directory in the store."""
        return self.store / HOST

    @property
    def current(self) -> Path:
        """The copy of ``source`` in the server's current."""
        return self.host / "current" / self.source.relative_to("/")

    def copy_in(self, snapshot: str) -> Path:
        """The copy of ``source`` in a snapshot."""
        return self.host / snapshot / self.source.relative_to("/")

    def snapshots(self) -> list[str]:
        """All snapshots, by name."""
        return sorted(p.name for p in self.host.iterdir() if p.name != "current")

    def start(
        self, *arguments: str, retries: int = 3, delay_s: int = 1, source: bool = True
    ) -> Running:
        """Start byteback-backup as cron would: with no terminal."""
        argv = [*self._on("client"), str(self.bin / "byteback-backup")]
        argv += [f"--retry-number={retries}", f"--retry-delay={delay_s}", *arguments]
        if source:
            argv += ["--source", str(self.source)]
        stdout = tempfile.TemporaryFile()  # noqa: SIM115 # reset closes them
        stderr = tempfile.TemporaryFile()  # noqa: SIM115
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={"PATH": SEARCH_PATH, "HOME": "/root", **self.client_environment},
            start_new_session=True,
        )
        running = Running(popen, stdout, stderr)
        self.started.append(running)
        return running

    def backup(self, *arguments: str, expect: int = 0, **options: int) -> Outcome:
        """Run byteback-backup to its end, which must be ``expect``."""
        outcome = self.start(*arguments, **options).finish()  # type: ignore[arg-type] # ints only
        assert outcome.status == expect, outcome
        return outcome

    def let_time_pass(self) -> None:
        """Date all snapshots so far before all that will be made: a new one is due."""
        for name in self.snapshots():
            if not name.startswith("2001-"):
                self.aged += 1
                day = date(2001, 1, 1) + timedelta(days=self.aged % 365)
                (self.host / name).rename(self.host / f"{day}T00:00+0000")

    # --- The cable -------------------------------------------------------------

    def cut(self) -> None:
        """Pull the cable out."""
        run_program(["ip", "-n", "client", "link", "set", CABLE, "down"])

    def mend(self) -> None:
        """Put the cable back in, as good as new."""
        for side in SIDES:
            run_program([*self._on(side), "nft", "flush", "ruleset"])
            qdisc = ["tc", "-n", side, "qdisc", "del", "dev", CABLE, "root"]
            run_program(qdisc, check=False)
            run_program(["ip", "-n", side, "link", "set", CABLE, "up"])
            self._set_addresses(side)

    def drop(self, percent: int = 100) -> None:
        """Let a firewall on the way swallow packets, in both directions."""
        for side in SIDES:
            some = "" if percent == 100 else f"numgen random mod 100 < {percent}"
            rule = f"oifname {CABLE} {some} drop"
            chain = f"type filter hook output priority 0\n{rule}\n"
            rules = f"table inet way {{\nchain out {{\n{chain}}}\n}}\n"
            run_program([*self._on(side), "nft", rules])

    def swallow_after(self, number: int) -> int:
        """Let a firewall swallow all that the client sends beyond so many bytes.

        The kernel counts them: the line stands still there however late a test gets its
        turn. Returns how many the client had sent before.
        """
        rule = f"oifname {CABLE} quota over {number} bytes drop"
        chain = f"type filter hook output priority 0\n{rule}\n"
        rules = f"table inet {LIMIT} {{\nchain out {{\n{chain}}}\n}}\n"
        before = self.bytes_sent()
        run_program([*self._on("client"), "nft", rules])
        return before

    def let_pass(self) -> None:
        """Take that firewall away."""
        run_program([*self._on("client"), "nft", "delete", "table", "inet", LIMIT])

    def forget_connections(self) -> None:
        """Let a firewall on the way swallow what belongs to a connection of now.

        New connections pass, as through a router that was started anew.
        """
        shown = run_program([*self._on("client"), "ss", "-Htn", "dport", "=", ":22"])
        ports = ",".join(
            line.split()[3].rpartition(":")[2] for line in shown.stdout.splitlines()
        )
        for side, end in (("server", "dport"), ("client", "sport")):
            rule = f"oifname {CABLE} tcp {end} {{ {ports} }} drop"
            chain = f"type filter hook output priority 0\n{rule}\n"
            rules = f"table inet way {{\nchain out {{\n{chain}}}\n}}\n"
            run_program([*self._on(side), "nft", rules])

    def slow(self, rate: str) -> None:
        """Make the cable no faster than ``rate``, as tc writes rates."""
        for side in SIDES:
            shaper = ["tbf", "rate", rate, "burst", "16kb", "latency", "100ms"]
            qdisc = ["qdisc", "replace", "dev", CABLE, "root", *shaper]
            run_program(["tc", "-n", side, *qdisc])

    def bytes_sent(self) -> int:
        """How many bytes the client has sent over the cable, ever."""
        shown = run_program(["ip", "-n", "client", "-s", "-j", "link", "show", CABLE])
        sent: int = json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]
        return sent

    # --- Processes -------------------------------------------------------------

    def processes(self, side: str, name: str = "") -> list[psutil.Process]:
        """Living processes of one side, but for its sshd that waits for logins.

        ``name`` is a part of the command line, or ``=`` and the program's own name.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    self._is_of(process, side)
                    and process.pid != self.sshd.pid
                    and process.status() != psutil.STATUS_ZOMBIE
                    and _is_named(process, name)
                ):
                    found.append(process)
        return found

    def wait_for(self, side: str, name: str, timeout_s: float = IN_TIME_S) -> int:
        """Wait until such a process is there; its number."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = self.processes(side, name)
            if found:
                return found[0].pid
            time.sleep(0.02)
        pytest.fail(f"no {name!r} on the {side} within {timeout_s} s")

    def wait_for_transfer(self, number: int) -> int:
        """Wait until rsync runs and the client has sent so many bytes more.

        Returns how many it had sent before. Those that measured the line are among
        them: how many that takes is up to the machine.
        """
        self.wait_for("client", "--server")
        before = self.bytes_sent()
        self.wait_until_sent(before + number)
        return before

    def wait_until_sent(self, number: int) -> None:
        """Wait until the client has sent so many bytes, ever."""
        wait_until(lambda: self.bytes_sent() >= number, f"{number} bytes are not sent")

    def assert_nothing_left(self, timeout_s: float = LINGER_S) -> None:
        """No process, no directory of a connection, no lock that is held."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            left = [p for side in SIDES for p in self.processes(side)]
            if not left:
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"still running: {[_describe(p) for p in left]}")
        assert [p.name for p in RUN.glob("*") if p.name != "backup.lock"] == []
        run_program(["flock", "--nonblock", RUN / "backup.lock", "true"])
        state = self.store / ".byteback/hosts" / f"{HOST}.lock"
        if state.exists():
            run_program(["flock", "--nonblock", state, "true"])

    def kill_everything(self) -> None:
        """End all that runs on either side, as a power cut would."""
        self._kill_processes()
        for running in self.started:
            running.popen.wait(PATIENCE_S)
            running.stdout.close()
            running.stderr.close()
        self.started.clear()

    def _kill_processes(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while left := [p for side in SIDES for p in self.processes(side)]:
            if time.monotonic() > deadline:
                pytest.fail(f"cannot be killed: {[_describe(p) for p in left]}")
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.02)

    def cut_power(self) -> None:
        """Stop the server at this very moment, and start it again.

        What had not reached its disc is lost. The image must be on a file system that
        can copy a file in an instant.
        """
        disc = self.image.with_suffix(".then")
        run_program(["cp", "--reflink=always", self.image, disc])
        self.stop_sshd()
        while left := self.processes("server"):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        unmount_store(self.store)
        disc.replace(self.image)
        mount_store(self.image, self.store)
        self.sshd = start_sshd(self.sshd_configuration)

    def logins(self) -> int:
        """How many connections the server's sshd has let in, ever."""
        log = self.sshd_configuration.parent / "log"
        return log.read_text().count("Accepted publickey for byteback ")

    def stop_sshd(self) -> None:
        """No more logins; those that are there stay."""
        self.sshd.kill()
        self.sshd.wait(PATIENCE_S)

    # --- Between tests ---------------------------------------------------------

    def reset(self) -> None:
        """As good as new: an empty current, no snapshots, an empty source."""
        self.mend()
        self.kill_everything()
        shutil.rmtree(RUN, ignore_errors=True)
        for tree in self.host.iterdir():
            run_program(["btrfs", "property", "set", "-ts", tree, "ro", "false"])
            run_program(["btrfs", "subvolume", "delete", tree])
        run_program(["btrfs", "subvolume", "create", self.host / "current"])
        shutil.chown(self.host / "current", self.user.uid, self.user.gid)
        for left in (self.store / ".byteback").rglob("*"):
            if left.is_file():
                left.unlink()
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir(parents=True)
        keep = {"key", "key.pub", "destination", "known_hosts", "server.toml"}
        for entry in self.configuration.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in keep:
                entry.unlink()

    def _is_of(self, process: psutil.Process, side: str) -> bool:
        if process.uids().real == self.user.uid:
            return side == "server"  # a confined transfer has a network of its own
        network = Path(f"/proc/{process.pid}/ns/net").stat()
        return network.st_ino == Path("/run/netns", side).stat().st_ino

    def _on(self, side: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{side}"]

    def _set_addresses(self, side: str) -> None:
        # Taken down, a link loses its IPv6 addresses.
        address = [f"{ADDRESS6[side]}/64", "dev", CABLE, "nodad"]
        run_program(["ip", "-n", side, "-6", "addr", "replace", *address])


@contextlib.contextmanager
def build_world(bin_: Path, image_directory: Path) -> Iterator[World]:
    """Two machines, set up by the real programs; the store's image is put there."""
    for program in ("nft", "tc", "ip", "mkfs.btrfs", "sshd"):
        require_program(program)
    machine.forget_client()
    with contextlib.ExitStack() as stack:
        stack.enter_context(constants("system/ssh/openssh.py", PERSIST_S=PERSIST_S))
        for side in SIDES:
            run_program(["ip", "netns", "add", side])
            stack.callback(run_program, ["ip", "netns", "del", side], check=False)
        lay_cable()
        hosts = HOSTS.read_text()
        HOSTS.write_text(f"{hosts}\n{ADDRESS['server']} {NAME}\n")
        stack.callback(HOSTS.write_text, hosts)
        image = image_directory / "store.img"
        volume = stack.enter_context(store_volume(image))
        sshd, configuration = stack.enter_context(server_sshd())
        stack.callback(machine.remove_user)
        stack.callback(machine.forget_client)
        source = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/srv")))
        _enrol(bin_, volume)
        user = machine.find_user()
        world = World(
            bin_, user.home, source / "source", sshd, configuration, user, image
        )
        stack.callback(world.stop_sshd)
        stack.callback(world.kill_everything)
        world.reset()
        yield world


def _enrol(bin_: Path, volume: Path) -> None:
    admin_key = machine.make_admin_key()
    run_program(
        [
            *("nsenter", "--net=/run/netns/server", bin_ / "byteback-setup-server"),
            *("--directory", volume, "--no-schedule"),
            *("--admin-key", admin_key.with_suffix(".pub")),
        ]
    )
    run_program(
        [
            *("nsenter", "--net=/run/netns/client", bin_ / "byteback-setup-client"),
            *("--hostname", HOST, "--destination", f"byteback@{NAME}:"),
            "--accept-new-host-key",
        ]
    )


def _is_named(process: psutil.Process, name: str) -> bool:
    if name.startswith("="):
        return bool(process.name() == name[1:])
    return name in " ".join(process.cmdline())


def _read(file: IO[bytes]) -> str:
    # Whose position is the program's, too, which may be writing there now.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode("utf-8", "surrogateescape")


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join([str(process.pid), *process.cmdline()])[:200]
    return "ended"


def write_files(directory: Path, sizes: Sequence[int]) -> None:
    """Files of random bytes, which no transfer can compress."""
    for number, size in enumerate(sizes):
        (directory / f"file-{number}").write_bytes(os.urandom(size))
