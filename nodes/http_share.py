"""How the processes that share a listening socket share its connections evenly.

Whoever is idle accepts the next connection, so that of sixteen that come at once one process may
get eleven: they wait for each other there, and the memory of their buffers is all in one place. So
each process tells the others how many it has, in a memory file, and one that has more than another
leaves a new connection alone for a moment. If nobody has taken it by then, the others are busy: it
takes that one, and those that come soon after.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from typing import Final

# An idle process needs less to accept a connection.
LEAVE_SECONDS: Final = 0.005
BUSY_SECONDS: Final = 0.2
PROCESSES_MAX: Final = 1024
# What the descriptor is called among those that a process inherits.
SHARE: Final = "connections"
_COUNT: Final = struct.Struct("=I")
_ABSENT: Final = 0xFFFFFFFF


def make_share(processes: int) -> int:
    """The memory file for so many processes, none of which serves yet; its descriptor, to be
    inherited."""
    fd = os.memfd_create("connections")
    os.pwrite(fd, _COUNT.pack(_ABSENT) * processes, 0)
    return fd


class Share:
    """The number of connections of one process, number `index`, and those of the others."""

    def __init__(self, fd: int, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._index = index
        self._clock = clock
        self._left: list[int] | None = None
        self._left_until = self._alone_until = 0.0

    def tell(self, count: int | None) -> None:
        """Say how many connections this process has; None when it serves no more."""
        told = _ABSENT if count is None else count
        os.pwrite(self._fd, _COUNT.pack(told), self._index * _COUNT.size)

    def leaves(self, count: int) -> bool:
        """Whether a connection that waits now is left to another process, by one that has `count`;
        to be asked again at once."""
        others = self._others()
        now = self._clock()
        if count <= min(others, default=_ABSENT) or now < self._alone_until:
            return False
        if others != self._left:  # the one that was left before has been taken
            self._left = others
            self._left_until = now + LEAVE_SECONDS
        if now < self._left_until:
            return True
        self._left = None
        self._alone_until = now + BUSY_SECONDS
        return False

    def _others(self) -> list[int]:
        told = os.pread(self._fd, PROCESSES_MAX * _COUNT.size, 0)
        counts = [count for (count,) in _COUNT.iter_unpack(told)]
        del counts[self._index]
        return counts
