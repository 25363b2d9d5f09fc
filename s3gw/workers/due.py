"""Reading a queue in order of time: `due/`, of what lifecycle rules want to be looked at, or
`purge/`, of what leaves the trash.

Where a range of keys costs what is in it, so does every look at the queue: it is read in slices of
time, each of them twice as long as the one before as long as they are empty, and as short as can be
where much is due. A round begins with what was left of the time that earlier rounds have passed,
which is next to nothing.

Whether an entry is due is said by a clock that does not jump ahead: should the wall clock be set
forward, it is believed only when it has stayed so for an hour of the monotonic clock. A clock that
was wrong when the process began cannot be told from one that is right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from s3gw.kv.interface import KV, Item
from s3gw.metadata import keys

log = logging.getLogger(__name__)

BATCH_ENTRIES = 100
SLICE_MS = 1000
SLICE_MS_MAX = 24 * 3600 * 1000
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

    def now_ms(self) -> int:
        """The time now. Never later than the wall clock's."""
        wall_ms, now = self._wall_ms(), self._monotonic()
        expected_ms = self._last_ms + int((now - self._last) * 1000)
        if wall_ms > expected_ms + JUMP_MS:
            if self._jumped is None:
                self._jumped = now
                log.warning(
                    "the clock was set ahead by %d s: what is due by it waits for an hour",
                    (wall_ms - expected_ms) // 1000,
                )
            if now - self._jumped < HOLD_SECONDS:
                return expected_ms
        self._jumped = None
        self._last_ms, self._last = wall_ms, now
        return wall_ms


class DueQueue:
    """One reader of the queue; it keeps its place in memory."""

    def __init__(self, kv: KV, *, queue: bytes = keys.DUE, batch: int = BATCH_ENTRIES) -> None:
        self._kv = kv
        self._queue = queue
        self._batch = batch
        self._passed_ms = 0
        self._end_ms = -1
        self._position = queue
        self._slice_end_ms = 0
        self._slice_ms = SLICE_MS

    def restart(self) -> None:
        """Begin a new round with the next read."""
        self._end_ms = -1

    async def next(self, now_ms: int) -> list[Item]:
        """The next entries that are due, in order; none at the end of a round."""
        if self._end_ms < 0:
            self._begin(now_ms)
        end = keys.due_until(self._queue, self._end_ms)
        while self._position < end:
            slice_end = min(end, keys.due_until(self._queue, self._slice_end_ms))
            if self._position < slice_end:
                page = await self._kv.scan(self._position, slice_end, limit=self._batch)
                if page.items:
                    self._slice_ms = SLICE_MS
                    self._position = slice_end
                    if page.more:
                        last = page.items[-1].key
                        self._position = last + b"\x00"
                        near_ms = keys.due_time(self._queue, last) + SLICE_MS
                        self._slice_end_ms = min(self._slice_end_ms, near_ms)
                    return page.items
                self._position = slice_end
            elif not self._slice_end_ms:
                first = await self._kv.scan(self._position, end, limit=1, keys_only=True)
                if not first.items:
                    break
                self._slice_end_ms = keys.due_time(self._queue, first.items[0].key)
            else:
                self._slice_end_ms += self._slice_ms
                self._slice_ms = min(2 * self._slice_ms, SLICE_MS_MAX)
        self._passed_ms = self._end_ms
        self._end_ms = -1
        return []

    def _begin(self, now_ms: int) -> None:
        """A round: what was left, then what has become due since; of a first one the beginning is
        looked up."""
        self._end_ms = now_ms
        self._position = self._queue
        self._slice_end_ms = min(self._passed_ms, now_ms)
        self._slice_ms = SLICE_MS
