"""Tells an rsync that has come to a standstill from one that is slow.

rsync's --timeout does not: while its processes wait for each other they send empty
messages, of four bytes each, which count as traffic. So the kernel's own counters of
the processes decide: bytes read and written, disc blocks, and processor time.
"""

from __future__ import annotations

import time

from byteback.system import host, watching
from byteback.system.host import Work

# Whatever is at work takes more than this in all the time that it is given; two
# processes that do nothing but keep their connection alive take some 16 bytes for each
# half of a --timeout, and no processor time that could be counted.
LEAST_BYTES = 1000
LEAST_PROCESSOR_S = 0.1


class Watch:
    """Asked again and again, tells when an rsync has done nothing for too long.

    Only time in which it was asked counts: not while this program itself is stopped, or
    waits for its terminal, for then rsync may be waiting for it.
    """

    def __init__(self, pid: int, patience_s: float, *, tick_s: float) -> None:
        self._pid = pid
        self._patience_s = patience_s
        self._longest_s = 2 * tick_s
        self._idle_s = 0.0
        self._asked = time.monotonic()
        self._last = work_of(pid)
        self.has_stalled = False

    def is_stalled(self) -> bool:
        """True if nothing has happened for all the time that it may take."""
        now = time.monotonic()
        self._idle_s += min(now - self._asked, self._longest_s)
        self._asked = now
        work = work_of(self._pid)
        if self._last is None or work is None or _is_progress(self._last, work):
            self._last, self._idle_s = work, 0.0
        self.has_stalled = self._idle_s >= self._patience_s
        return self.has_stalled


def work_of(pid: int) -> Work | None:
    """The work of ``pid`` and its children that run the same program, as a sum.

    ssh is another one: its packets come whatever becomes of rsync. None if the kernel
    does not tell.
    """
    own = host.work_of(pid)
    if own is None:
        return None
    program, work = own
    found = [work]
    for child in watching.children(pid):
        its = host.work_of(child)
        if its is not None and its[0] == program:
            found.append(its[1])
    return Work(
        sum(one.transferred for one in found),
        sum(one.blocks for one in found),
        sum(one.processor_s for one in found),
    )


def _is_progress(before: Work, now: Work) -> bool:
    # Less than before: a child that had done more has ended.
    return (
        abs(now.transferred - before.transferred) >= LEAST_BYTES
        or now.blocks != before.blocks
        or abs(now.processor_s - before.processor_s) >= LEAST_PROCESSOR_S
    )
