"""What has been in the trash for long enough leaves it: its references are dropped, and the
collector does the rest. The queue `purge/` is ordered by time, so that this costs in proportion to
what is due. A clock that is set ahead empties no trash (`s3gw.workers.due`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from s3gw.metadata import keys
from s3gw.objects import trash
from s3gw.objects.restore import Emptied, take_away
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim
from s3gw.workers.due import DueQueue, SteadyClock

INTERVAL_SECONDS = 60.0


class TrashPurge:
    """The worker. One unit is one batch of what is due."""

    name = "trash"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._queue = DueQueue(storage.store.kv, queue=keys.PURGES)
        self._clock = SteadyClock(storage.clock_ms, storage.monotonic)

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        return await self._batch(Emptied())

    async def run_once(self) -> Emptied:
        """Empty the trash of all that is due."""
        report = Emptied()
        self._queue.restart()
        while await self._batch(report):
            pass
        return report

    async def _batch(self, report: Emptied) -> bool:
        """The next due entries; False at the end of what is due."""
        items = await self._queue.next(self._clock.now_ms())
        if not items:
            return False
        record_keys = []
        for item in items:
            _, holder = keys.split_purge(item.key)
            record_keys.append(keys.trashed(*keys.split_object_holder(holder)))
        reading = await self._storage.store.kv.get_many(record_keys)
        # Both keys come and go together: one whose record is missing was restored just now.
        found = [trash.of_item(record) for record in reading.items if record is not None]
        await take_away(self._storage, found, report)
        return True
