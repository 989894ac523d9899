"""The error for a file of the server's own that could not be written."""

from __future__ import annotations

import errno

from byteback.errors import BusyError
from byteback.wire.failures import Reason


def failure(what: str, error: OSError) -> BusyError:
    """``what`` as an error for the client, which says so if the disc is full.

    Its hint is for a person at the server. full_disc.py has the client's.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BusyError(
            what,
            hint="'byteback-prune --prune' makes room where it may, and says where it "
            "may not",
            reason=Reason.DISC_FULL,
        )
    return BusyError(
        what, hint="its administrator finds the reason in its system log (dmesg)"
    )
