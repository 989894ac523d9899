"""Which ciphers ssh is asked for, by what the real ssh makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from byteback.model.destination import Destination, parse_destination
from byteback.system import process
from byteback.system.ssh import openssh

KNOWS_AES = "processor : 0\nflags\t\t: fpu vme aes sse\n"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Destination:
    """A server, and a processor that knows AES."""
    place = tmp_path / "cpuinfo"
    place.write_text(KNOWS_AES)
    monkeypatch.setattr(openssh, "CPU_INFO", place)
    return parse_destination("byteback@backuphost:")


def effective_ciphers(argv: list[str]) -> list[str]:
    done = subprocess.run(
        [*argv, "-G", "backuphost"], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return next(line[1] for line in lines if line[0] == "ciphers").split(",")


@pytest.mark.needs("ssh")
def test_fast_ciphers_come_first_and_none_is_lost(there: Destination) -> None:
    usual = effective_ciphers(["ssh", "-F", "none"])
    if not set(openssh.FAST_CIPHERS) <= set(usual):
        pytest.skip("this ssh has no AES-GCM")
    chosen = openssh.fast_ciphers(there)
    argv = openssh.ssh_argv(there, Path("/etc/byteback/key"), ciphers=chosen)
    effective = effective_ciphers(argv)
    assert tuple(effective[: len(openssh.FAST_CIPHERS)]) == openssh.FAST_CIPHERS
    assert sorted(effective) == sorted(usual)


@pytest.mark.parametrize(
    "configured", [["aes256-ctr"], ["aes256-gcm@openssh.com", "aes256-ctr"], []]
)
def test_a_choice_in_ssh_config_stays(
    configured: list[str], there: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"]

    def ciphers(arguments: list[str] | None) -> list[str]:
        return usual if arguments is None else configured

    monkeypatch.setattr(openssh, "_ciphers", ciphers)
    assert openssh.fast_ciphers(there) is None


@pytest.mark.parametrize("info", ["flags : fpu sse aesthetic\n", "", None])
def test_a_processor_without_aes_keeps_the_order(
    info: str | None, there: Destination
) -> None:
    openssh.CPU_INFO.unlink()
    if info is not None:
        openssh.CPU_INFO.write_text(info)
    assert openssh.fast_ciphers(there) is None


def test_an_ssh_that_says_nothing_is_left_alone(
    there: Destination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "SEARCH_PATH", str(tmp_path), raising=False)
    assert openssh.fast_ciphers(there) is None
