"""The packages hold every program, with its manual page and its completion."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import byteback
from byteback.cli import _reports, completion
from byteback.server.setup import schedule
from byteback.server.setup.steps import StepRunner
from byteback.system import host

CHECKOUT = Path(__file__).resolve().parents[2]
DEBIAN = CHECKOUT / "debian"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PROGRAMS: dict[str, str] = PROJECT["project"]["scripts"]
FOR_SSHD = {"byteback-receive"}


def installed() -> list[str]:
    """Every path that one of the packages takes."""
    lists = [path.read_text().split() for path in DEBIAN.glob("*.install")]
    return [path for lines in lists for path in lines]


def test_version_is_the_changelogs() -> None:
    head = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert head.startswith(f"byteback ({byteback.__version__}) ")


def test_one_domain_stands_in_all_files() -> None:
    """While it is a place-holder, one edit sets it; see CONTRIBUTING.md."""
    urls = PROJECT["project"]["urls"]
    domains = {urlsplit(url).hostname for url in urls.values()}
    assert {urlsplit(url).scheme for url in urls.values()} == {"https"}
    assert len(domains) == 1
    for name in ("control", "changelog", "copyright", "byteback.NEWS"):
        text = (DEBIAN / name).read_text()
        assert set(re.findall(r"<[^@>\s]+@([^>\s]+)>", text)) == domains, name


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        ("https://byteback.example.org/issues", False),
        ("https://example.com", False),
        ("https://tracker.byteback.example/x", False),
        ("https://byteback.test-of-example.net/issues", True),
        ("https://forge.real.org/byteback/issues", True),
    ],
)
def test_bugs_are_reported_where_pyproject_says(
    url: str, is_shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nIssues = "{url}"\n')
    monkeypatch.setattr(_reports, "_CHECKOUT", tmp_path)
    assert (url in _reports.request()) is is_shown
    assert byteback.__version__ in _reports.request()


def test_every_package_of_the_code_is_in_the_wheel() -> None:
    """setuptools finds packages by their __init__.py, and takes those in include."""
    found = {
        path.parent.relative_to(CHECKOUT)
        for path in (CHECKOUT / "byteback").rglob("*.py")
    }
    assert all((CHECKOUT / path / "__init__.py").exists() for path in found)
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for path in found:
        name = ".".join(path.parts)
        assert any(fnmatchcase(name, pattern) for pattern in include), name
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        assert all(
            any((CHECKOUT / package.replace(".", "/")).glob(p)) for p in patterns
        )


def test_each_program_and_its_page_are_in_one_package() -> None:
    paths = installed()
    assert len(paths) == len(set(paths))
    for program in PROGRAMS:
        assert f"usr/bin/{program}" in paths
        assert f"usr/share/man/man1/{program}.1" in paths
    assert "usr/share/man/man7/byteback.7" in paths


def test_completion_is_for_what_people_type() -> None:
    assert set(completion.PROGRAMS) == set(PROGRAMS) - FOR_SSHD


def test_completion_files_are_installed(tmp_path: Path) -> None:
    completion.write_all(tmp_path)
    made = {
        f"usr/share/{path.relative_to(tmp_path)}"
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert len(made) == len(completion.PLACES) * len(completion.PROGRAMS)
    assert made <= set(installed())


def test_units_and_cron_never_both_run() -> None:
    for path in DEBIAN.glob("*.cron.d"):
        lines = path.read_text().splitlines()
        jobs = [line for line in lines if re.match(r"[\d*]", line)]
        assert jobs
        for job in jobs:
            command = job.split(" root ", 1)[1]
            assert command.startswith("[ -d /run/systemd/system ] || ")
            # A removed package leaves this file behind.
            program = command.rsplit("nice ", 1)[1].split()[0].rstrip(";")
            assert f"[ ! -x /usr/bin/{program} ]" in command


def test_percent_signs_are_escaped_for_cron() -> None:
    for path in DEBIAN.glob("*.cron.d"):
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                assert not re.search(r"(?<!\\)%", line)


def test_set_up_keeps_the_packages_cron_file() -> None:
    for job in (*schedule.JOBS, schedule.REPLICATE):
        text = (
            DEBIAN / f"byteback-server.{job.packaged_cron_file.name}.cron.d"
        ).read_text()
        assert schedule.is_kept(job, text)
        switched_off = "".join(f"#{line}\n" for line in text.splitlines())
        assert not schedule.is_kept(job, switched_off)
        own = schedule.format_cron(job, Path("/usr/bin") / job.program)
        assert not schedule.is_kept(job, own)
        assert not schedule.is_kept(job, None)


EACH_JOB = (*schedule.JOBS, schedule.REPLICATE)


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_no_fault_in_the_servers_units(tmp_path: Path) -> None:
    paths = []
    for job in EACH_JOB:
        program = tmp_path / job.program
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for unit in (job.timer, job.service):
            (tmp_path / unit).write_text(schedule.format_unit(unit, program))
            paths.append(tmp_path / unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr


@pytest.mark.parametrize("job", EACH_JOB, ids=lambda job: job.name)
def test_package_and_set_up_have_the_same_units(job: schedule.Job) -> None:
    for unit in (job.timer, job.service):
        packaged = (DEBIAN / f"byteback-server.{unit}").read_text()
        own = schedule.format_unit(unit, Path("/usr/bin") / job.program)
        assert own == f"{schedule.OWN_MARK}.\n{packaged}"
    assert f"/usr/bin/{job.program} {job.argument}\n" in packaged
    line = (
        DEBIAN / f"byteback-server.{job.packaged_cron_file.name}.cron.d"
    ).read_text()
    assert f"\n{job.cron_times} root " in line


@pytest.mark.parametrize("former", [None, "set-up's own", "an administrator's"])
def test_one_cron_file_prunes(
    former: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path("/usr/bin/byteback-prune")
    packaged, own = tmp_path / "byteback-server-prune", tmp_path / "byteback-prune"
    line = (DEBIAN / "byteback-server.byteback-server-prune.cron.d").read_text()
    job = schedule.PRUNE
    assert f"[ -e {job.cron_file} ] ||" in line
    packaged.write_text(line)
    if former == "set-up's own":
        own.write_text(schedule.format_cron(job, program))
    elif former is not None:
        own.write_text("7 * * * * root byteback-prune --prune\n")
    monkeypatch.setattr(schedule, "CRON_DIRECTORY", tmp_path)
    monkeypatch.setattr(schedule, "OWN_UNITS", tmp_path)
    monkeypatch.setattr(host, "is_systemd_running", lambda: False)
    list(schedule.provide_schedule(job, program, StepRunner()))
    assert own.exists() == (former == "an administrator's")


def cron_command(name: str) -> str:
    """The text that cron gives to the shell, its percent signs unescaped."""
    last = (DEBIAN / name).read_text().splitlines()[-1]
    return last.split(" root ", 1)[1].replace("\\%", "%")


@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in DEBIAN.glob("*.cron.d")),
)
def test_cron_commands_are_shell(name: str) -> None:
    subprocess.run(["sh", "-n", "-c", cron_command(name)], check=True)


def test_pause_before_the_backup_is_stable(tmp_path: Path) -> None:
    """The delay in the cron line, taken out of it and run by a shell."""
    match = re.search(
        r"sleep (\$\(\(.*% 14400\)\))", cron_command("byteback.byteback-backup.cron.d")
    )
    assert match is not None
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA www1\n")
    expression = match[1].replace("/etc/byteback/key.pub", f"{tmp_path}/key.pub")
    delays = {
        subprocess.run(
            ["sh", "-c", f"echo {expression}"], capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(delays) == 1
    assert 0 <= int(delays.pop()) < 14400


def test_a_purge_takes_what_is_remembered_from_run_to_run() -> None:
    named = re.compile(
        r'(?:"/var/(?:lib|cache)/byteback/|PATH\.with_name\(")([a-z.-]+)"'
    )
    scripts = {
        "client": (CHECKOUT / "debian/byteback.postrm").read_text(),
        "server": (CHECKOUT / "debian/byteback-server.postrm").read_text(),
    }
    for side, script in scripts.items():
        paths = (CHECKOUT / "byteback" / side).rglob("*.py")
        files = {name for path in paths for name in named.findall(path.read_text())}
        assert len(files) >= 3
        removed = set(re.findall(r"[a-z.-]+", script))
        assert files <= removed, side
