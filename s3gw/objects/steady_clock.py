"""A clock for what is undone by nobody: whether a grace period is over.

Should the wall clock be set forward, it is believed only when it has stayed so for an hour of the
monotonic clock. A clock that was wrong when the process began cannot be told from one that is
right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

JUMP_MS = 60_000
HOLD_SECONDS = 3600.0


class SteadyClock:
    """Unix milliseconds of a wall clock, without its jumps ahead."""

    def __init__(self, wall_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._last_ms = wall_ms()
        self._last = monotonic()
        self._jumped: float | None = None
        self._ahead_ms = 0

    def now_ms(self) -> int:
        """The time now. Never later than the wall clock's."""
        wall_ms, now = self._wall_ms(), self._monotonic()
        expected_ms = self._last_ms + int((now - self._last) * 1000)
        if wall_ms > expected_ms + JUMP_MS:
            ahead_ms = wall_ms - expected_ms
            if self._jumped is None or ahead_ms > self._ahead_ms + JUMP_MS:
                self._jumped, self._ahead_ms = now, ahead_ms
                log.warning(
                    "the clock was set ahead by %d s: what is due by it waits for an hour",
                    ahead_ms // 1000,
                )
            self._ahead_ms = min(self._ahead_ms, ahead_ms)
            if now - self._jumped < HOLD_SECONDS:
                return expected_ms
        self._jumped = None
        self._last_ms, self._last = wall_ms, now
        return wall_ms
