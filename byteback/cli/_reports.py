"""The address for reports of bugs, from project.urls in pyproject.toml."""

from __future__ import annotations

import contextlib
import platform
import re
from pathlib import Path

import byteback

LABEL = "Issues"
_CHECKOUT = Path(byteback.__file__).resolve().parents[1]
# Domains for examples (RFC 2606): the address was not filled in yet.
_PLACE_HOLDER = re.compile(r"[/.@]example(?:\.(?:org|com|net))?(?:[:/]|$)")


def request() -> str:
    """One sentence that asks for a report of what is printed below it."""
    address = report_address()
    where = f" at {address}" if address else " to the maintainers of byteback"
    return (
        f"this is a bug in byteback {byteback.__version__} (Python "
        f"{platform.python_version()}). Please report it{where}, with the command as "
        "you typed it and these lines:"
    )


def report_address() -> str | None:
    """The address for reports; None while pyproject.toml has a place-holder there."""
    url = _from_checkout() or _from_metadata()
    return None if url is None or _PLACE_HOLDER.search(url) else url


def _from_checkout() -> str | None:
    import tomllib

    with contextlib.suppress(OSError, ValueError, KeyError):
        text = (_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
        urls = tomllib.loads(text)["project"]["urls"]
        return str(urls[LABEL])
    return None


def _from_metadata() -> str | None:
    from importlib import metadata

    try:
        urls = metadata.metadata("byteback").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return None
    found = dict(line.split(", ", 1) for line in urls if ", " in line)
    return found.get(LABEL)
