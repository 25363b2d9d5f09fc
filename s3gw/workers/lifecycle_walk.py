"""Queues what is in a bucket whose lifecycle rules were changed.

PutBucketLifecycleConfiguration writes a job in the commit that changes the rules. The walk goes
over the bucket's visible versions, noncurrent versions and uploads, and puts entries into `due/`,
page by page, each in one commit with its place. Whatever is written meanwhile queues itself, since
its commit is guarded by the bucket with its new rules: so nothing escapes by moving. Another change
of the rules writes another job in place of this one, and the walk begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import msgspec

from s3gw import limits
from s3gw.kv.interface import KV, Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import LifecycleJob
from s3gw.metadata.records import (
    BucketRecord,
    ObjectRecord,
    RecordFormatError,
    UploadRecord,
    decode,
)
from s3gw.metadata.store import Transaction
from s3gw.objects import lifecycle
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim, PeriodicWorker, Timing, commit

log = logging.getLogger(__name__)

OBJECTS, VERSIONS, UPLOADS = "objects", "versions", "uploads"
STAGES = (OBJECTS, VERSIONS, UPLOADS)
RECORDS_PER_UNIT = 100


@dataclass(slots=True)
class WalkReport:
    """Records seen, and entries made for them."""

    seen: int = 0
    queued: int = 0


async def jobs(kv: KV) -> list[tuple[str, Item]]:
    """The walks that are under way, by bucket. Raises EngineError."""
    found: list[tuple[str, Item]] = []
    start, end = keys.LIFECYCLES, keys.after_prefix(keys.LIFECYCLES)
    while True:
        page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
        found += [(item.key[len(keys.LIFECYCLES) :].decode(), item) for item in page.items]
        if not page.more:
            return found
        start = page.items[-1].key + b"\x00"


def _is_readable(bucket: str, item: Item) -> bool:
    try:
        decode(LifecycleJob, item.value)
    except RecordFormatError:  # it must not hold up other buckets
        log.exception("the lifecycle rules of bucket %s are not walked", bucket)
        return False
    return True


class LifecycleWalk(PeriodicWorker):
    """The worker. One unit is one page of one job."""

    name = "lifecycle-walk"
    interval_seconds = 10.0

    def __init__(
        self,
        storage: Storage,
        *,
        records_per_unit: int = RECORDS_PER_UNIT,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(storage, **timing)
        self._records_per_unit = records_per_unit
        self._turn = ""
        self.report = WalkReport()

    async def run_once(self, claim: Claim = UNCLAIMED) -> WalkReport:
        """All jobs to their end."""
        self.report = WalkReport()
        while await self.work(claim):
            pass
        return self.report

    async def work(self, claim: Claim) -> bool:
        """A page of the next job; False when there is none."""
        found = [job for job in await jobs(self._storage.store.kv) if _is_readable(*job)]
        if not found:
            return False
        bucket, item = next((job for job in found if job[0] > self._turn), found[0])
        self._turn = bucket
        try:
            await self._unit(claim, bucket, item)
        except Conflict:
            return True  # the rules were changed again: another job is there
        return True

    async def _unit(self, claim: Claim, name: str, item: Item) -> None:
        job = decode(LifecycleJob, item.value)
        found = await self._storage.store.get(BucketRecord, keys.bucket(name))
        bucket = found.record
        tx = Transaction()
        tx.expect(item.key, item.revision)
        gone = bucket is None or bucket.bucket_id != job.bucket_id
        if bucket is None or gone or lifecycle.configuration_of(bucket) is None:
            tx.delete(item.key)
            await commit(self._storage.store, claim, tx)
            return
        stage = job.stage or OBJECTS
        base = {
            OBJECTS: keys.objects(name),
            VERSIONS: keys.versions(name),
            UPLOADS: keys.uploads(name),
        }[stage]
        page = await self._storage.store.scan_listed(
            job.cursor + b"\x00" if job.cursor else base,
            keys.after_prefix(base),
            limit=self._records_per_unit,
        )
        queued = self._queue(tx, name, bucket, stage, page.items)
        job = msgspec.structs.replace(
            job,
            stage=stage,
            cursor=page.items[-1].key if page.items else job.cursor,
            seen=job.seen + len(page.items),
            queued=job.queued + queued,
        )
        if page.more:
            tx.put(item.key, job)
        elif stage != STAGES[-1]:
            following = STAGES[STAGES.index(stage) + 1]
            tx.put(item.key, msgspec.structs.replace(job, stage=following, cursor=b""))
        else:
            tx.delete(item.key)
        await commit(self._storage.store, claim, tx)
        self.report.seen += len(page.items)
        self.report.queued += queued

    def _queue(
        self, tx: Transaction, name: str, bucket: BucketRecord, stage: str, items: Sequence[Item]
    ) -> int:
        """Add entries for these records; how many. One that cannot be read is passed over."""
        queued = 0
        for item in items:
            try:
                queued += self._queue_one(tx, name, bucket, stage, item)
            except Exception:
                log.exception("no lifecycle rule is applied to %r", item.key)
        return queued

    def _queue_one(
        self, tx: Transaction, name: str, bucket: BucketRecord, stage: str, item: Item
    ) -> int:
        storage = self._storage
        if stage == UPLOADS:
            _, key, upload_id = keys.split_upload(item.key)
            upload = decode(UploadRecord, item.value)
            return lifecycle.schedule_upload(storage, tx, name, bucket, key, upload_id, upload)
        record = decode(ObjectRecord, item.value)
        if stage == VERSIONS:
            key, _ = keys.unended(item.key[len(keys.versions(name)) :])
            if not record.marker and not record.noncurrent_ms:
                # Its record does not say since when: whoever looks finds that out.
                record = msgspec.structs.replace(record, noncurrent_ms=record.modified_ms)
        else:
            key = item.key[len(keys.objects(name)) :].decode()
        return lifecycle.schedule(storage, tx, name, bucket, key, record)
