"""System calls that nothing which serves a client needs, as a filter for the kernel.

Landlock speaks of files alone. This closes what lies beside them: sockets of every
kind, other processes of the same user, namespaces, the large and young interfaces
through which kernels are taken over, and the ioctls of btrfs, by which the owner of
a snapshot may make it writable or delete it whatever Landlock says.

libseccomp knows the numbers of all system calls on each architecture, and writes the
filter (seccomp_rule_add(3)). Two things it cannot express come before its program: a
list of the ioctls that are allowed, and system calls that are newer than this table.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import sys

# Each of these fails with EPERM. A name that an architecture lacks is skipped.
_DENIED = (
    # The network, and unix sockets. socketpair(2), which rsync needs, reaches no other
    # process.
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    # Other processes of the same user, who serves all clients.
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_send_signal",
    "pidfd_open",
    "pidfd_getfd",
    "process_madvise",
    "process_mrelease",
    "move_pages",
    "migrate_pages",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "sched_setaffinity",
    "setpriority",
    "ioprio_set",
    # Out of the group of processes that is ended with the transfer.
    "setsid",
    "setpgid",
    "shmget",
    "shmat",
    "shmctl",
    "semget",
    "semctl",
    "msgget",
    "msgctl",
    "mq_open",
    "mq_unlink",
    # Other views of the file system.
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "name_to_handle_at",
    "fanotify_init",
    "quotactl",
    "quotactl_fd",
    # Links and devices have no place in a store, and a program in memory alone would
    # be none that Landlock can judge.
    "symlink",
    "symlinkat",
    "mknod",
    "memfd_create",
    "memfd_secret",
    "execveat",
    # Ways into the kernel.
    "add_key",
    "request_key",
    "keyctl",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "personality",
    "modify_ldt",
    "uselib",
    "iopl",
    "ioperm",
    "lookup_dcookie",
    "vhangup",
    "syslog",
    "acct",
    "reboot",
    "swapon",
    "swapoff",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
)
# libseccomp puts socket(2) and its kin for socketcall(2), where there is such a call.
# clone3(2) has its flags in memory, where no filter can look; clone(2) takes its place.
_CLONE3 = "clone3"
# System calls have the same numbers everywhere from 424 on, but on Alpha and MIPS.
# What came after mseal(2) of Linux 6.10 is not there: programs have other ways still.
_FIRST_UNKNOWN = 463
_OTHER_NUMBERS = ("alpha", "mips")

# CLONE_NEW* of linux/sched.h, one bit each. They are clone(2)'s first argument, and the
# second one on s390.
_NAMESPACES = (
    *(0x80, 0x20000, 0x02000000, 0x04000000),
    *(0x08000000, 0x10000000, 0x20000000, 0x40000000),
)
# TCGETS and TIOCGWINSZ (is it a terminal?), FIONREAD, FIOCLEX; no other ioctl.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5451)
_FILE_TYPE, _REGULAR = 0o170000, 0o100000

# seccomp.h of libseccomp
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_UNKNOWN_NAME = -1
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_OPTIMIZE, _BINARY_TREE = 8, 2

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer, args[6]
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# linux/bpf_common.h
_LOAD, _RETURN, _JUMP_EQUAL, _JUMP_AT_LEAST = 0x20, 0x06, 0x15, 0x35


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


@functools.cache
def build_filter() -> bytes:
    """The filter as an array of struct sock_filter; empty where it cannot be made.

    That is where libseccomp is missing, or does not know this architecture. What is
    denied fails with EPERM, as if it were not permitted, or ENOSYS, as if the kernel
    did not have it; a call by another architecture's numbers ends the process.
    """
    library = _load()
    if library is None:
        return b""
    context = library.seccomp_init(_ALLOW)
    if not context:
        return b""
    try:
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        _add_rules(library, context)
        return _prologue(library) + _export(library, context)
    except OSError:
        return b""
    finally:
        library.seccomp_release(context)


def missing_reason() -> str:
    """The words for a machine without a filter."""
    if _load() is None:
        return "no seccomp: libseccomp is not installed"
    return f"no seccomp, which libseccomp lacks for {os.uname().machine}"


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32),
    )
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    return library


def _add_rules(library: ctypes.CDLL, context: int) -> None:
    for name in _DENIED:
        _deny(library, context, name)
    _deny(library, context, _CLONE3, number=errno.ENOSYS)
    flags = 1 if os.uname().machine.startswith("s390") else 0
    for bit in _NAMESPACES:
        _deny(library, context, "clone", (flags, _MASKED_EQUAL, bit, bit))
    # Not another process's limits: the first argument is a pid, 0 one's own.
    _deny(library, context, "prlimit64", (0, _NOT_EQUAL, 0, 0))
    for kind in range(0, _FILE_TYPE + 1, 0o010000):
        if kind not in (0, _REGULAR):
            _deny(library, context, "mknodat", (2, _MASKED_EQUAL, _FILE_TYPE, kind))


def _deny(
    library: ctypes.CDLL,
    context: int,
    name: str,
    comparison: tuple[int, int, int, int] | None = None,
    *,
    number: int = errno.EPERM,
) -> None:
    """Let a system call fail, always or if one argument compares so.

    Raises OSError if libseccomp cannot do that.
    """
    call = library.seccomp_syscall_resolve_name(name.encode("ascii"))
    if call == _UNKNOWN_NAME:
        return
    count = 0 if comparison is None else 1
    array = (_Comparison * 1)(_Comparison(*(comparison or (0, 0, 0, 0))))
    result = library.seccomp_rule_add_array(
        context, _failure(number), call, count, array
    )
    # A negative number stands for a call that this architecture does not have.
    if result < 0 and call >= 0:
        raise OSError(-result, os.strerror(-result))


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "r+b") as file:
        result = library.seccomp_export_bpf(context, fd)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        file.seek(0)
        return file.read()


def _prologue(library: ctypes.CDLL) -> bytes:
    """The instructions before libseccomp's program, which goes on after them.

    Numbers mean nothing before the architecture is known to be this machine's own.
    """
    ioctls = [
        _instruction(_LOAD, _low_half(_ARGUMENTS + 8)),
        *(
            _instruction(_JUMP_EQUAL, known, left, 0)
            for left, known in zip(range(len(_IOCTLS), 0, -1), _IOCTLS, strict=True)
        ),
        _instruction(_RETURN, _failure(errno.EPERM)),
        _instruction(_RETURN, _ALLOW),
    ]
    ioctl = library.seccomp_syscall_resolve_name(b"ioctl")
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, library.seccomp_arch_native(), 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if not os.uname().machine.startswith(_OTHER_NUMBERS):
        program += [
            _instruction(_JUMP_AT_LEAST, _FIRST_UNKNOWN, 0, 1),
            _instruction(_RETURN, _failure(errno.ENOSYS)),
        ]
    program += [_instruction(_JUMP_EQUAL, ioctl, 0, len(ioctls)), *ioctls]
    return b"".join(program)


def _low_half(offset: int) -> int:
    """The offset of the low 32 bits of a 64-bit argument."""
    return offset if sys.byteorder == "little" else offset + 4


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _failure(number: int) -> int:
    return 0x00050000 | number  # SECCOMP_RET_ERRNO
