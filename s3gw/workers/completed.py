"""Records that answer retries, of CompleteMultipartUpload and of RenameObject, go when their day is
over."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Unpack

from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.records import CompletedRecord, RenamedRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim, PeriodicWorker, Timing, commit

log = logging.getLogger(__name__)

PAGE_RECORDS = 1000
RECORDS_PER_COMMIT = 60  # each may have a fence
KINDS: tuple[tuple[bytes, type[CompletedRecord | RenamedRecord]], ...] = (
    (keys.COMPLETED, CompletedRecord),
    (keys.RENAMED, RenamedRecord),
)


@dataclass(slots=True)
class ExpiryReport:
    """Records looked at and removed."""

    seen: int = 0
    removed: int = 0


class CompletedExpiry(PeriodicWorker):
    """The worker. One unit is one page of records."""

    name = "completed"
    interval_seconds = 3600.0

    def __init__(self, storage: Storage, **timing: Unpack[Timing]) -> None:
        super().__init__(storage, **timing)
        self._kind = 0
        self._position = KINDS[0][0]

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
        report.seen += len(page.items)
        expired = [item for item in page.items if self._is_over(kind, item)]
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

    def _is_over(self, kind: type[CompletedRecord | RenamedRecord], item: Item) -> bool:
        """Whether a record's day is over; one that cannot be read stays."""
        try:
            return decode(kind, item.value).expires_ms <= self._storage.clock_ms()
        except Exception:
            log.exception("the record %r cannot be read", item.key)
            return False
