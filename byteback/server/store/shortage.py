"""Errors that mean that the store's disc has no room (D50)."""

from __future__ import annotations

import errno
import os

from byteback.errors import BusyError, BytebackError
from byteback.wire.failures import Reason

ERRNOS = (errno.ENOSPC, errno.EDQUOT)


def is_meant_by(error: Exception) -> bool:
    """True if ``error``, or what a program printed that failed, says so."""
    if isinstance(error, OSError):
        return error.errno in ERRNOS
    if not isinstance(error, BytebackError):
        return False
    is_said = any(os.strerror(errno.ENOSPC) in line for line in error.details)
    return error.reason == Reason.DISC_FULL or is_said


def failure(what: str, error: OSError) -> BusyError:
    """``what`` as an error for the client, which says so if the disc is full.

    Its hint is for a person at the server. full_disc.py has the client's.
    """
    if error.errno in ERRNOS:
        return BusyError(
            what,
            hint="'byteback-prune --prune' makes room where it may, and says where it "
            "may not",
            reason=Reason.DISC_FULL,
        )
    return BusyError(
        what, hint="its administrator finds the reason in its system log (dmesg)"
    )
