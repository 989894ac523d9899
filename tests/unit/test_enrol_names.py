"""The name that a machine enrols under, and the key that goes with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from byteback.client.setup import client_key
from byteback.client.setup.enrolment import choose_name
from byteback.errors import BytebackError, NotSetUpError, ToolError, UsageError
from byteback.model.public_key import parse_public_key
from byteback.system import host
from tests.unit.test_authorized_keys import KEY
from tests.unit.test_enrol_host_keys import Answers

needs_ssh_keygen = pytest.mark.needs("ssh-keygen")


@pytest.mark.parametrize(
    ("former", "given", "yes", "name"),
    [
        (None, None, None, "now.example"),
        ("now.example", None, None, "now.example"),
        (None, "given.example", None, "given.example"),
        ("old.example", "given.example", None, "given.example"),
        ("old.example", None, True, "now.example"),
        ("old.example", None, False, "old.example"),
    ],
)
def test_name(
    monkeypatch: pytest.MonkeyPatch,
    former: str | None,
    given: str | None,
    yes: bool | None,
    name: str,
) -> None:
    monkeypatch.setattr(host, "full_host_name", lambda: "now.example")
    answers = Answers(yes)
    assert choose_name(former, given, answers) == name
    assert len(answers.asked) == (yes is not None)


def test_a_name_that_was_given_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "full_host_name", lambda: "now.example")
    answers = Answers()
    assert choose_name("given.example", None, answers, "now.example") == "given.example"
    assert not answers.asked
    with pytest.raises(UsageError):  # renamed since
        choose_name("given.example", None, answers, "then.example")


def test_renamed_machine_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "full_host_name", lambda: "now.example")
    with pytest.raises(UsageError) as caught:
        choose_name("old.example", None, Answers())
    assert "--hostname old.example" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", "a b", "-x"])
def test_useless_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(host, "full_host_name", lambda: name)
    with pytest.raises(UsageError):
        choose_name(None, None, Answers(yes=True))


@needs_ssh_keygen
def test_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = client_key.ensure_key(path, "a.example")
    assert key.kind == "ssh-ed25519"
    assert key.comment == "byteback client key a.example"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_bytes()
    assert client_key.ensure_key(path, "b.example") == key
    assert path.read_bytes() == secret
    assert sorted(x.name for x in tmp_path.iterdir()) == ["key", "key.pub"]


@needs_ssh_keygen
@pytest.mark.parametrize("stray", [None, f"{KEY.line}\n", "rubbish\n"])
def test_public_half_follows_the_private_one(tmp_path: Path, stray: str | None) -> None:
    path = tmp_path / "key"
    key = client_key.ensure_key(path, "a.example")
    public = tmp_path / "key.pub"
    public.unlink()
    if stray is not None:
        public.write_text(stray)
    path.chmod(0o644)
    assert client_key.ensure_key(path, "a.example").blob == key.blob
    assert parse_public_key(public.read_text()).blob == key.blob
    assert path.stat().st_mode & 0o777 == 0o600


@needs_ssh_keygen
def test_lost_key_is_made_anew(tmp_path: Path) -> None:
    key = client_key.ensure_key(tmp_path / "key", "a.example")
    (tmp_path / "key").unlink()
    assert client_key.ensure_key(tmp_path / "key", "a.example").blob != key.blob


@needs_ssh_keygen
def test_unusable_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    with pytest.raises(NotSetUpError):
        client_key.ensure_key(path, "a.example")
    path.unlink()
    words = ["-q", "-t", "ed25519", "-N", "secret"]
    subprocess.run(["ssh-keygen", *words, "-f", path], check=True)
    with pytest.raises(ToolError, match="passphrase"):
        client_key.ensure_key(path, "a.example")


@needs_ssh_keygen
def test_a_key_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to("missing")
    with pytest.raises(BytebackError, match="leads nowhere"):
        client_key.ensure_key(path, "a.example")
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_in_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BytebackError, match="No such file"):
        client_key.ensure_key(tmp_path / "missing" / "key", "a.example")


def test_old_key_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys = [client_key.ensure_key(path, "old")]
    for name in ("one", "two"):
        new = tmp_path / f"key.{name}.new"
        keys.append(client_key.ensure_key(new, name))
        client_key.put_in_force(new, path, "old")
    assert client_key.ensure_key(path, "two") == keys[2]
    assert client_key.ensure_key(tmp_path / "key.old", "old") == keys[0]
    assert client_key.ensure_key(tmp_path / "key.old.2", "one") == keys[1]
