"""Host names: the one word that ties a key, a directory and a lock together."""

from __future__ import annotations

from byteback.errors import UsageError, quote

MAX_LENGTH = 253  # RFC 1035: the longest name that DNS can carry
ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def is_host_name(name: str) -> bool:
    """True if ``name`` may name a client: letters, digits, ``. - _``, at most 253.

    It becomes a directory name and a word in authorized_keys, so that a leading dot
    (``..``, ``.ssh``) or dash (an option) is out.
    """
    return (
        0 < len(name) <= MAX_LENGTH and name[0] not in ".-" and ALLOWED.issuperset(name)
    )


def is_same_host(one: str, other: str) -> bool:
    """True if two names are one client's: DNS has no regard to case, either."""
    return one.lower() == other.lower()


def check_host_name(name: str) -> str:
    """``name`` itself, or a UsageError that says what a host name may look like."""
    if not is_host_name(name):
        raise UsageError(
            f"{quote(name)} cannot be a client's name",
            hint="use letters, digits, '.', '-' and '_', not starting with '.' or '-', "
            f"at most {MAX_LENGTH} characters",
        )
    return name
