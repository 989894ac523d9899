"""This machine's own key pair in /etc/byteback: made once, never overwritten."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from byteback import locking
from byteback.client.settings import check_key
from byteback.errors import BytebackError, ToolError, quote
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.system import files, process

logger = logging.getLogger(__name__)


def ensure_key(path: Path, host: str) -> PublicKey:
    """The public half of the key at ``path``, which is made if it is missing.

    A key that is there is kept, RSA keys of the old tool too, and its public half is
    always taken from it, for a stray key.pub may belong to another key. Raises
    ToolError if it is no usable key: empty, or protected by a passphrase.
    """
    public = public_path(path)
    if not path.exists():
        if public.exists():
            logger.warning("%s is lost: making a new key", path)
        _make_key(path, host)
    check_key(path)
    try:
        shown = process.run(["ssh-keygen", "-y", "-P", "", "-f", path])
    except ToolError as error:
        raise ToolError(
            f"{quote(str(path))} is no private key that works without a passphrase",
            hint=f"have a new one made: mv {path} {path}.old, and run this again with "
            "--replace-key",
            details=error.details,
        ) from None
    return _with_public_file(parse_public_key(shown.text), public, host)


def public_path(path: Path) -> Path:
    """The file of the public half: beside it, with .pub."""
    return path.with_name(f"{path.name}.pub")


def put_in_force(new: Path, path: Path, old_host: str) -> None:
    """Make ``new`` the machine's key, and keep the one before as ``key.OLD_HOST``."""
    if path.exists():
        kept = path.with_name(f"{path.name}.{old_host}")
        number = 1
        while kept.exists():
            number += 1
            kept = path.with_name(f"{path.name}.{old_host}.{number}")
        path.rename(kept)
        if public_path(path).exists():
            public_path(path).rename(public_path(kept))
        logger.info("the key of %s is kept as %s", old_host, kept)
    new.rename(path)
    public_path(new).rename(public_path(path))
    files.sync_directory(path.parent)


def _make_key(path: Path, host: str) -> None:
    # Made in a directory of its own and linked into place: a crash or a full disc
    # leaves no half a key, and link(2) never replaces one.
    with locking.map_os_errors(path.parent):
        directory = Path(tempfile.mkdtemp(prefix=".key-", dir=path.parent))
    try:
        made = directory / "key"
        comment = f"byteback client key {host}"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment]
        process.run([*argv, "-f", made])
        os.link(made, path)
        public_path(made).rename(public_path(path))
        files.sync_directory(path.parent)
    except FileExistsError:
        if path.is_symlink():
            raise BytebackError(
                f"{quote(str(path))} is a link that leads nowhere",
                hint=f"put the key back to where it leads, or rm {path}",
            ) from None
        raise BytebackError(
            f"{quote(str(path))} has just been made by another program",
            hint="is another byteback-setup-client running? Run this again",
        ) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _with_public_file(key: PublicKey, public: Path, host: str) -> PublicKey:
    # Old private key files carry no comment; the public one may.
    comment = key.comment or f"byteback client key {host}"
    try:
        stored = parse_public_key(public.read_text("utf-8", "replace"))
        if stored.blob == key.blob:
            return stored
    except (BytebackError, OSError):
        pass
    key = PublicKey(key.kind, key.blob, comment)
    files.write_atomically(public, f"{key.line}\n".encode())
    return key
