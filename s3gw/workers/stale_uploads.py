"""Multipart uploads that nobody ends.

An upload that was begun long ago is aborted, as a client would: its parts go to the collector. One
that was taken for completion by a process that is gone is given back (`completing` → `open`), so
that parts are accepted again. Both are compare-and-swap; whoever completes the upload meanwhile
wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3gw import errors
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import UploadRecord, decode
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.multipart import (
    OPEN,
    abort_upload,
    find_upload,
    give_back,
    owner_lives,
)
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim

log = logging.getLogger(__name__)

PAGE_RECORDS = 1000
INTERVAL_SECONDS = 3600.0


@dataclass(slots=True)
class StaleReport:
    """Uploads looked at, aborted, given back; uploads left because others changed them."""

    seen: int = 0
    aborted: int = 0
    given_back: int = 0
    lost: int = 0


class StaleUploads:
    """The worker. One unit is one page of uploads. `after_seconds` 0: none is ever aborted."""

    name = "uploads"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        after_seconds: float,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._after_seconds = after_seconds
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._position = keys.UPLOADS

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        return await self._page(StaleReport())

    async def run_once(self, claim: Claim = UNCLAIMED) -> StaleReport:
        """Look at all uploads."""
        report = StaleReport()
        self._position = keys.UPLOADS
        while await self._page(report):
            pass
        return report

    async def _page(self, report: StaleReport) -> bool:
        page = await self._storage.store.scan_listed(
            self._position, keys.after_prefix(keys.UPLOADS), limit=PAGE_RECORDS
        )
        self._position = page.items[-1].key + b"\x00" if page.more else keys.UPLOADS
        for item in page.items:
            report.seen += 1
            record = decode(UploadRecord, item.value)
            if record.state != OPEN or self._is_stale(record):
                await self._look_at(item.key, report)
        return page.more

    def _is_stale(self, record: UploadRecord) -> bool:
        age_ms = self._storage.clock_ms() - record.initiated_ms
        return self._after_seconds > 0 and age_ms >= self._after_seconds * 1000

    async def _look_at(self, key: bytes, report: StaleReport) -> None:
        bucket, object_key, upload_id = keys.split_upload(key)
        try:
            upload = await find_upload(self._storage, bucket, object_key, upload_id)
            if upload.record.state != OPEN and await owner_lives(self._storage, upload.record):
                return
            if self._is_stale(upload.record):
                await abort_upload(self._storage, upload)
                report.aborted += 1
                log.info("upload %s of %s/%s was stale", upload_id.hex(), bucket, object_key)
            elif upload.record.state != OPEN:
                await give_back(self._storage, upload)
                report.given_back += 1
        except (Conflict, OutcomeUnknown, errors.S3Error) as error:
            # Completed, aborted, or being changed by others; the next round sees what is left.
            log.info("upload %s of %s is left: %s", upload_id.hex(), bucket, error)
            report.lost += 1
