"""The decisions of a server's set-up that do not touch the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.errors import BytebackError, UsageError
from byteback.model.size import format_size, parse_size
from byteback.server.setup import checks, keys, run, schedule
from byteback.server.setup.steps import (
    Choice,
    Device,
    Directory,
    Image,
    Kind,
    StepRunner,
    choose_store,
)
from byteback.server.setup.store import is_store_like, missing_options
from byteback.system import host, process
from byteback.system.btrfs import filesystem

KEY = (
    "ssh-ed25519 "
    "AAAAC3NzaC1lZDI1NTE5AAAAIAZKQ8EzVRCDU1QGLQUlP7AlPcF4D28dlKkwLfI1VmN7 me"
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20G", 20 << 30),
        ("500M", 500 << 20),
        ("1T", 1 << 40),
        ("1.5g", 3 << 29),
        ("2 GiB", 2 << 30),
        ("4096", 4096),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "20X", "1e3", "20G 3", "٣G"])
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_sizes_are_shown() -> None:
    assert [format_size(size) for size in (300, 20 << 30, 3 << 29)] == [
        "300 B",
        "20 GiB",
        "1.5 GiB",
    ]


DEV, DIR, IMG = Path("/dev/x"), Path("/d"), Path("/i")


@pytest.mark.parametrize(
    ("choose", "choice"),
    [
        (choose_store, None),
        (lambda: choose_store(device=DEV), Device(DEV)),
        (lambda: choose_store(device=DEV, may_format=True), Device(DEV, True)),
        (lambda: choose_store(directory=DIR), Directory(DIR)),
        (lambda: choose_store(image=IMG, size="1G"), Image(IMG, 1 << 30)),
        (lambda: choose_store(image=IMG), Image(IMG)),
    ],
)
def test_a_store_is_chosen(
    choose: Callable[[], Choice | None], choice: Choice | None
) -> None:
    assert choose() == choice


@pytest.mark.parametrize(
    "choose",
    [
        lambda: choose_store(device=DEV, directory=DIR),
        lambda: choose_store(device=DEV, image=IMG, size="1G"),
        lambda: choose_store(directory=DIR, size="1G"),
        lambda: choose_store(directory=DIR, may_format=True),
        lambda: choose_store(may_format=True),
        lambda: choose_store(image=IMG, size="255M"),
        lambda: choose_store(image=IMG, size="many"),
    ],
)
def test_contradictions_are_usage_errors(choose: Callable[[], Choice | None]) -> None:
    with pytest.raises(UsageError):
        choose()


def test_only_root_may_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root"):
        next(run.set_up(run.SetupRequest()))


def test_a_dry_run_does_nothing() -> None:
    def explode() -> None:
        raise AssertionError

    assert StepRunner(dry_run=True).do("x", explode).kind is Kind.WOULD


def test_a_failing_step_is_named() -> None:
    def fail() -> None:
        raise PermissionError(1, "Operation not permitted", "/f")

    with pytest.raises(BytebackError, match="cannot sweep: Operation not permitted"):
        StepRunner().do("sweep", fail)


@pytest.mark.parametrize(
    ("wanted", "present", "missing"),
    [
        (("noatime",), ("rw", "noatime"), ()),
        (("compress=zstd",), ("compress=zstd:3",), ()),
        (("compress=zstd",), ("compress-force=lzo",), ()),
        (("compress=zstd", "nofail"), ("rw",), ("compress=zstd", "nofail")),
    ],
)
def test_missing_options(
    wanted: tuple[str, ...], present: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert missing_options(wanted, present) == missing


def test_a_strangers_directory_is_no_store(tmp_path: Path) -> None:
    assert is_store_like(tmp_path, None)
    (tmp_path / "photos").mkdir()
    assert not is_store_like(tmp_path, None)
    assert is_store_like(tmp_path, tmp_path.stat().st_uid)
    (tmp_path / "client.example" / "current").mkdir(parents=True)
    assert is_store_like(tmp_path, None)


def test_a_lone_btrfs_signature_is_found() -> None:
    btrfs = filesystem.Signature("btrfs", "u", "byteback")
    assert filesystem.find_btrfs([btrfs]) == btrfs
    assert filesystem.find_btrfs([]) is None
    assert filesystem.find_btrfs([btrfs, filesystem.Signature("gpt", "", "")]) is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["PermitRootLogin no", "AllowUsers root byte*"], []),
        (["allowusers root", "AllowUsers byteback@10.0.0.0/8"], []),
        (["Match User bob", "AllowUsers bob"], []),
        (["Match User bob", "X y", "Match all", "AllowUsers bob"], ["allowusers"]),
        (["AllowUsers root # byteback"], ["allowusers"]),
        (["AllowUsers=root"], ["allowusers"]),
        (["AllowUsers * !byteback"], ["allowusers"]),
        (["DenyUsers byteback", "AllowGroups ssh"], ["denyusers", "allowgroups"]),
        (["AllowGroups byteback"], []),
        (["PubkeyAuthentication no"], ["pubkeyauthentication"]),
        (["AuthorizedKeysFile /etc/ssh/keys/%u"], ["authorizedkeysfile"]),
        (["AuthorizedKeysFile /etc/keys %h/.ssh/authorized_keys"], []),
        ([], []),
    ],
)
def test_sshd_obstacles(lines: list[str], words: list[str]) -> None:
    found = checks.find_obstacles(lines, {"byteback"})
    assert sorted(text.split()[0] for text in found) == sorted(words)


def test_a_program_out_of_the_users_reach_is_told(tmp_path: Path) -> None:
    program = tmp_path / "private" / "byteback-receive"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    outcomes = list(checks.check_reach(program))
    assert [each.kind for each in outcomes] == [Kind.WARNING]
    assert list(checks.check_reach(Path("/bin/sh"))) == []


def test_a_key_file_may_hold_several_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# us\n\n{KEY}\n{KEY}2\n")
    assert keys.read_admin_keys([str(path)]) == [KEY, f"{KEY}2"]


@pytest.mark.parametrize(
    "text", ["", "# none\n", "hello\n", 'command="x" ' + KEY, "-PRIVATE KEY-\n"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError, match=str(path)) as caught:
        keys.read_admin_keys([str(path)])
    assert ".pub" in str(caught.value.hint)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        keys.read_admin_keys([str(tmp_path / "none")])


class Recorder:
    """Stands in for running programs: remembers them, answers with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, argv: list[str], **_options: object) -> process.Finished:
        self.calls.append(tuple(argv))
        return process.Finished(tuple(argv), self.status, b"", b"")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A machine that runs systemd, with no unit of byteback's yet."""
    recorder = Recorder(1)
    for name in ("own", "packaged"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(host, "is_systemd_running", lambda: True)
    monkeypatch.setattr(process, "run", recorder)
    monkeypatch.setattr(schedule, "OWN_UNITS", tmp_path / "own")
    monkeypatch.setattr(schedule, "PACKAGED_UNITS", (tmp_path / "packaged",))
    return recorder


PRUNE = Path("/opt/50% off/byteback-prune")


def test_systemd_gets_units_and_a_timer(systemd: Recorder, tmp_path: Path) -> None:
    outcomes = list(schedule.provide_schedule(schedule.PRUNE, PRUNE, StepRunner()))
    assert [each.kind for each in outcomes] == [Kind.DONE, Kind.DONE]
    service = (tmp_path / "own" / "byteback-prune.service").read_text()
    assert 'ExecStart="/opt/50%% off/byteback-prune" --prune\n' in service
    assert (tmp_path / "own" / "byteback-prune.timer").exists()
    assert ("systemctl", "daemon-reload") in systemd.calls
    assert systemd.calls[-1] == (
        "systemctl",
        "enable",
        "--now",
        "byteback-prune.timer",
    )


def test_packaged_units_are_only_enabled(systemd: Recorder, tmp_path: Path) -> None:
    (tmp_path / "packaged" / "byteback-prune.timer").touch()
    outcomes = list(schedule.provide_schedule(schedule.PRUNE, PRUNE, StepRunner()))
    assert [each.kind for each in outcomes] == [Kind.DONE]
    assert not list((tmp_path / "own").iterdir())


def test_a_second_run_finds_the_timer(systemd: Recorder) -> None:
    list(schedule.provide_schedule(schedule.PRUNE, PRUNE, StepRunner()))
    systemd.status = 0
    outcomes = list(schedule.provide_schedule(schedule.PRUNE, PRUNE, StepRunner()))
    assert {each.kind for each in outcomes} == {Kind.FOUND}


def test_a_dry_run_enables_nothing(systemd: Recorder, tmp_path: Path) -> None:
    outcomes = list(
        schedule.provide_schedule(schedule.PRUNE, PRUNE, StepRunner(dry_run=True))
    )
    assert {each.kind for each in outcomes} == {Kind.WOULD}
    assert not list((tmp_path / "own").iterdir())
    assert all("is-" in call[1] for call in systemd.calls)


def test_cron_gets_one_line_with_percent_escaped() -> None:
    lines = schedule.format_cron(schedule.PRUNE, PRUNE).splitlines()
    assert lines[-1] == ("*/5 * * * * root '/opt/50\\% off/byteback-prune' --prune")
    assert all(line.startswith("#") for line in lines[:-1])


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ([], 22),
        (["#Port 2222", "Match User x", "Port 2223"], 22),
        (["Port 2222"], 2222),
        (["Port 2222", "Port 22"], 22),
        (["Port none"], 22),
    ],
)
def test_the_port_that_clients_come_to(lines: list[str], port: int) -> None:
    assert checks.sshd_port(lines) == port


@pytest.mark.parametrize(
    ("lines", "permitted"),
    [
        ([], False),
        (["PermitUserEnvironment yes"], True),
        (["permituserenvironment=YES # for backups"], True),
        (["PermitUserEnvironment no", "PermitUserEnvironment yes"], False),
        (["PermitUserEnvironment LANG,BYTEBACK_*"], True),
        (["PermitUserEnvironment LANG"], False),
    ],
)
def test_sshd_may_let_keys_set_variables(lines: list[str], permitted: bool) -> None:
    assert checks.permits_environment(lines) == permitted


def test_own_units_give_way_to_a_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, packaged = tmp_path / "etc", tmp_path / "usr"
    for directory in (own, packaged):
        directory.mkdir()
    monkeypatch.setattr(schedule, "OWN_UNITS", own)
    monkeypatch.setattr(schedule, "PACKAGED_UNITS", (packaged,))
    monkeypatch.setattr(schedule, "CRON_DIRECTORY", tmp_path)
    monkeypatch.setattr(host, "is_systemd_running", lambda: True)
    monkeypatch.setattr(
        process, "run", lambda argv, **_: process.Finished(tuple(argv), 0, b"", b"")
    )
    program = Path("/usr/bin/byteback-prune")
    list(schedule.provide_schedule(schedule.PRUNE, program, StepRunner()))
    cron = tmp_path / "byteback-prune"
    cron.write_text(schedule.format_cron(schedule.PRUNE, program))
    (own / "byteback-prune.service.d").mkdir()  # somebody's own
    (packaged / schedule.PRUNE.timer).touch()
    said = [
        x.text for x in schedule.provide_schedule(schedule.PRUNE, program, StepRunner())
    ]
    assert "the package brings its own" in said[0]
    assert [path.name for path in own.iterdir()] == ["byteback-prune.service.d"]
    assert not (tmp_path / "cron").exists()
