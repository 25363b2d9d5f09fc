"""The engine's own housekeeping: compaction of its history, and the watch over its space.

etcd keeps every revision until it is told otherwise. One process, under the worker's lock, samples
the revision and drops the history older than the window, except what a worker has pinned because
it reads at an older revision: that is kept for PIN_WINDOWS_MAX windows. Every process watches the
space: at 80 % of the quota health is red, at 95 % what makes the metadata grow is refused, while
deletes go on, long before etcd itself would stop taking writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3gw.kv.interface import KV, Space
from s3gw.metadata import keys
from s3gw.workers.contract import UNCLAIMED, Claim, ClaimLost

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 60.0
SPACE_SECONDS = 10.0
RED_SHARE = 0.80
REFUSE_SHARE = 0.95
PIN_WINDOWS_MAX = 6
# Workers that may pin: one key each.
PINS_READ_MAX = 100


@dataclass(slots=True)
class CompactionReport:
    """The revision that history now starts at, 0 when it was not old enough to be cut."""

    revision: int = 0


class Compaction:
    """The worker. Keeps `history_window_seconds` of history, counted from its own samples: after a
    change of the process that does it, history is kept for a window longer, never shorter."""

    name = "compaction"
    exclusive = True

    def __init__(
        self,
        kv: KV,
        history_window_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._kv = kv
        self._window = history_window_seconds
        self._clock = clock
        self._sleep = sleep
        self._samples: deque[tuple[float, int]] = deque()
        self._claim = UNCLAIMED

    async def wait(self) -> None:
        await self._sleep(SAMPLE_SECONDS)

    async def work(self, claim: Claim) -> bool:
        if claim != self._claim:
            self._samples.clear()
            self._claim = claim
        await self.run_once(claim)
        return False

    async def run_once(self, claim: Claim = UNCLAIMED) -> CompactionReport:
        """Sample the revision, and cut what the samples show to be older than the window."""
        reading = await self._kv.get_many([claim.key or keys.STORE])
        if claim.key:
            (held,) = reading.items
            if held is None or held.revision != claim.revision:
                raise ClaimLost(claim.key.decode())
        pins = await self._kv.scan(keys.PINS, keys.after_prefix(keys.PINS), limit=PINS_READ_MAX)
        pinned = min((pin.revision for pin in pins.items), default=reading.revision)
        now = self._clock()
        self._samples.append((now, reading.revision))
        revision = 0
        while self._samples and self._samples[0][0] <= now - self._window:
            at, sampled = self._samples[0]
            if sampled > pinned and at > now - self._window * PIN_WINDOWS_MAX:
                break
            self._samples.popleft()
            revision = sampled
        if revision:
            await self._kv.compact(revision)
        return CompactionReport(revision)


class SpaceState:
    """How full the engine is, as this process knows it. Asked on every write: costs nothing."""

    def __init__(self) -> None:
        self.space = Space(0, 0)

    @property
    def share(self) -> float:
        """Used part of the quota; 0 where only the disk limits the engine."""
        return self.space.used_bytes / self.space.quota_bytes if self.space.quota_bytes else 0.0

    def red(self) -> bool:
        """Whether an operator must act."""
        return self.share >= RED_SHARE

    def growth_refused(self) -> bool:
        """Whether writes that make the metadata grow are to be refused; deletes are not."""
        return self.share >= REFUSE_SHARE


class SpaceWatch:
    """Keeps a SpaceState in step, in every process."""

    name = "space"
    exclusive = False

    def __init__(
        self,
        kv: KV,
        state: SpaceState,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._kv = kv
        self._state = state
        self._sleep = sleep

    async def wait(self) -> None:
        await self._sleep(SPACE_SECONDS)

    async def work(self, claim: Claim) -> bool:
        was_red = self._state.red()
        self._state.space = await self._kv.space()
        if self._state.red() and not was_red:
            log.error("the metadata engine is %.0f %% full", self._state.share * 100)
        return False
