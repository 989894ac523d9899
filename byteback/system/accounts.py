"""The user database: getent's answers, and shadow's programs to change it."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from byteback.system import process

SHELL = "/bin/sh"
NO_PASSWORD = "*"  # noqa: S105 # matches no password, and is not sshd's "!" either


def find_user(name: str) -> pwd.struct_passwd | None:
    """The user of that name, from whichever database the machine uses."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def has_uid(uid: int) -> bool:
    """True if a user of that number exists."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def has_group(name: str) -> bool:
    """True if a group of that name exists."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def group_names(user: pwd.struct_passwd) -> set[str]:
    """The groups of a user, the primary one included."""
    names = {entry.gr_name for entry in grp.getgrall() if user.pw_name in entry.gr_mem}
    try:
        return names | {grp.getgrgid(user.pw_gid).gr_name}
    except KeyError:
        return names


def add_system_user(name: str, home: Path, uid: int | None = None) -> None:
    """Make a system user with a group of its own, without making its home.

    No password matches, but logins by key work: sshd takes an account whose
    password field starts with ``!``, useradd's default, for locked where PAM is off.
    """
    group = ["--gid", name] if has_group(name) else ["--user-group"]
    number = ["--uid", str(uid)] if uid is not None else []
    settings = [
        f"--home-dir={home}",
        f"--shell={SHELL}",
        f"--password={NO_PASSWORD}",
        "--comment=byteback backup store",
    ]
    process.run(
        ["useradd", "--system", *number, *group, *settings, "--no-create-home", name]
    )


def set_shell(name: str, shell: str = SHELL) -> None:
    """Change a user's login shell."""
    process.run(["usermod", "--shell", shell, name])


def set_home(name: str, home: Path) -> None:
    """Change where a user's home is; moves nothing."""
    process.run(["usermod", "--home", home, name])


def set_no_password(name: str) -> None:
    """Let no password match, without locking the account against keys."""
    process.run(["usermod", "--password", NO_PASSWORD, name])


def password_field(name: str) -> str:
    """The password field of shadow(5), '' if there is none. Only root can read it."""
    shown = process.run(["getent", "shadow", name], tolerate=(0, 1, 2))
    fields = shown.text.strip().split(":")
    return fields[1] if len(fields) > 1 else ""
