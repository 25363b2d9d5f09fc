"""Runs the workers of one process: each exclusive one only while its lock is held."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from s3gw.metadata import keys
from s3gw.metadata.store import Store
from s3gw.workers.contract import (
    UNCLAIMED,
    Claim,
    ClaimLost,
    Sleep,
    Stoppable,
    Worker,
    give_back,
    take_lock,
)

log = logging.getLogger(__name__)

LOCK_RETRY_SECONDS = 5.0
BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 300.0
# With what comes after it, less than the supervisor gives a process to end.
STOP_SECONDS_MAX = 20.0


class Runner:
    """The workers of one process. `lease` is its lease, 0 while it has none."""

    def __init__(
        self,
        store: Store,
        lease: Callable[[], int],
        workers: Sequence[Worker],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._lease = lease
        self._workers = workers
        self._sleep = sleep
        self._identity = os.urandom(16)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all workers; returns at once."""
        self._tasks = [
            asyncio.create_task(self._tend(worker), name=f"worker {worker.name}")
            for worker in self._workers
        ]

    async def stop(self) -> None:
        """Let the units in progress end, give the locks back. Units that take longer than
        STOP_SECONDS_MAX are cancelled, which is safe as a crash is."""
        self._stopping.set()
        for worker in self._workers:
            if isinstance(worker, Stoppable):
                worker.stop()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS_MAX)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _tend(self, worker: Worker) -> None:
        claim: Claim | None = None if worker.exclusive else UNCLAIMED
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    claim = await self._hold(worker)
                    if claim is None:
                        await self._pause(LOCK_RETRY_SECONDS)
                        continue
                    more = await worker.work(claim)
                    failures = 0
                except ClaimLost:
                    log.info("worker %s: its lock was lost", worker.name)
                    claim = None
                except Exception:
                    log.exception("worker %s failed", worker.name)
                    await self._pause(min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2**failures))
                    failures = min(failures + 1, 16)
                else:
                    if not more:
                        await self._unless_stopping(_awaited(worker.wait()))
        finally:
            if claim is not None and claim.key:
                await give_back(self._store, claim)

    async def _hold(self, worker: Worker) -> Claim | None:
        """The worker's lock, held before or taken now; None while another has it."""
        if not worker.exclusive:
            return UNCLAIMED
        key = keys.lock(worker.name)
        return await take_lock(self._store, key, self._identity, self._lease())

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopping(_awaited(self._sleep(seconds)))

    async def _unless_stopping(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait, but not beyond the start of a stop."""
        waiter = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([waiter, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            waiter.cancel()
            await asyncio.gather(stop, waiter, return_exceptions=True)


async def _awaited(work: Awaitable[object]) -> None:
    await work
