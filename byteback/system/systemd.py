"""Asks systemd to take up, start and stop timers and mounts."""

from __future__ import annotations

from pathlib import Path

from byteback.system import process

_ANY_STATUS = range(256)


def reload() -> None:
    """Have systemd read its unit files again. Raises ToolError."""
    process.run(["systemctl", "daemon-reload"])


def enable(unit: str) -> None:
    """Have a unit started at boot, by the file that counts now. Raises ToolError."""
    # A link that an earlier file was enabled by would lead nowhere, or to that one.
    process.run(["systemctl", "--quiet", "reenable", unit])


def is_enabled(unit: str) -> bool:
    """True if a unit is started at boot."""
    return _answer("is-enabled", unit)


def is_active(unit: str) -> bool:
    """True if a unit runs."""
    return _answer("is-active", unit)


def stop(unit: str) -> None:
    """Stop a unit, if it is there and runs. Raises ToolError."""
    if is_active(unit):
        process.run(["systemctl", "stop", unit])


def start_timer_afresh(timer: str) -> None:
    """Start a timer so that it forgets what it missed before. Raises ToolError.

    One that is Persistent= would else run at once for a time of today that was set
    just now, after that time.
    """
    stop(timer)
    process.run(
        ["systemctl", "clean", "--what=state", timer],
        tolerate=_ANY_STATUS,  # which fails if there is nothing to forget
    )
    process.run(["systemctl", "start", timer])


def start_mount(point: Path, *, timeout_s: float) -> None:
    """Mount what /etc/fstab names for ``point``, for all of the machine.

    A caller with a mount namespace of its own sees the new mount, too. Raises
    ToolError.
    """
    named = process.run(["systemd-escape", "--path", "--suffix=mount", "--", point])
    process.run(["systemctl", "start", named.text.strip()], timeout_s=timeout_s)


def _answer(question: str, unit: str) -> bool:
    asked = process.run(["systemctl", "--quiet", question, unit], tolerate=_ANY_STATUS)
    return asked.status == 0
