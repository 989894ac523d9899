"""Confines the process that runs it, for good, and then becomes another program.

It is a module for processes that confine themselves, and a script that stands before
a transfer's rsync, inside bubblewrap too, where nothing else of byteback can be seen:
so it imports nothing of byteback, and little of the standard library. What it applies
was worked out before, by :mod:`byteback.system.confinement.sandbox`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

STATUS_FAILED = 126  # never the status of a transfer: confined or not at all

# The same numbers on every architecture (asm-generic).
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_RULE_PATH_BENEATH = 1
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_FILTER_SIZE = 8  # bytes of one instruction, linux/filter.h


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enter(ruleset: bytes, grants: list[tuple[int, str]], program: bytes) -> None:
    """Give up all rights but ``grants``, and the system calls that ``program`` denies.

    ``ruleset`` is a struct landlock_ruleset_attr, empty for no Landlock; ``grants`` are
    (rights, path), and missing paths are skipped; ``program`` is a seccomp filter,
    empty for none. Raises OSError if the kernel will not have it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Nothing that is run from here on gains a right by a setuid bit.
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if ruleset:
        _enter_landlock(libc, ruleset, grants)
    if program:
        filters = _Program(len(program) // _FILTER_SIZE, program)
        _check(
            libc.prctl(
                _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filters), 0, 0
            )
        )


def _enter_landlock(
    libc: ctypes.CDLL, ruleset: bytes, grants: list[tuple[int, str]]
) -> None:
    fd = _check(libc.syscall(_SYS_CREATE_RULESET, ruleset, len(ruleset), 0))
    for rights, path in grants:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = struct.pack("=Qi", rights, place)
        _check(libc.syscall(_SYS_ADD_RULE, fd, _RULE_PATH_BENEATH, rule, 0))
        os.close(place)
    _check(libc.syscall(_SYS_RESTRICT_SELF, fd, 0))
    os.close(fd)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def lower(niceness: int, files: int, memory: int) -> None:
    """Take less of everything: processor, disc, descriptors, memory; no core files.

    ``memory`` is in bytes of address space, 0 for no limit.
    """
    os.nice(niceness)
    _lower_disc_priority()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower_limit(resource.RLIMIT_NOFILE, files)
    if memory:
        _lower_limit(resource.RLIMIT_AS, memory)
    # When memory runs out all the same, a transfer goes before anything else. A session
    # of root's on the server may be confined already, so that /proc is read-only (D54).
    try:
        with open("/proc/self/oom_score_adj", "wb") as file:  # noqa: PTH123 # see above
            file.write(b"500")
    except PermissionError:
        pass


def _lower_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _lower_disc_priority() -> None:
    number = {"x86_64": 251, "aarch64": 30}.get(os.uname().machine)
    if number is not None:  # best effort, lowest: ioprio_set(2)
        ctypes.CDLL(None).syscall(number, 1, 0, 2 << 13 | 7)


def _main(words: list[str]) -> None:
    """``KEY=VALUE ... -- PROGRAM [ARGUMENT...]``, in the order that is applied."""
    end = words.index("--")
    ruleset = program = b""
    grants = []
    ready = stderr = -1
    for word in words[:end]:
        key, _, value = word.partition("=")
        if key == "landlock":
            ruleset = bytes.fromhex(value)
        elif key == "seccomp":
            program = bytes.fromhex(value)
        elif key == "grant":
            rights, _, path = value.partition(":")
            grants.append((int(rights), path))
        elif key == "ready":
            ready = int(value)
        elif key == "stderr":
            stderr = int(value)
        else:
            raise ValueError(key)
    # If the process that started this is gone, so is the client's session.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    enter(ruleset, grants, program)
    if stderr >= 0:
        os.dup2(stderr, 2)
        os.close(stderr)
    if ready >= 0:
        # Until now, the process that waits can still choose another confinement. The
        # pipe closes itself when the program starts.
        os.write(ready, b"1")
        os.set_inheritable(ready, False)
    os.execv(words[end + 1], words[end + 1 :])  # noqa: S606 # the one thing it is for


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    # The process that waits was killed: no refusal, the client retries.
    except BrokenPipeError:
        pass
    except (OSError, ValueError) as error:
        sys.stderr.write(f"byteback-receive: error: cannot confine rsync: {error}\n")
        sys.stderr.flush()
    os._exit(STATUS_FAILED)
