"""A confined program tries what it must not be able to do.

perl stands for an rsync that was taken over: it makes any system call and needs no
library files of its own. Where an attempt could fail for other reasons too, it is also
made unconfined, and must work there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from byteback.system.confinement import bubblewrap, elf, landlock, seccomp
from tests.waiting import PATIENCE_S

CHECKOUT = Path(__file__).resolve().parents[2]
PERL = Path("/usr/bin/perl")
EPERM, ENOENT, EACCES, EXDEV, EROFS, ENOSYS = 1, 2, 13, 18, 30, 38
FORBIDDEN = {EPERM, ENOENT, EACCES, EXDEV, EROFS, ENOSYS}
BTRFS_SNAP_DESTROY = 0x5000940F
CLONE_NEWUSER = 0x10000000

START = """
import os, sys
from pathlib import Path
from byteback.system.confinement import bubblewrap, elf, sandbox
if sys.argv[2] == "landlock":
    bubblewrap.program = lambda: None
if os.environ.get("GRANT") == "all libraries":
    elf.libraries = lambda *_: list(elf._LIBRARY_DIRECTORIES)
rights = sandbox.WRITE if sys.argv[3] == "w" else sandbox.READ
program, *words = sys.argv[4:]
job = sandbox.Job(Path(program), lambda _: words, Path(sys.argv[1]), rights)
if sys.argv[2] == "none":
    running = sandbox.start_unconfined(job)
else:
    running = sandbox.start(job)
status = running.process.wait()
print(running.layers, file=sys.stderr)
sys.exit(status if status >= 0 else 128 - status)
"""


def has_layer(name: str) -> bool:
    if name == "bubblewrap":
        return bubblewrap.works_as()
    return landlock.is_available()


@pytest.fixture(params=["landlock", "bubblewrap"])
def layer(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not has_layer(name):
        pytest.skip(f"{name} does not work here")
    if not PERL.exists():
        pytest.skip("perl is not installed")
    return name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The confined program's own tree, beside another one."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "secret").write_text("another client's")
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("its own")
    return own


def run(
    tree: Path, layer: str, code: str, rights: str = "w", *, program: Path = PERL
) -> subprocess.CompletedProcess[str]:
    """Run perl ``code`` in ``tree``; it prints what it found out."""
    code = textwrap.dedent(code).replace("OTHER", str(tree.parent / "other"))
    argv = [sys.executable, "-c", START, str(tree), layer, rights, str(program)]
    return subprocess.run(
        [*argv, "-e", code] if program == PERL else [*argv, code],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        timeout=PATIENCE_S,
    )


def errno_of(tree: Path, layer: str, attempt: str, rights: str = "w") -> int:
    """0 if the attempt, a perl expression, worked; else the error's number."""
    done = run(tree, layer, f"print((({attempt}) ? 0 : $! + 0), qq(\\n));", rights)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def call(name: str, *arguments: object) -> str:
    """A perl expression that makes a system call by its name."""
    library = seccomp._load()
    assert library is not None
    number = library.seccomp_syscall_resolve_name(name.encode())
    # perl takes no literal for what a system call may change.
    given = [
        f"(my $s{i} = {word})" if isinstance(word, str) else str(word)
        for i, word in enumerate(arguments)
    ]
    words = ", ".join([str(number), *given])
    return f"syscall({words}) != -1"


def test_its_own_tree_is_its_to_use(layer: str, tree: Path) -> None:
    done = run(
        tree,
        layer,
        """
        open(F, '<', 'file') or die "read: $!"; print <F>;
        open(F, '>', 'new') or die "write: $!"; print F 'x'; close F;
        mkdir 'directory' or die "mkdir: $!";
        link('new', 'directory/hard') or die "link: $!";
        rename('new', 'renamed') or die "rename: $!";
        chmod(0600, 'renamed') or die "chmod: $!";
        socketpair(A, B, 1, 1, 0) or die "socketpair: $!";
        defined(my $pid = fork) or die "fork: $!"; exit 0 unless $pid; wait;
        exit $?;
        """,
    )
    assert (done.returncode, done.stdout) == (0, "its own"), done.stderr
    assert (tree / "directory" / "hard").read_text() == "x"
    assert layer in done.stderr


def test_a_reader_changes_nothing(layer: str, tree: Path) -> None:
    for attempt in (
        "open(F, '>', 'file')",
        "open(F, '>', 'new')",
        "unlink('file')",
        "mkdir('d')",
        "rename('file', 'g')",
        "truncate('file', 0)",
    ):
        assert errno_of(tree, layer, attempt, "r") in FORBIDDEN, attempt
    assert (tree / "file").read_text() == "its own"
    assert errno_of(tree, layer, "open(F, '<', 'file')", "r") == 0


@pytest.mark.parametrize(
    "attempt",
    [
        "open(F, '<', 'OTHER/secret')",
        "open(F, '<', '../other/secret')",
        "open(F, '>>', 'OTHER/secret')",
        "open(F, '>', 'OTHER/new')",
        "opendir(D, 'OTHER')",
        "unlink('OTHER/secret')",
        "link('OTHER/secret', 'mine')",
        "rename('OTHER/secret', 'mine')",
        "open(F, '<', '/etc/passwd')",
        "open(F, '<', '/etc/shells')",
        "open(F, '<', '/proc/self/environ')",
        "opendir(D, '/usr/lib')",
        "opendir(D, '/')",
        "truncate('OTHER/secret', 0)",
    ],
)
def test_nobody_elses_files(layer: str, tree: Path, attempt: str) -> None:
    if "/usr/lib" in attempt and layer == "bubblewrap" and not has_layer("landlock"):
        pytest.skip("bubblewrap alone shows the system's own files")
    assert errno_of(tree, layer, attempt) in FORBIDDEN
    assert (tree.parent / "other" / "secret").read_text() == "another client's"
    if "/etc" not in attempt:
        assert errno_of(tree, "none", attempt) == 0, "the attempt itself is at fault"


@pytest.mark.parametrize(
    "attempt",
    ["chmod(0777, 'OTHER/secret')", "utime(1, 1, 'OTHER/secret')"],
)
def test_a_namespace_hides_what_landlock_leaves_open(tree: Path, attempt: str) -> None:
    """As DESIGN.md says: Landlock alone stops neither; with bubblewrap it is gone."""
    if not has_layer("bubblewrap"):
        pytest.skip("bubblewrap does not work here")
    assert errno_of(tree, "bubblewrap", attempt) == ENOENT
    assert errno_of(tree, "none", attempt) == 0


def test_a_namespace_makes_a_readers_tree_read_only(tree: Path) -> None:
    """Its files' modes and attributes too, which Landlock alone leaves open."""
    if not has_layer("bubblewrap"):
        pytest.skip("bubblewrap does not work here")
    assert errno_of(tree, "bubblewrap", "chmod(0600, 'file')", "r") == EROFS
    assert errno_of(tree, "bubblewrap", "chmod(0600, 'file')", "w") == 0


# Not its number: all processes that share a run must have the same names of tests.
THIS_PROCESS = "PID"
DENIED_CALLS = [
    call("socket", 2, 1, 0),  # internet
    call("socket", 1, 1, 0),  # unix
    call("socket", 16, 3, 0),  # netlink
    call("ptrace", 0, 0, 0, 0),
    call("setsid"),  # the group in which it is ended
    call("setpgid", 0, 0),
    call("unshare", CLONE_NEWUSER),
    call("clone", CLONE_NEWUSER | 17, 0, 0, 0, 0),
    call("clone3", 0, 0),
    call("mount", "'none'", "'.'", "'tmpfs'", 0, 0),
    call("chroot", "'.'"),
    call("memfd_create", "'x'", 0),
    call("bpf", 0, 0, 0),
    call("keyctl", 0, -3, 0),
    call("userfaultfd", 1),
    call("io_uring_setup", 1, 0),
    call("perf_event_open", 0, 0, -1, -1, 0),
    call("process_vm_readv", THIS_PROCESS, 0, 0, 0, 0, 0),
    call("prlimit64", THIS_PROCESS, 7, 0, 0),
    call("setpriority", 0, THIS_PROCESS, 19),
    call("shmget", 0, 4096, 0o1600),
    call("open_by_handle_at", -100, 0, 0),
    call("personality", 0),
    call("symlinkat", "'/etc'", -100, "'link'"),
    call("mknodat", -100, "'fifo'", 0o010600, 0),
    call("mknodat", -100, "'null'", 0o020666, 259),
    "symlink('/etc', 'link')",
]


@pytest.mark.parametrize("attempt", DENIED_CALLS)
def test_system_calls_beyond_a_transfers_need(
    layer: str, tree: Path, attempt: str
) -> None:
    if not seccomp.build_filter():
        pytest.skip("no filter for this architecture")
    attempt = attempt.replace(THIS_PROCESS, str(os.getpid()))
    assert errno_of(tree, layer, attempt) in (EPERM, ENOSYS, EACCES)
    assert [path.name for path in tree.iterdir()] == ["file"]


def test_no_ioctl_on_a_directory(layer: str, tree: Path) -> None:
    """By it the owner of a snapshot deletes it, and Landlock does not judge it."""
    attempt = (
        "opendir(D, '.'), sysopen(F, '.', 0), "
        f"ioctl(F, {BTRFS_SNAP_DESTROY}, my $b = chr(0) x 4096)"
    )
    code = f"{attempt}; print $! + 0;"
    assert run(tree, layer, code).stdout == str(EPERM)
    assert run(tree, "none", code).stdout != str(EPERM)


def test_nothing_in_the_tree_can_be_run(layer: str, tree: Path) -> None:
    shutil.copy("/bin/true", tree / "program")
    attempt = "exec('./program') or print($! + 0)"
    if layer == "bubblewrap" and not has_layer("landlock"):
        pytest.skip("only Landlock keeps files from being run")
    assert run(tree, layer, attempt).stdout == str(EACCES)
    assert run(
        tree, layer, "exec('/bin/sh', '-c', 'echo hi') or print($! + 0)"
    ).stdout == str(EACCES)
    done = run(tree, "none", attempt)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("granted", "runs"), [("those of the program", False), ("all libraries", True)]
)
def test_the_loader_runs_no_other_program(
    layer: str, tree: Path, monkeypatch: pytest.MonkeyPatch, granted: str, *, runs: bool
) -> None:
    """It may be run, and runs what it is given; some programs are among libraries.

    With every library granted it does: so each program is granted its own alone.
    """
    loader, other = elf.loader(PERL), Path("/usr/lib/apt/methods/store")
    if not (landlock.is_available() and loader and other.exists()):
        pytest.skip("needs Landlock and a program below /usr/lib")
    monkeypatch.setenv("GRANT", granted)
    done = run(tree, layer, f"exec '{loader}', '{other}'")
    assert ("100 Capabilities" in done.stdout) is runs, done


def test_other_processes_cannot_be_signalled(layer: str, tree: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            attempt = f"kill('TERM', {other.pid})"
            if layer == "landlock" and landlock.abi() < 6:
                pytest.skip("Landlock keeps signals in from version 6 on")
            assert errno_of(tree, layer, attempt) != 0
            assert other.poll() is None
            assert errno_of(tree, "none", attempt) == 0
        finally:
            other.kill()


def test_the_program_is_all_that_was_asked_for(layer: str, tree: Path) -> None:
    """Its working directory, limits and environment."""
    done = run(
        tree,
        layer,
        """
        print join(',', sort keys %ENV), "\\n";
        print getpriority(0, 0), "\\n";
        print -e 'file' ? 'here' : 'not here';
        """,
    )
    variables, niceness, here = done.stdout.splitlines()
    assert here == "here"
    assert int(niceness) >= 10
    kept = {"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "PWD", "TERM", "TMPDIR"}
    assert set(variables.split(",")) <= kept | {"TZ", "USER", "SSH_AUTH_SOCK"}


def test_a_lock_passed_on_lives_as_long_as_the_program(layer: str, tree: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from byteback import locking
from byteback.errors import LockedError
from byteback.system.confinement import bubblewrap, sandbox
if sys.argv[2] == "landlock":
    bubblewrap.program = lambda: None
place = Path(sys.argv[1]).parent / "private" / "lock"
with locking.hold(place) as lock:
    words = ["-e", "print 1; close STDOUT; sleep 60"]
    job = sandbox.Job(Path("/usr/bin/perl"), lambda _: words,
                      Path(sys.argv[1]), sandbox.WRITE, pass_fds=[lock.fd])
    running = sandbox.start(job)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
try:
    with locking.hold(place):
        sys.exit(3)
except LockedError:
    pass
from byteback.system import process
process.stop_group(running.process)
with locking.hold(place, wait_s=60):
    sys.exit(0)
"""
    argv = [sys.executable, "-c", code, str(tree), layer]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def test_status_of_the_program_comes_through(layer: str, tree: Path) -> None:
    assert run(tree, layer, "exit 23").returncode == 23


def test_the_filter_is_one_that_the_kernel_takes() -> None:
    program = seccomp.build_filter()
    assert program
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096  # BPF_MAXINSNS


def test_without_libseccomp_there_is_no_filter_and_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seccomp.build_filter.cache_clear()
    monkeypatch.setattr(seccomp, "_load", lambda: None)
    assert seccomp.build_filter() == b""
    assert "not installed" in seccomp.missing_reason()
    seccomp.build_filter.cache_clear()


def test_every_name_is_a_system_call() -> None:
    """A name that is misspelt would deny nothing."""
    library = seccomp._load()
    assert library is not None
    for name in (*seccomp._DENIED, "clone3", "clone", "prlimit64", "mknodat", "ioctl"):
        number = library.seccomp_syscall_resolve_name(name.encode())
        assert number != seccomp._UNKNOWN_NAME, name


def test_a_search_reads_its_trees_and_nothing_else(tree: Path) -> None:
    if not has_layer("landlock"):
        pytest.skip("Landlock does not work here")
    code = """
import os, socket, sys
from pathlib import Path
from byteback.system.confinement import restrict_self
tree, other = Path(sys.argv[1]), Path(sys.argv[2])
restrict_self.restrict_self([tree])
assert (tree / "file").read_text() == "its own"
import tomllib, json  # the library can still be loaded
for attempt in (
    lambda: (other / "secret").read_text(),
    lambda: (tree / "file").write_text("x"),
    lambda: (tree / "new").touch(),
    lambda: Path("/etc/passwd").read_text(),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: socket.socket(),
    lambda: os.listdir("/"),
):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit(3)
"""
    argv = [sys.executable, "-c", code, str(tree), str(tree.parent / "other")]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
