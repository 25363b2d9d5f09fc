"""Multipart uploads that nobody ends.

An upload that was begun long ago is aborted, as a client would: its parts go to the collector. One
that was taken for completion by a process that is gone is given back (`completing` → `open`), so
that parts are accepted again. Both are compare-and-swap; whoever completes the upload meanwhile
wins. A clock that is set ahead makes no upload old (`s3gw.objects.steady_clock`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Unpack

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
from s3gw.objects.steady_clock import SteadyClock
from s3gw.objects.storage import Storage
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    under,
)

log = logging.getLogger(__name__)

PAGE_RECORDS = 1000


@dataclass(slots=True)
class StaleReport:
    """Uploads looked at, aborted, given back; uploads left because others changed them."""

    seen: int = 0
    aborted: int = 0
    given_back: int = 0
    lost: int = 0


class StaleUploads(PeriodicWorker):
    """The worker. One unit is one page of uploads. `after_seconds` 0: none is ever aborted."""

    name = "uploads"
    interval_seconds = 3600.0

    def __init__(self, storage: Storage, after_seconds: float, **timing: Unpack[Timing]) -> None:
        super().__init__(storage, **timing)
        self._after_seconds = after_seconds
        self._clock = SteadyClock(storage.clock_ms, storage.monotonic)
        self._position = keys.UPLOADS

    async def work(self, claim: Claim) -> bool:
        return await self._page(claim, StaleReport())

    async def run_once(self, claim: Claim = UNCLAIMED) -> StaleReport:
        """Look at all uploads."""
        report = StaleReport()
        self._position = keys.UPLOADS
        while await self._page(claim, report):
            pass
        return report

    async def _page(self, claim: Claim, report: StaleReport) -> bool:
        page = await self._storage.store.scan_listed(
            self._position, keys.after_prefix(keys.UPLOADS), limit=PAGE_RECORDS
        )
        self._position = page.items[-1].key + b"\x00" if page.more else keys.UPLOADS
        for item in page.items:
            report.seen += 1
            try:
                record = decode(UploadRecord, item.value)
                if record.state != OPEN or self._is_stale(record):
                    await self._look_at(claim, item.key, report)
            except SHARED_TROUBLE:
                raise
            except Exception:
                log.exception("the upload %r is left", item.key)
                report.lost += 1
        return page.more

    def _is_stale(self, record: UploadRecord) -> bool:
        age_ms = self._clock.now_ms() - record.initiated_ms
        return self._after_seconds > 0 and age_ms >= self._after_seconds * 1000

    async def _look_at(self, claim: Claim, key: bytes, report: StaleReport) -> None:
        bucket, object_key, upload_id = keys.split_upload(key)
        storage = under(self._storage, claim)
        try:
            upload = await find_upload(storage, bucket, object_key, upload_id)
            if upload.record.state != OPEN and await owner_lives(storage, upload.record):
                return
            if self._is_stale(upload.record):
                await abort_upload(storage, upload)
                report.aborted += 1
                log.info("upload %s of %s/%s was stale", upload_id.hex(), bucket, object_key)
            elif upload.record.state != OPEN:
                await give_back(storage, upload)
                report.given_back += 1
        except (Conflict, OutcomeUnknown, errors.S3Error) as error:
            # Completed, aborted, or being changed by others; the next round sees what is left.
            log.info("upload %s of %s is left: %s", upload_id.hex(), bucket, error)
            report.lost += 1
