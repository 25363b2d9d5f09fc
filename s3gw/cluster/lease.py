"""A lease that this process keeps alive, and what it says of the process.

Safety never rests on it: it tells others that the process lives (who takes over a completion, a
background job), and gives it slots of the usage counters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from s3gw import limits
from s3gw.kv.interface import KV, At, Conflict, EngineError, LeaseLost, Put
from s3gw.metadata import keys
from s3gw.metadata.counters import SLOTS_PER_PROCESS

log = logging.getLogger(__name__)

BLOCKS = limits.USAGE_SLOTS_MAX // SLOTS_PER_PROCESS


def boot_clock() -> float:
    """Seconds that also count while the machine is suspended, as leases do at the engine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ProcessLease:
    """The lease of this process. `lost` counts how often it had to be taken anew; `record` is what
    the process says of itself while it lives."""

    def __init__(
        self,
        kv: KV,
        *,
        ttl_seconds: int,
        heartbeat_seconds: float,
        record: bytes = b"",
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._kv = kv
        self._ttl_seconds = ttl_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._record = record
        self._clock = clock
        self.id = 0
        self.block = 0
        self.deadline = 0.0
        self.lost = 0

    def current(self) -> int:
        return self.id

    @property
    def held(self) -> bool:
        """Whether the engine still counts on this process, as far as it can know."""
        return self.id != 0 and self._clock() < self.deadline

    async def take(self) -> None:
        """A new lease, and a block of counter slots under it. Raises EngineError."""
        sent = self._clock()
        lease = await self._kv.grant_lease(self._ttl_seconds)
        # Not this process's before its key is there: one that was never written would say for
        # ever that the process is dead. A lease given up here ends by itself.
        await self._kv.commit([], [Put(keys.process(lease), self._record, lease)])
        self.id = lease
        self.deadline = sent + self._ttl_seconds
        self.block = await self._claim_block()

    async def _claim_block(self) -> int:
        """A block that no living process has, or one to share when all are taken."""
        for block in range(BLOCKS):
            key = keys.slots_block(block)
            try:
                await self._kv.commit([At(key, 0)], [Put(key, b"", self.id)])
            except Conflict:
                continue
            return block
        return self.id % BLOCKS

    async def keep(self) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            await self.renew()

    async def renew(self) -> None:
        """Renew once; take a new lease when the old one is gone."""
        sent = self._clock()
        try:
            await self._kv.renew_lease(self.id)
            self.deadline = sent + self._ttl_seconds
        except LeaseLost:
            self.lost += 1
            log.warning("the lease of this process ended, taking a new one")
            await self._retake()
        except EngineError as error:
            log.warning("the lease could not be renewed: %s", error)

    async def _retake(self) -> None:
        try:
            await self.take()
        except EngineError as error:
            log.warning("no new lease: %s", error)

    async def release(self) -> None:
        """Give the lease back, so that others need not wait for its end."""
        if self.id:
            try:
                await self._kv.revoke_lease(self.id)
            except EngineError as error:
                log.info("the lease could not be revoked: %s", error)
