"""Wrapping all data keys anew after a key was rotated: no data is touched.

The job is one record (`kms/rewrap`). It goes over the named keys of the built-in key store, open
uploads, objects, noncurrent versions and the trash, page by page, and writes each record whose data
key is under a former master key, or a former version of its named key, by compare-and-swap. Whoever
holds the worker's lock goes on where the record says.

Records move while it walks (a rename, an undo), also behind it. So the walk proves nothing, and
after it comes the proof: when no process that lives has another master key as its present one, the
others are barred (s3gw.objects.keyring.ring), as is what was wrapped under a former version of a
key of the key management service and is not stored yet. All records are read again as they were at
one later revision, which a pin keeps in the history. What is met there that is under a former key
is wrapped anew and makes another proof necessary, as does whoever has wrapped under a barred master
key meanwhile: he took the bar back, and the record of master keys is another one. A proof that met
nothing ends the job; in the same commit the former master keys are struck out, and a process may
start without them.

What is under a former version of a named key that is disabled, or waits for its deletion, is left
there: it is under no master key, and the version's own wrapping is made anew for all that.

Shards keep the wrapped keys that they were written with, for `s3gw rescue`: it needs the master key
of that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Unpack

import msgspec

from s3gw.errors import (
    KMSDisabledException,
    KMSInvalidStateException,
    KMSNotFoundException,
    S3Error,
)
from s3gw.kv.interface import Compacted, Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.inventory_records import Pin
from s3gw.metadata.key_records import MasterKeysInUse, NamedKey, RewrapJob, TransitProof
from s3gw.metadata.records import (
    Description,
    Encryption,
    ObjectRecord,
    TrashRecord,
    UploadRecord,
    decode,
)
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.content.sealing import NotAuthentic
from s3gw.objects.keyring.master import MasterKeyMissing
from s3gw.objects.keyring.ring import master_keys_known, processes_behind
from s3gw.objects.storage import Storage
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
)

log = logging.getLogger(__name__)

WALKING, DONE = "walking", "done"
NAMED = "keys"
# Between the walk, or a proof, and the next proof: until all processes have the new master key.
PROCESSES = "processes"
STAGES = {
    NAMED: keys.NAMED_KEYS,
    "uploads": keys.UPLOADS,
    "objects": keys.OBJECTS,
    "versions": keys.VERSIONS,
    "trash": keys.TRASH,
}
RECORDS_PER_UNIT = 200
RECORDS_AT_ONCE = 16
WAITS = "waits for processes that are to be started again with the new master key: "
GONE = (
    "the history that the proof read is gone, and it began again: where it never ends, raise "
    "history_window_seconds"
)
PIN = keys.pin("rewrap")


async def start(storage: Storage) -> RewrapJob:
    """Begin the job; one that goes on is begun again, as keys may have changed since. Raises
    NotImplementedS3 without any keys, Conflict, OutcomeUnknown."""
    master = storage.ring.sources.master
    if master is not None or storage.ring.sources.transit is None:
        master = await storage.ring.usable_master()
        await storage.ring.note_in_use(master.present)  # it may have been done away with since
    present = master.present if master is not None else b""
    before = await status(storage)
    job = RewrapJob(storage.clock_ms(), stage=NAMED, master_key=present)
    tx = Transaction()
    tx.expect(keys.REWRAP, before.revision)
    tx.put(keys.REWRAP, job)
    tx.delete(PIN)
    await storage.store.apply(tx)
    return job


async def status(storage: Storage) -> Versioned[RewrapJob]:
    """The last job."""
    return await storage.store.get(RewrapJob, keys.REWRAP)


class Rewrapper(PeriodicWorker):
    """The worker. One unit is one page of records."""

    name = "rewrap"
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
            if job.stage == PROCESSES:
                return await self._begin_proof(claim, found.revision, job)
            after = await self._page(claim, job, found.revision)
            await self._save(claim, found.revision, after)
        except Conflict:
            return True  # begun again meanwhile, or the master keys are others
        return after.state == WALKING

    async def _save(self, claim: Claim, revision: int, job: RewrapJob) -> None:
        """Write the job's record; when it is done, the master keys that are in use as well."""
        tx = Transaction()
        tx.expect(keys.REWRAP, revision)
        tx.put(keys.REWRAP, job)
        if job.state == DONE:
            tx.delete(PIN)
            if job.proving and not job.failed and job.master_key:
                known, _ = await master_keys_known(self._storage.store.kv)
                tx.expect(keys.MASTER_KEYS, job.master_revision)
                tx.put(keys.MASTER_KEYS, MasterKeysInUse((job.master_key,), known.barred))
        await commit(self._storage.store, claim, tx)

    async def _begin_proof(self, claim: Claim, revision: int, job: RewrapJob) -> bool:
        """Bar other master keys, and begin to read at the revision of the commit that says so;
        False when it is too early."""
        kv, master_revision = self._storage.store.kv, 0
        if job.master_key:
            behind = await processes_behind(kv, job.master_key)
            if behind:
                waiting = msgspec.structs.replace(job, note=WAITS + ", ".join(behind))
                if waiting != job:
                    await self._save(claim, revision, waiting)
                return False
            master_revision = await self._storage.ring.bar_others()
        proof = msgspec.structs.replace(
            job,
            stage=NAMED,
            cursor=b"",
            proving=True,
            revision=0,
            master_revision=master_revision,
            rewrapped_before=job.rewrapped,
            kept=0,
            note="" if job.note.startswith(WAITS) else job.note,
        )
        tx = Transaction()
        tx.expect(keys.REWRAP, revision)
        tx.put(keys.REWRAP, proof)
        tx.put(PIN, Pin(self._storage.clock_ms()), lease=self._storage.lease())
        if self._storage.ring.sources.transit is not None:
            tx.put(keys.TRANSIT_PROOF, TransitProof(self._storage.clock_ms()))
        await commit(self._storage.store, claim, tx)
        with suppress(S3Error):  # whoever loses a commit by that learns of it then
            await self._storage.ring.learn_proof()
        return True

    async def _page(self, claim: Claim, job: RewrapJob, revision: int) -> RewrapJob:
        base = STAGES[job.stage]
        first = job.cursor + b"\x00" if job.cursor else base
        at = (job.revision or revision) if job.proving else None
        try:
            page = await self._storage.store.scan_listed(
                first, keys.after_prefix(base), limit=self._records_per_unit, revision=at
            )
        except Compacted:
            log.warning(GONE)
            return msgspec.structs.replace(job, stage=PROCESSES, proving=False, note=GONE)
        after = msgspec.structs.replace(
            job,
            cursor=page.items[-1].key if page.items else job.cursor,
            walked=job.walked + len(page.items),
            revision=at or 0,
        )
        after = await self._rewrap_all(claim, after, page.items)
        if page.more:
            return after
        stages = list(STAGES)
        following = stages[stages.index(job.stage) + 1 :]
        if following:
            return msgspec.structs.replace(after, stage=following[0], cursor=b"")
        return await self._end_of_round(after)

    async def _rewrap_all(self, claim: Claim, job: RewrapJob, items: Sequence[Item]) -> RewrapJob:
        """Rewrap the records of a page, some at a time: their named keys are read together, and a
        key management service is waited for once between them."""
        for first in range(0, len(items), RECORDS_AT_ONCE):
            some = items[first : first + RECORDS_AT_ONCE]
            work = (self._rewrap(claim, job.stage, item) for item in some)
            outcomes = await asyncio.gather(*work, return_exceptions=True)
            job = self._counted(job, some, outcomes)
        return job

    def _counted(
        self, job: RewrapJob, items: Sequence[Item], outcomes: Sequence[int | BaseException]
    ) -> RewrapJob:
        """The job with what became of some records. Raises what is not about one of them."""
        rewrapped, kept, failed, note = job.rewrapped, job.kept, job.failed, job.note
        for item, outcome in zip(items, outcomes, strict=True):
            match outcome:
                case int():
                    rewrapped += outcome
                case KMSDisabledException() | KMSInvalidStateException():
                    kept += 1
                    note = f"left under a former version of its key: {outcome.message}"
                case S3Error() | ContentDamaged() | NotAuthentic() | MasterKeyMissing():
                    failed += 1
                    note = str(outcome)
                case Exception() if not isinstance(outcome, (*SHARED_TROUBLE, Conflict)):
                    log.error("the key of %r is not wrapped anew", item.key, exc_info=outcome)
                    failed += 1
                    note = str(outcome)
                case _:
                    raise outcome
        return msgspec.structs.replace(
            job, rewrapped=rewrapped, kept=kept, failed=failed, note=note
        )

    async def _end_of_round(self, job: RewrapJob) -> RewrapJob:
        """Done when a proof has met nothing to change and nobody has taken back the bar, or
        something could not be changed."""
        if not job.failed:
            _, revision = await master_keys_known(self._storage.store.kv)
            met = job.rewrapped != job.rewrapped_before
            if not job.proving or met or (job.master_key and revision != job.master_revision):
                return msgspec.structs.replace(job, stage=PROCESSES, proving=False)
        note = "" if job.note == GONE else job.note
        return msgspec.structs.replace(
            job, state=DONE, ended_ms=self._storage.clock_ms(), note=note
        )

    async def _rewrap(self, claim: Claim, stage: str, item: Item) -> int:
        """Rewrap one record; 1 if that was necessary. Raises S3Error, ContentDamaged, NotAuthentic,
        MasterKeyMissing."""
        if stage == NAMED:
            return await self._rewrap_named(item)
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
        self._storage.ring.guard(tx, _encryption_of(record))
        try:
            await commit(self._storage.store, claim, tx)
        except Conflict as conflict:  # whoever changed it: the next round looks again
            await self._storage.ring.refresh(conflict)
        return 1

    async def _rewrap_named(self, item: Item) -> int:
        ring = self._storage.ring
        if ring.sources.master is None:
            return 0
        master = await ring.usable_master()
        key = decode(NamedKey, item.value)
        if all(master.is_present(version) for version in key.versions if version):
            return 0
        try:
            await ring.named.rewrap(item.key[len(keys.NAMED_KEYS) :].decode(), master)
        except KMSNotFoundException:
            return 0  # deleted meanwhile
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


def _encryption_of(record: msgspec.Struct) -> Encryption | None:
    """That of what `Rewrapper` writes."""
    if isinstance(record, TrashRecord):
        record = record.record
    assert isinstance(record, ObjectRecord | UploadRecord)
    return record.description.encryption
