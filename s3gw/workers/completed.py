"""Records that answer retries, of CompleteMultipartUpload and of RenameObject, go when their day is
over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import CompletedRecord, RenamedRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim, commit

PAGE_RECORDS = 1000
RECORDS_PER_COMMIT = 60  # each may have a fence
INTERVAL_SECONDS = 3600.0
KINDS: tuple[tuple[bytes, type[CompletedRecord | RenamedRecord]], ...] = (
    (keys.COMPLETED, CompletedRecord),
    (keys.RENAMED, RenamedRecord),
)


@dataclass(slots=True)
class ExpiryReport:
    """Records looked at and removed."""

    seen: int = 0
    removed: int = 0


class CompletedExpiry:
    """The worker. One unit is one page of records."""

    name = "completed"
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
        self._kind = 0
        self._position = KINDS[0][0]

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        return await self._page(claim, ExpiryReport())

    async def run_once(self, claim: Claim = UNCLAIMED) -> ExpiryReport:
        """Look at all records."""
        report = ExpiryReport()
        self._kind, self._position = 0, KINDS[0][0]
        while await self._page(claim, report):
            pass
        return report

    async def _page(self, claim: Claim, report: ExpiryReport) -> bool:
        prefix, kind = KINDS[self._kind]
        page = await self._storage.store.scan_listed(
            self._position, keys.after_prefix(prefix), limit=PAGE_RECORDS
        )
        if page.more:
            self._position = page.items[-1].key + b"\x00"
        else:
            self._kind = (self._kind + 1) % len(KINDS)
            self._position = KINDS[self._kind][0]
        now_ms = self._storage.clock_ms()
        report.seen += len(page.items)
        expired = [item for item in page.items if decode(kind, item.value).expires_ms <= now_ms]
        for first in range(0, len(expired), RECORDS_PER_COMMIT):
            tx, batch = Transaction(), expired[first : first + RECORDS_PER_COMMIT]
            for item in batch:
                tx.expect(item.key, item.revision)
                self._storage.store.delete_listed(tx, item.key)
            try:
                await commit(self._storage.store, claim, tx)
            except Conflict:
                continue  # another run was faster; the next one looks again
            report.removed += len(batch)
        return page.more or self._kind > 0
