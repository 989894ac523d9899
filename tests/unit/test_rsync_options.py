"""Words of real rsyncs are understood; everything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import RefusedError
from byteback.server.transfer.rsync_args import ServerCommand, build_pull, build_push
from byteback.system.confinement.sandbox import View
from byteback.wire.requests import Pull, Push, parse_request

CAP = "e.iLsfxCIvu"
TIMEOUT = 10800
RECORDED = [
    line.split("\t")[1]
    for line in Path(__file__).with_name("rsync_requests.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("command", RECORDED)
def test_what_real_rsyncs_send_is_served(command: str) -> None:
    request = parse_request(command.encode())
    if isinstance(request, Push):
        argv = build_push(request.words, TIMEOUT).words
        assert argv[0] == "--server"
        assert argv[-3:] == ("--fake-super", ".", "./")
    else:
        assert isinstance(request, Pull)
        argv = build_pull(request.words, TIMEOUT, ["./x"], is_confined=True).words
        assert argv[:2] == ("--server", "--sender")
        assert argv[-3:] == ("--fake-super", ".", "./x")


BASE = f"--server -lHogDtpAXrR{CAP}"


@pytest.mark.parametrize(
    "word",
    [
        "-s",
        "-lrs",
        "-L",
        "-k",
        "-K",
        "-b",
        "-y",
        "--super",
        "--no-fake-super",
        "--sender",
        "--daemon",
        "--config=/tmp/x",
        "--log-file=/srv/x",
        "--log-file",
        "--files-from=/etc/passwd",
        "--files-from=-",
        "--temp-dir=/srv",
        "--partial-dir=x",
        "--backup-dir=../x",
        "--link-dest=/x",
        "--copy-dest=/x",
        "--compare-dest=/x",
        "--only-write-batch=x",
        "--write-devices",
        "--copy-devices",
        "--copy-unsafe-links",
        "--insecure-links",
        "--remove-source-files",
        "--remove-sent-files",
        "--usermap=*:0",
        "--groupmap=*:0",
        "--preallocate",
        "--max-alloc=0",
        "--debug=ALL",
        "--rsh=x",
        "-efoo/../bar x",
        "-lre",  # it would take the next word for its value
        "-e",
        "-e31",
        "-vvvv",
        "--iconv=ISO-2022-CN-EXT",
        "--timeout",
        "--timeout=x",
        "--inplace=1",
        "--bwlimit=$(id)",
        "--iconv=../../x",
        "--info=NAME;id",
        "--info=HELP",
        "--info=name,help2",
        "--checksum-choice=help",
        "-B99999999",
        "-B0",
        "--",
        "-",
        "x:y",
        "",
    ],
)
def test_other_words_are_refused_by_name(word: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        build_push([*BASE.split(), word, ".", "."], TIMEOUT)
    assert refusal.value.message


def test_a_push_cannot_name_its_path() -> None:
    argv = build_push([*BASE.split(), ".", "/etc", "../other", "--daemon"], 9).words
    assert argv[-2:] == (".", "./")
    assert not {"/etc", "../other", "--daemon"} & set(argv)


def test_what_a_client_says_twice_counts_once() -> None:
    """Clients whose rsync_flags repeat our options; rsync refuses XX."""
    words = f"--server -vvlHHogDtpAAXXXrRxx{CAP} --numeric-ids --numeric-ids --inplace"
    argv = build_push([*words.split(), "-AXHXX", "--inplace", ".", "."], TIMEOUT).words
    assert argv[1] == f"-vvlHogDtpAXrRx{CAP}"
    assert argv.count("--numeric-ids") == argv.count("--inplace") == 1


CHANGES = (
    f"--server -ldHogDtpAXR{CAP} --no-r --log-format=%i --delete-during --force -@-1 "
    "--numeric-ids --inplace"
)


def test_a_list_of_changes_is_taken_with_what_it_is_based_on() -> None:
    push, base = "0123456789abcdef" * 2, "fedcba9876543210" * 2
    words = [f"--tree-push={push}", f"--tree-base={base}", *CHANGES.split(), ".", "."]
    command = build_push(["--fake-super", *words], TIMEOUT)
    assert (command.push, command.base) == (push, base)
    assert not any("tree" in word for word in command.words)
    assert command.deletes
    assert "--no-r" in command.words
    assert "--force" in command.words
    plain = build_push([*BASE.split(), ".", "."], TIMEOUT)
    assert (plain.push, plain.base) == (None, None)


@pytest.mark.parametrize("name", ["--tree-push", "--tree-base"])
@pytest.mark.parametrize(
    "value",
    [
        *("", "../../.ssh", "0" * 31, "0" * 33, "A" * 32, f"{'0' * 31}/"),
        *(f"{'0' * 32}\n", f"{'0' * 30}\u0661\u0661", f"{'0' * 30}  "),
    ],
)
def test_other_names_of_trees_are_refused(name: str, value: str) -> None:
    with pytest.raises(RefusedError, match=name):
        build_push([f"{name}={value}", *BASE.split(), ".", "."], TIMEOUT)
    with pytest.raises(RefusedError, match=name):
        build_push([name, *BASE.split(), ".", "."], TIMEOUT)


def test_a_restore_has_no_tree() -> None:
    words = [f"--tree-base={'0' * 32}", "--server", "--sender", f"-lr{CAP}"]
    with pytest.raises(RefusedError, match="tree-base"):
        build_pull(words, TIMEOUT, ["./x"], is_confined=True)


def test_sparse_goes_where_inplace_is() -> None:
    words = [*f"--server -lrS{CAP}".split(), "--inplace", ".", "."]
    assert f"-lr{CAP}" in build_push(words, TIMEOUT).words
    words.remove("--inplace")
    assert f"-lrS{CAP}" in build_push(words, TIMEOUT).words


@pytest.mark.parametrize(
    ("asked", "given_"), [("99999", 600), ("30", 30), ("0", 600), ("-5", 600)]
)
def test_the_server_caps_the_time_out(asked: str, given_: int) -> None:
    words = [*BASE.split(), f"--timeout={asked}", ".", "."]
    assert f"--timeout={given_}" in build_push(words, 600).words


def test_a_push_must_be_a_server() -> None:
    with pytest.raises(RefusedError, match="--server"):
        build_push(["-lr", ".", "."], TIMEOUT)


def test_a_pull_must_be_a_sender() -> None:
    with pytest.raises(RefusedError, match="--sender"):
        build_pull(["--server", "-lr"], TIMEOUT, ["./x"], is_confined=True)


@pytest.mark.parametrize(
    "word", ["--delete", "--delete-during", "--remove-source-files", "--force"]
)
def test_a_pull_has_nothing_that_writes(word: str) -> None:
    words = ["--server", "--sender", "-lr", word]
    with pytest.raises(RefusedError):
        build_pull(words, TIMEOUT, ["./x"], is_confined=True)


def test_names_inside_the_protocol_need_confinement() -> None:
    words = ["--server", "--sender", "-lr", "--files-from=-", "--from0"]
    assert "--files-from=-" in build_pull(words, 9, ["./"], is_confined=True).words
    with pytest.raises(RefusedError, match="confine"):
        build_pull(words, 9, ["./"], is_confined=False)


def test_a_dry_run_is_known_as_one() -> None:
    assert build_push([*f"--server -nlr{CAP}".split(), ".", "."], 9).is_dry_run
    assert not build_push([*BASE.split(), ".", "."], 9).is_dry_run


WORD = st.one_of(
    st.sampled_from(sorted({word for line in RECORDED for word in line.split()})),
    st.text(alphabet="-=./abcdeLKsSnrl@B019,", max_size=12),
)


@given(st.lists(WORD, max_size=8))
def test_whatever_is_accepted_stays_inside_the_table(words: list[str]) -> None:
    try:
        argv = build_push([*words, "--server", ".", "x"], TIMEOUT).words
    except RefusedError:
        return
    assert argv[0] == "--server"
    assert argv[-3:] == ("--fake-super", ".", "./")
    assert argv.count("--fake-super") == 1
    for word in argv[1:-3]:
        assert word.startswith("-")
        assert "/" not in word
        if not word.startswith("--"):
            assert not word.endswith("e"), "takes the next word for its value"


# --- The whole command line, for each kind of request ------------------------------

ALONE = View(Path("/backup"), is_alone=True, fifo=Path("/log"))
AMONG_OTHERS = View(Path("/srv/c/current"), is_alone=False, fifo=Path("/srv/c.log"))
READING = View(Path("/srv/c"), is_alone=False)
OLD_RSYNC = frozenset({"--fake-super"})
RSYNC_3_5 = frozenset({"--fake-super", "--confine-root", "--insecure-links"})
END = "--timeout=10800 --fake-super ."
PUSHED = f"{BASE} --delete-during --numeric-ids --inplace {END} ./"
LOGGED = "--log-file-format=%i %n|--log-file="


def push() -> ServerCommand:
    words = f"{BASE} --delete-during --numeric-ids --inplace . .".split()
    return build_push(words, TIMEOUT)


def pull() -> ServerCommand:
    words = f"--server --sender -lHogDtpr{CAP} --numeric-ids".split()
    return build_pull(words, TIMEOUT, ["2026/etc", "2026/srv"], is_confined=True)


def pull_of_a_list() -> ServerCommand:
    words = f"--server --sender -lHogDtpr{CAP} --files-from=- --from0".split()
    return build_pull(words, TIMEOUT, ["./"], is_confined=True)


@pytest.mark.parametrize(
    ("command", "view", "known", "expected"),
    [
        (push, AMONG_OTHERS, OLD_RSYNC, f"{LOGGED}/srv/c.log {PUSHED}"),
        (push, ALONE, OLD_RSYNC, f"{LOGGED}/log {PUSHED}"),
        (push, ALONE, RSYNC_3_5, f"--insecure-links {LOGGED}/log {PUSHED}"),
        (
            *(push, AMONG_OTHERS, RSYNC_3_5),
            f"--confine-root=/srv/c/current {LOGGED}/srv/c.log {PUSHED}",
        ),
        (
            *(pull, READING, OLD_RSYNC),
            (
                f"--server --sender -lHogDtpr{CAP} --numeric-ids --exclude=. {END} "
                "2026/etc 2026/srv"
            ),
        ),
        (
            *(pull_of_a_list, READING, RSYNC_3_5),
            (
                f"--confine-root=/srv/c --server --sender -lHogDtpr{CAP} --from0 "
                f"--files-from=- {END} ./"
            ),
        ),
    ],
)
def test_the_whole_command_line(
    command: Callable[[], ServerCommand],
    view: View,
    known: frozenset[str],
    expected: str,
) -> None:
    words = expected.replace("%i %n|", "%i_%n ").split()
    wanted = [word.replace("%i_%n", "%i %n") for word in words]
    assert command().finish(view, known) == wanted


def test_a_second_pass_reads_all_names_first() -> None:
    finished = push().finish(READING, OLD_RSYNC, knows_names_first=True)
    assert finished == ["--no-inc-recursive", *PUSHED.split()]
