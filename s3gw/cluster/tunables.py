"""Settings that an operator changes while the store runs, and the throttle that obeys them.

They are one record of the metadata engine, so that all processes have the same; each reads it every
few seconds. A throttle reads the rate anew for every piece of work: a change takes effect at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from s3gw.kv.interface import KV, At, Conflict, EngineError, Put
from s3gw.metadata import keys
from s3gw.metadata.records import Tunables, decode, encode

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
BURST_SECONDS = 1.0
# What a rebuild is charged for a shard at least: a small one costs an I/O of each drive involved
# and its share of a commit, not its bytes: on a disk that seeks, about as long as 1 MiB takes. At
# 64 MiB/s that is 64 small shards a second for each process.
REBUILT_SHARD_BYTES_MIN = 1024 * 1024
# What may be set: least and most.
BOUNDS: dict[str, tuple[float, float]] = {
    "rebuild_after_seconds": (1, 30 * 24 * 3600),
    "hold_down_seconds": (0, 30 * 24 * 3600),
    "rebuild_bytes_per_second": (0, 2**40),
    "rebuild_groups_at_once": (1, 64),
    "scrub_bytes_per_second": (0, 2**40),
    "scrub_interval_seconds": (60, 365 * 24 * 3600),
}


class BadTunable(ValueError):
    """There is no such setting, or the value is out of its bounds."""


class LiveTunables:
    """The settings as this process last read them."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self.current = Tunables()

    async def refresh(self) -> None:
        """Read them. Raises EngineError."""
        (item,) = (await self._kv.get_many([keys.TUNABLES])).items
        self.current = decode(Tunables, item.value) if item is not None else Tunables()

    async def follow(self) -> None:
        """Read them again and again, for ever."""
        while True:
            try:
                await self.refresh()
            except EngineError as error:
                log.info("the settings could not be read: %s", error)
            await asyncio.sleep(REFRESH_SECONDS)

    async def change(self, values: dict[str, Any]) -> Tunables:
        """Set some of them for all processes. Raises BadTunable, EngineError."""
        for name, value in values.items():
            least, most = BOUNDS.get(name, (1.0, 0.0))
            kind = type(getattr(Tunables(), name, 0.0))
            fits = type(value) is int or (type(value) is float and kind is float)
            if not fits or not least <= value <= most:
                raise BadTunable(
                    f"{name} = {value}: there is no such setting"
                    if name not in BOUNDS
                    else f"{name} must be a number between {least:g} and {most:g}, "
                    f"{'whole' if kind is int else 'whole or not'}"
                )
        while True:
            (item,) = (await self._kv.get_many([keys.TUNABLES])).items
            before = decode(Tunables, item.value) if item is not None else Tunables()
            after = msgspec.structs.replace(before, **values)
            guard = At(keys.TUNABLES, item.revision if item is not None else 0)
            try:
                await self._kv.commit([guard], [Put(keys.TUNABLES, encode(after))])
            except Conflict:
                continue
            self.current = after
            return after


class Throttle:
    """Lets through as many bytes per second as `rate` says (0: any number), after a burst of at
    most a second's worth. What is moved counts as `least` bytes at least, in however many pieces.
    Shared by all tasks of one kind of work."""

    def __init__(
        self,
        rate: Callable[[], float],
        *,
        least: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._least = least
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    async def take(self, count: int, *, before: int = 0) -> None:
        """Wait until `count` bytes may be moved, of a whole of which `before` were taken already. A
        caller pays for what the one before it took, so that a piece larger than the burst is
        possible."""
        while True:
            rate = self._rate()
            now = self._clock()
            if rate <= 0 or self._free_at <= now + BURST_SECONDS:
                break
            # In short steps: the rate may be raised meanwhile.
            await self._sleep(min(1.0, self._free_at - now - BURST_SECONDS))
        if rate > 0:
            paid = max(before, self._least) if before else 0
            count = max(before + count, self._least) - paid
            self._free_at = max(self._free_at, now) + count / rate


def rebuild_throttle(
    tunables: LiveTunables,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Throttle:
    """The throttle of all that moves, rebuilds and rewrites blobs in one process."""
    return Throttle(
        lambda: tunables.current.rebuild_bytes_per_second,
        least=REBUILT_SHARD_BYTES_MIN,
        clock=clock,
        sleep=sleep,
    )
