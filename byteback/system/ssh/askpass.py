"""SSH_ASKPASS: the program that asks for a password where there is no terminal."""

from __future__ import annotations

import os

from byteback.errors import ToolError
from byteback.system import process

_DISPLAY_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR")


def is_wanted(*, on_terminal: bool) -> bool:
    """True if SSH_ASKPASS is to ask, by ssh(1)'s rules for SSH_ASKPASS_REQUIRE."""
    required = os.environ.get("SSH_ASKPASS_REQUIRE", "")
    if not os.environ.get("SSH_ASKPASS") or required == "never":
        return False
    return required in ("force", "prefer") or not on_terminal


def ask(prompt: str) -> str | None:
    """The program's answer to ``prompt``, or None if it was cancelled."""
    display = {x: os.environ[x] for x in _DISPLAY_VARIABLES if x in os.environ}
    try:
        answered = process.run([os.environ["SSH_ASKPASS"], prompt], extra_env=display)
    except (ToolError, OSError):
        return None
    return answered.text.rstrip("\r\n")
