"""Wrapping all data keys anew after a key was rotated: no data is touched.

The job is one record (`kms/rewrap`). It goes over the named keys of the built-in key store, open
uploads, objects, noncurrent versions and the trash, page by page, and writes each record whose data
key is under a former master key, or a former version of its named key, by compare-and-swap. Records
move while it walks (a rename, an undo), also behind it, so it goes round until a whole round after
the first has met nothing to change; what is written meanwhile is under the newest keys, and a copy
is guarded by the record that it copies. Then no
former master key is in use any more, and a process may start without it. Whoever holds the
worker's lock goes on where the record says.

Shards keep the wrapped key that they were written with, for `s3gw rescue`: it needs the master key
of that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from s3gw.errors import KMSNotFoundException, S3Error
from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.key_records import RewrapJob
from s3gw.metadata.records import Description, ObjectRecord, TrashRecord, UploadRecord, decode
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.content.sealing import NotAuthentic
from s3gw.objects.keyring.master import MasterKeyMissing
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim, commit

log = logging.getLogger(__name__)

WALKING, DONE = "walking", "done"
NAMED = "keys"
STAGES = {
    NAMED: keys.NAMED_KEYS,
    "uploads": keys.UPLOADS,
    "objects": keys.OBJECTS,
    "versions": keys.VERSIONS,
    "trash": keys.TRASH,
}
RECORDS_PER_UNIT = 200
INTERVAL_SECONDS = 10.0
TROUBLE = (S3Error, ContentDamaged, NotAuthentic, MasterKeyMissing)


async def start(storage: Storage) -> RewrapJob:
    """Begin the job; one that goes on is begun again, as keys may have changed since. Raises
    NotImplementedS3 without any keys, Conflict, OutcomeUnknown."""
    master = storage.ring.sources.master
    if master is not None or storage.ring.sources.transit is None:
        master = await storage.ring.usable_master()
    present = master.present if master is not None else b""
    before = await status(storage)
    job = RewrapJob(storage.clock_ms(), stage=NAMED, master_key=present, rewrapped_before=-1)
    tx = Transaction()
    tx.expect(keys.REWRAP, before.revision)
    tx.put(keys.REWRAP, job)
    await storage.store.apply(tx)
    return job


async def status(storage: Storage) -> Versioned[RewrapJob]:
    """The last job."""
    return await storage.store.get(RewrapJob, keys.REWRAP)


class Rewrapper:
    """The worker. One unit is one page of records."""

    name = "rewrap"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        records_per_unit: int = RECORDS_PER_UNIT,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._interval_seconds = interval_seconds
        self._records_per_unit = records_per_unit
        self._sleep = sleep

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim = UNCLAIMED) -> bool:
        """One page of the job; whether there is more."""
        found = await status(self._storage)
        job = found.record
        if job is None or job.state != WALKING:
            return False
        master = self._storage.ring.sources.master
        if job.master_key != (master.present if master is not None else b""):
            log.info("the job wraps under another master key than this process has")
            return False
        try:
            after = await self._page(claim, job)
            tx = Transaction()
            tx.expect(keys.REWRAP, found.revision)
            tx.put(keys.REWRAP, after)
            await commit(self._storage.store, claim, tx)
        except Conflict:
            return True  # begun again meanwhile
        return after.state == WALKING

    async def _page(self, claim: Claim, job: RewrapJob) -> RewrapJob:
        base = STAGES[job.stage]
        first = job.cursor + b"\x00" if job.cursor else base
        page = await self._storage.store.scan_listed(
            first, keys.after_prefix(base), limit=self._records_per_unit
        )
        rewrapped, failed, note = job.rewrapped, job.failed, job.note
        for item in page.items:
            try:
                rewrapped += await self._rewrap(claim, job.stage, item)
            except TROUBLE as error:
                failed += 1
                note = str(error)
        after = msgspec.structs.replace(
            job,
            cursor=page.items[-1].key if page.items else job.cursor,
            walked=job.walked + len(page.items),
            rewrapped=rewrapped,
            failed=failed,
            note=note,
        )
        if page.more:
            return after
        stages = list(STAGES)
        following = stages[stages.index(job.stage) + 1 :]
        if following:
            return msgspec.structs.replace(after, stage=following[0], cursor=b"")
        return await self._end_of_round(after)

    async def _end_of_round(self, job: RewrapJob) -> RewrapJob:
        """Done when the round, not the first one, has changed nothing, or something could not be
        changed."""
        if job.rewrapped != job.rewrapped_before and not job.failed:
            return msgspec.structs.replace(
                job, stage=NAMED, cursor=b"", rewrapped_before=job.rewrapped
            )
        if job.master_key and not job.failed:
            await self._storage.ring.forget_others(job.master_key)
        return msgspec.structs.replace(job, state=DONE, ended_ms=self._storage.clock_ms())

    async def _rewrap(self, claim: Claim, stage: str, item: Item) -> int:
        """Rewrap one record; 1 if it was changed. Raises what TROUBLE has."""
        ring = self._storage.ring
        if stage == NAMED:
            name = item.key[len(keys.NAMED_KEYS) :].decode()
            if ring.sources.master is None:
                return 0
            try:
                return int(await ring.named.rewrap(name, await ring.usable_master()))
            except KMSNotFoundException:
                return 0  # deleted meanwhile
        record = await self._changed(stage, item)
        if record is None:
            return 0
        tx = Transaction()
        tx.expect(item.key, item.revision)
        if stage == "trash":
            tx.put(item.key, record)
        else:
            self._storage.store.put_listed(tx, item.key, record)
        tx.witness = item.key
        try:
            await commit(self._storage.store, claim, tx)
        except Conflict:
            pass  # whoever changed it: the next round looks again
        return 1

    async def _changed(self, stage: str, item: Item) -> msgspec.Struct | None:
        """The record with its data key wrapped anew; None when it is as it should be."""
        if stage == "uploads":
            upload = decode(UploadRecord, item.value)
            upload_id = keys.split_upload(item.key)[2]
            described = await self._described(upload.description, upload_id)
            return described and msgspec.structs.replace(upload, description=described)
        if stage == "trash":
            kept = decode(TrashRecord, item.value)
            described = await self._described(kept.record.description, kept.record.content_id)
            record = described and msgspec.structs.replace(kept.record, description=described)
            return record and msgspec.structs.replace(kept, record=record)
        version = decode(ObjectRecord, item.value)
        described = await self._described(version.description, version.content_id)
        return described and msgspec.structs.replace(version, description=described)

    async def _described(self, description: Description, content_id: bytes) -> Description | None:
        if description.encryption is None:
            return None
        anew = await self._storage.ring.rewrapped(description.encryption, content_id)
        return msgspec.structs.replace(description, encryption=anew) if anew else None
