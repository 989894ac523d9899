"""Puts a transfer where nothing but its own client's tree can be reached.

Three layers, each of which holds alone: a mount namespace without any other client's
files (bubblewrap), the kernel's own judgement of each file that is opened (Landlock),
and no system call beyond what rsync needs (seccomp). See DESIGN.md, D6, for what each
covers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from byteback.system import process
from byteback.system.confinement import bubblewrap, confine, elf, landlock, seccomp
from byteback.system.confinement.landlock import (
    EXECUTE,
    READ,
    READ_FILE,
    WRITE,
    WRITE_FILE,
    Grant,
)

__all__ = ["READ", "WRITE", "Grant", "Job", "Limits", "describe", "is_available"]


class Limits(NamedTuple):
    """The most that a confined program may take."""

    niceness: int = 10
    files: int = 1024
    memory: int = 0  # bytes of address space; 0: no limit


class View(NamedTuple):
    """The files that a program sees where it runs."""

    tree: Path
    is_alone: bool  # whether there is no other file than the tree's
    fifo: Path | None = None


class Job(NamedTuple):
    """A program that root installed, to run in one tree and nowhere else."""

    program: Path
    arguments: Callable[[View], Sequence[str]]  # for the place where it will run
    tree: Path
    rights: int  # READ or WRITE
    limits: Limits = Limits()
    pass_fds: Collection[int] = ()
    fifo: Path | None = None  # outside the tree, and it may write to it
    helpers: Collection[Grant] = ()  # what it may run besides itself, and read for that
    output: int | None = None  # for all that it prints; None: our own streams

    def command(self) -> list[str]:
        """The program's command line among the files of this machine."""
        return self._command(View(self.tree, is_alone=False, fifo=self.fifo))

    def command_alone(self) -> list[str]:
        """The same where it sees nothing but its tree, by bubblewrap's names."""
        fifo = None if self.fifo is None else bubblewrap.FIFO
        return self._command(View(bubblewrap.TREE, is_alone=True, fifo=fifo))

    def _command(self, view: View) -> list[str]:
        return [str(self.program), *self.arguments(view)]


class Running(NamedTuple):
    """A confined program, and what holds it."""

    process: process.Process
    layers: str  # for the log


def is_available() -> bool:
    """True if transfers can be confined here to the files of their client."""
    return landlock.is_available() or bubblewrap.works_as()


def describe(user: str | None = None) -> str:
    """One sentence about the confinement that this machine offers ``user``."""
    layers = []
    if bubblewrap.works_as(user):
        layers.append("bubblewrap")
    if landlock.is_available():
        layers.append(f"Landlock (ABI {landlock.abi()})")
    if not layers:
        return (
            "nothing here can confine transfers: the kernel has no Landlock of version "
            f"{landlock.MIN_ABI} or later, and bubblewrap does not work"
        )
    if seccomp.build_filter():
        layers.append("seccomp")
    else:
        layers.append(seccomp.missing_reason())
    return f"transfers are confined to their client's tree by {', '.join(layers)}"


def start(job: Job) -> Running:
    """Start a job under every layer that works here, on our own standard streams.

    Raises OSError where neither bubblewrap nor Landlock works: never unconfined.
    """
    abi = landlock.abi()
    abi = abi if abi >= landlock.MIN_ABI else 0
    if bubblewrap.program() is not None:
        running = _start_wrapped(job, abi)
        if running is not None:
            return running
    if not abi:
        raise OSError("neither bubblewrap nor Landlock works")
    shim = [bubblewrap.interpreter(), "-I", "-S", confine.__file__]
    words = [*shim, *_plan(job, abi, job.tree, job.fifo), "--", *job.command()]
    return Running(_start(words, job, job.tree, ()), _layers("landlock"))


def start_unconfined(job: Job) -> Running:
    """Start a job with its limits, but with no confinement: for a policy of "off"."""
    return Running(_start(job.command(), job, job.tree, ()), "none")


def program_grants(program: Path) -> list[Grant]:
    """Grants for a program to run: itself, its loader, its libraries, no more.

    Nothing else can be executed, so that even a program that was taken over cannot
    start a shell; and a client that makes rsync name files learns nothing of the rest.
    """
    its_loader = elf.loader(program)
    grants = [
        Grant(program, EXECUTE | READ_FILE),
        Grant(Path("/etc/ld.so.cache"), READ_FILE),
        Grant(Path("/dev/urandom"), READ_FILE),
        Grant(Path("/dev/null"), READ_FILE | WRITE_FILE),
    ]
    if its_loader is not None:
        grants.append(Grant(its_loader, EXECUTE | READ_FILE))
        grants += [Grant(path, READ) for path in elf.libraries(program, its_loader)]
    return grants


def _start_wrapped(job: Job, abi: int) -> Running | None:
    """Start a job in bubblewrap; None if that does not work here.

    Until the confinement is complete nothing has read a byte from the client, and its
    last step tells us through a pipe.
    """
    ready, told = os.pipe()
    # What bwrap itself complains about is no business of the client's.
    stderr = os.dup(2 if job.output is None else job.output)
    try:
        words = [
            *bubblewrap.argv(job.tree, is_writable=job.rights == WRITE, fifo=job.fifo),
            *(bubblewrap.interpreter(), "-I", "-S", str(bubblewrap.SHIM)),
            *_plan(job, abi, bubblewrap.TREE, bubblewrap.FIFO),
            *(f"ready={told}", f"stderr={stderr}"),
            *("--", *job.command_alone()),
        ]
        running = _start(words, job, None, (told, stderr), stderr=process.NULL)
        os.close(told)
        told = -1
        if os.read(ready, 1):
            return Running(running, _layers("bubblewrap", "landlock" if abi else ""))
        running.wait()
        return None
    finally:
        os.close(ready)
        os.close(stderr)
        if told >= 0:
            os.close(told)


def _start(
    words: Sequence[str],
    job: Job,
    directory: Path | None,
    pass_fds: Collection[int],
    stderr: int | None = None,
) -> process.Process:
    limits = job.limits
    return process.start(
        words,
        stdin=None if job.output is None else process.NULL,
        stdout=job.output,
        stderr=job.output if stderr is None else stderr,
        cwd=directory,
        pass_fds=[*job.pass_fds, *pass_fds],
        in_child=partial(confine.lower, limits.niceness, limits.files, limits.memory),
        new_session=True,
    )


def _plan(job: Job, abi: int, tree: Path, fifo: Path | None) -> list[str]:
    """The words that tell confine.py what to apply, with the paths that it sees."""
    words = []
    if abi:
        words.append(f"landlock={landlock.ruleset(abi).hex()}")
        for grant in [*program_grants(job.program), *job.helpers]:
            if grant.path.exists():
                rights, path = landlock.encode(grant, abi)
                words.append(f"grant={rights}:{path}")
        rights, _ = landlock.encode(Grant(job.tree, job.rights), abi)
        words.append(f"grant={rights}:{tree}")
        if job.fifo is not None:
            rights, _ = landlock.encode(Grant(job.fifo, WRITE_FILE), abi)
            words.append(f"grant={rights}:{fifo}")
    program = seccomp.build_filter()
    if program:
        words.append(f"seccomp={program.hex()}")
    return words


def _layers(*kinds: str) -> str:
    names = [kind for kind in kinds if kind]
    if seccomp.build_filter():
        names.append("seccomp")
    return "+".join(names)
