"""Which failures mean that the store's disc has no room."""

from __future__ import annotations

import errno
import os

import pytest

from byteback.errors import BusyError, BytebackError, ToolError
from byteback.server.store import shortage
from byteback.wire.failures import Reason


@pytest.mark.parametrize(
    ("error", "is_meant"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), True),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
        (OSError(errno.EIO, os.strerror(errno.EIO)), False),
        (ToolError("btrfs failed", details=["ERROR: No space left on device"]), True),
        (ToolError("btrfs failed", details=["ERROR: No such file"]), False),
        (BusyError("cannot record", reason=Reason.DISC_FULL), True),
        (BusyError("busy", reason=Reason.AT_ONCE), False),
        (BytebackError("No space left on device, says a name"), False),
        (ValueError("No space left on device"), False),
    ],
)
def test_what_means_a_full_disc(error: Exception, is_meant: bool) -> None:
    assert shortage.is_meant_by(error) == is_meant


def test_a_file_that_could_not_be_written() -> None:
    full = shortage.failure("cannot record", OSError(errno.ENOSPC, "full"))
    assert (full.reason, full.retryable) == (Reason.DISC_FULL, True)
    broken = shortage.failure("cannot record", OSError(errno.EIO, "broken"))
    assert broken.reason is None
    assert "full" not in (broken.hint or "")
