"""An event loop whose time jumps to the next timer when nothing is left to do.

Waits of seconds take no time, and the order of events depends on the test alone. Only for code
that uses no threads and no network (`InlineExecutor` instead of a thread pool).
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Time also passes while work is done; else who waits for a rounding error would wait for ever.
NANOSECOND = 1e-9


class _JumpingSelector(selectors.SelectSelector):
    """Selects without waiting; what would have been waited is added to `now`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("deadlock: nothing is left to do and no timer is set")
        events = super().select(0)
        self.now += NANOSECOND if events else max(timeout, NANOSECOND)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time` is virtual."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
