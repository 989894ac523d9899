"""System calls that nothing which serves a client needs, as a filter for the kernel.

Landlock speaks of files alone. This closes what lies beside them: sockets of every
kind, other processes of the same user, namespaces, the large and young interfaces
through which kernels are taken over, and the ioctls of btrfs, by which the owner of
a snapshot may make it writable or delete it whatever Landlock says.
"""

from __future__ import annotations

import errno
import os
import struct

# Name: number on x86_64, number on aarch64 (None where it does not exist). Those from
# 424 on have one number everywhere.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # The network, and unix sockets. socketpair(2), which rsync needs, reaches nobody.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Other processes of the same user, who serves all clients.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # Out of the group of processes that is ended with the transfer.
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # Other views of the file system.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # Links and devices have no place in a store, and a program in memory alone would
    # be none that Landlock can judge.
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "execveat": (322, 281),
    # Ways into the kernel.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "syslog": (103, 116),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
_CLONE3 = 435
# What came after mseal(2) of Linux 6.10 is not there: programs have other ways still.
_FIRST_UNKNOWN = 463
_X32_BIT = 0x40000000

# linux/audit.h, and which number of each pair above is whose.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CLONE = (56, 220)
_IOCTL = (16, 29)
_PRLIMIT = (302, 261)
_MKNODAT = (259, 33)

_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*, linux/sched.h
# TCGETS and TIOCGWINSZ (is it a terminal?), FIONREAD, FIOCLEX; no other ioctl.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5451)
_FILE_TYPE, _REGULAR = 0o170000, 0o100000

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer, args[6]
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# linux/bpf_common.h
_LOAD, _RETURN, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _AND = (
    0x20,
    0x06,
    0x15,
    0x35,
    0x45,
    0x54,
)
_ALLOW, _KILL = 0x7FFF0000, 0x80000000


def machine() -> str:
    """This machine's architecture as the kernel names it."""
    return os.uname().machine


def build_filter(architecture: str) -> bytes:
    """The filter as an array of struct sock_filter; empty for an unknown architecture.

    What is denied fails with EPERM, as if it were not permitted, or ENOSYS, as if the
    kernel did not have it; a call by another architecture's numbers ends the process.
    """
    if architecture not in _ARCHITECTURES:
        return b""
    audit, column = _ARCHITECTURES[architecture]
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, audit, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *_deny_if(_JUMP_AT_LEAST, _X32_BIT),
        *_deny_if(_JUMP_AT_LEAST, _FIRST_UNKNOWN, errno.ENOSYS),
        # Its flags are in memory, where no filter can look; clone(2) takes its place.
        *_deny_if(_JUMP_EQUAL, _CLONE3, errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            program += _deny_if(_JUMP_EQUAL, number)
    program += _on_call(
        _CLONE[column], [*_argument(0), *_deny_if(_JUMP_BITS, _NEW_NAMESPACES)]
    )
    # Not another process's limits: the first argument is a pid, 0 one's own.
    program += _on_call(
        _PRLIMIT[column],
        [
            *_argument(0),
            _instruction(_JUMP_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _failure(errno.EPERM)),
        ],
    )
    program += _on_call(
        _MKNODAT[column],
        [
            *_argument(2),
            _instruction(_AND, _FILE_TYPE),
            _instruction(_JUMP_EQUAL, _REGULAR, 2, 0),
            _instruction(_JUMP_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _failure(errno.EPERM)),
        ],
    )
    program += _on_call(_IOCTL[column], _only_known_ioctls())
    program.append(_instruction(_RETURN, _ALLOW))
    return b"".join(program)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _failure(number: int) -> int:
    return 0x00050000 | number  # SECCOMP_RET_ERRNO


def _deny_if(jump: int, value: int, number: int = errno.EPERM) -> list[bytes]:
    return [
        _instruction(jump, value, 0, 1),
        _instruction(_RETURN, _failure(number)),
    ]


def _on_call(number: int, body: list[bytes]) -> list[bytes]:
    """``body`` for one system call, which is allowed if it comes to its end."""
    return [
        _instruction(_JUMP_EQUAL, number, 0, len(body) + 1),
        *body,
        _instruction(_RETURN, _ALLOW),
    ]


def _argument(index: int) -> list[bytes]:
    """Load the low half of an argument; both architectures are little-endian."""
    return [_instruction(_LOAD, _ARGUMENTS + 8 * index)]


def _only_known_ioctls() -> list[bytes]:
    body = _argument(1)
    for left, known in zip(range(len(_IOCTLS), 0, -1), _IOCTLS, strict=True):
        body.append(_instruction(_JUMP_EQUAL, known, left, 0))
    body.append(_instruction(_RETURN, _failure(errno.EPERM)))
    return body
