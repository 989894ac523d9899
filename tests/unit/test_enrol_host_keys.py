"""Whom set-up trusts: known_hosts in all its forms, ssh_config, and the answers."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.client.settings import Files
from byteback.client.setup import host_key
from byteback.client.setup.host_key import KnownKeys
from byteback.errors import BytebackError
from byteback.model.destination import parse_destination
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.system.ssh import config as ssh_config
from byteback.system.ssh import known_hosts
from byteback.system.ssh.config import SshConfig
from tests.unit.test_authorized_keys import key_text

MINE, OTHER = parse_public_key(key_text(1)), parse_public_key(key_text(2))
RSA = PublicKey("ssh-rsa", b"an RSA key")
CONFIG = SshConfig("vault.example", 22, "byteback", "ask", (), ())


@dataclass
class Answers:
    """A person who answers as told, and remembers the questions."""

    yes: bool | None = None  # None: nobody there
    asked: list[str] = field(default_factory=list)

    def can_confirm(self) -> bool:
        return self.yes is not None

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return bool(self.yes)

    def can_ask_secret(self) -> bool:
        return False

    def secret(self, prompt: str) -> str | None:
        raise AssertionError(prompt)


def words(key: PublicKey) -> str:
    return " ".join(key.line.split()[:2])


def find(path: Path, text: str, *names: str) -> list[bytes]:
    path.write_text(text)
    return [line.blob for line in known_hosts.find_keys([path], names)]


@pytest.mark.parametrize(
    ("hosts", "name", "is_found"),
    [
        ("vault.example", "vault.example", True),
        ("VAULT.example", "vault.example", True),
        ("other,vault.example,10.0.0.1", "vault.example", True),
        ("*.example", "vault.example", True),
        ("*.example,!vault.example", "vault.example", False),
        ("!vault.example,*.example", "vault.example", False),
        ("v?ult.example", "vault.example", True),
        ("[vault.example]:2222", "[vault.example]:2222", True),
        ("[vault.example]:2222", "vault.example", False),
        ("[*.example]:2222", "[vault.example]:2222", True),
        ("[v]ault.example", "vault.example", False),
        ("vault", "vault.example", False),
        ("|1|bad|hash", "vault.example", False),
        ("|2|AAAA|AAAA", "vault.example", False),
    ],
)
def test_names(tmp_path: Path, hosts: str, name: str, is_found: bool) -> None:
    found = find(tmp_path / "known", f"{hosts} {words(MINE)}\n", name)
    assert found == ([MINE.blob] if is_found else [])


def test_hashed_by_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(f"[vault.example]:2222 {words(MINE)}\nelse {words(OTHER)}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", path], check=True, capture_output=True)
    assert "vault" not in path.read_text()
    assert find(path, path.read_text(), "[vault.example]:2222") == [MINE.blob]


def test_bad_lines_and_authorities_count_for_nothing(tmp_path: Path) -> None:
    text = (
        "# vault.example\n\nvault.example\nvault.example ssh-rsa !!!\n\x00\xff\n"
        f"@cert-authority vault.example {words(OTHER)}\n"
        f"@revoked * {words(RSA)}\n"
        f"vault.example {words(MINE)} comment\n"
    )
    path = tmp_path / "known"
    path.write_text(text)
    missing = tmp_path / "missing"
    found = known_hosts.find_keys([missing, tmp_path, path], ["vault.example"])
    assert [(x.blob, x.is_revoked) for x in found] == [
        (RSA.blob, True),
        (MINE.blob, False),
    ]


@given(st.binary())
def test_any_file_can_be_read(content: bytes) -> None:
    for line in content.splitlines():
        known_hosts._parse(line, ["vault"], Path("x"))


def known(
    pinned: PublicKey | None = None, seen: PublicKey | None = None, **flags: bool
) -> KnownKeys:
    def lines(key: PublicKey | None) -> tuple[known_hosts.HostKeyLine, ...]:
        if key is None:
            return ()
        revoked = flags.get("revoked", False)
        return (known_hosts.HostKeyLine(key.kind, key.blob, revoked, Path("/k"), "v"),)

    return KnownKeys(lines(pinned), lines(seen))


@pytest.mark.parametrize(
    ("keys", "strictness", "accept_new", "yes", "is_trusted"),
    [
        (known(pinned=MINE), "yes", False, None, True),
        (known(seen=MINE), "yes", False, None, True),
        (known(pinned=MINE, seen=OTHER), "yes", False, None, True),
        (known(), "ask", False, True, True),
        (known(), "ask", False, False, False),
        (known(), "ask", False, None, False),
        (known(), "ask", True, None, True),
        (known(), "yes", False, True, False),
        (known(), "yes", True, None, True),
        (known(), "accept-new", False, None, True),
        (known(), "no", False, None, True),
        (known(pinned=OTHER), "no", True, True, False),
        (known(seen=OTHER), "no", True, True, False),
        (known(pinned=OTHER, seen=MINE), "no", True, True, False),
        (known(pinned=RSA), "no", True, True, False),
        (known(seen=MINE, revoked=True), "no", True, True, False),
    ],
)
def test_trust(
    keys: KnownKeys,
    strictness: str,
    accept_new: bool,
    yes: bool | None,
    is_trusted: bool,
) -> None:
    config = replace(CONFIG, strict_host_key_checking=strictness)
    answers = Answers(yes)

    def check() -> None:
        host_key.check_host_key(MINE, keys, config, answers, accept_new=accept_new)

    if is_trusted:
        check()
    else:
        with pytest.raises(BytebackError) as caught:
            check()
        asked = "".join(answers.asked) + str(caught.value.message)
        asked += str(caught.value.hint)
        assert MINE.fingerprint in asked or "revoked" in asked
    assert len(answers.asked) <= 1


def test_pinning_replaces_only_its_own_host(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.known_hosts.write_text(f"other {words(OTHER)}\nvault {words(OTHER)}\n")
    destination = parse_destination("byteback@Vault:")
    host_key.pin(files, destination, MINE)
    host_key.pin(files, destination, MINE)
    assert files.known_hosts.read_text() == (
        f"other {words(OTHER)}\nvault {words(MINE)}\n"
    )


def test_output_of_ssh_is_read() -> None:
    config = ssh_config.parse(
        "host vault\nuser admin\nhostname vault.example\nport 2222\n"
        "stricthostkeychecking accept-new\nidentitiesonly yes\n"
        "identityfile ~/.ssh/%h_%r\nidentityfile /k/50%%\n"
        "userknownhostsfile /a /b\nglobalknownhostsfile /c\n"
        "proxycommand nc %h %p\nidentityagent none\nhostkeyalias Vault\n"
    )
    assert (config.host, config.port, config.user) == ("vault.example", 2222, "admin")
    assert config.strict_host_key_checking == "accept-new"
    assert config.identity_files[0].parts[-2:] == (".ssh", "vault.example_admin")
    assert config.identity_files[1] == Path("/k/50%")
    assert config.known_hosts == (Path("/a"), Path("/b"), Path("/c"))
    assert config.proxy == "nc vault.example 2222"
    assert config.agent == "none"
    assert config.host_key_alias == "Vault"


@pytest.mark.parametrize(
    ("jump", "proxy"),
    [
        ("none", None),
        ("a@j:1", "ssh -W '[v]:22' -- ssh://a@j:1"),
        ("j1,j2,[::1]:3", "ssh -W '[v]:22' -J j1,j2 -- 'ssh://[::1]:3'"),
    ],
)
def test_jump_hosts(jump: str, proxy: str | None) -> None:
    assert ssh_config.parse(f"hostname v\nport 22\nproxyjump {jump}\n").proxy == proxy


def test_real_ssh_is_asked() -> None:
    config = ssh_config.resolve(parse_destination("ssh://x@192.0.2.1:2200/"), "admin")
    assert (config.host, config.port, config.user) == ("192.0.2.1", 2200, "admin")
    assert config.strict_host_key_checking in ("ask", "yes", "no", "accept-new")
    assert all(path.is_absolute() for path in config.identity_files)
    assert config.known_hosts
