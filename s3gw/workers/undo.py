"""Undo of a prefix of a bucket with versioning: a job that goes from key to key.

The job is a record (`undo/<bucket>`): what is wanted, and the last key that was looked at. Whoever
holds the worker's lock does a page of keys, each by a commit of its own (`s3gw.objects.undo`), and
then notes how far it came. A page that was done and not noted is done again, and finds nothing to
do: what was made visible already is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Unpack

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import KV, At, Conflict, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, UndoJob, decode, encode
from s3gw.metadata.sequences import sequence_at
from s3gw.metadata.store import Transaction
from s3gw.objects import publish, undo
from s3gw.objects.publish import ENABLED
from s3gw.objects.storage import Storage
from s3gw.objects.undo import Moment, NotVersioned, Verdict
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
    under,
)

log = logging.getLogger(__name__)

VERSIONS_PER_UNIT = 500
KEYS_AT_ONCE = 8
COMMIT_ATTEMPTS_MAX = 16
WALKING, DONE, CANCELLED = "walking", "done", "cancelled"


class UndoRefused(Exception):
    """The undo cannot be begun, or there is none to stop; the message says why."""


@dataclass(slots=True)
class Tally:
    """What happens to the keys of a page: `restored`, `hidden` and `left` are keys, `note` is the
    last reason why one could not be treated. `last` is the last key, "" at the end."""

    keys: int = 0
    restored: int = 0
    hidden: int = 0
    left: int = 0
    note: str = ""
    last: str = ""
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def count(self, key: str, verdict: Verdict) -> None:
        self.verdicts[key] = verdict
        self.restored += verdict is Verdict.RESTORE
        self.hidden += verdict is Verdict.HIDE
        self.left += verdict is Verdict.LEAVE

    def leave(self, key: str, reason: str) -> None:
        """Count a key that cannot be treated."""
        self.left += 1
        self.note = f"{key}: {reason}"


async def plan(
    storage: Storage, bucket: str, prefix: str, at_ms: int, *, after: str, most: int
) -> Tally:
    """What an undo begun now would do to the next keys behind `after`. Raises NotVersioned,
    NoSuchBucket, EngineError."""
    moment = Moment(at_ms, keys.SEQUENCE_MAX)

    async def decide(key: str) -> Verdict:
        target = await publish.read_target(storage, bucket, key)
        return (await undo.judge(storage, target, moment))[0]

    return await _page(storage, bucket, prefix, at_ms, after, most, decide)


async def _page(
    storage: Storage,
    bucket: str,
    prefix: str,
    at_ms: int,
    after: str,
    most: int,
    treat: Callable[[str], Awaitable[Verdict]],
) -> Tally:
    page = await undo.keys_changed(storage, bucket, prefix, at_ms, after=after, most=most)
    tally = Tally(page.seen, last=page.last)
    turn = asyncio.Semaphore(KEYS_AT_ONCE)
    for key in page.unreadable:
        log.error("a version of %s/%s cannot be read: it is not undone", bucket, key)
        tally.leave(key, "a version of it cannot be read")

    async def one(key: str) -> None:
        async with turn:
            try:
                tally.count(key, await treat(key))
            except (*SHARED_TROUBLE, NotVersioned, errors.NoSuchBucket):
                raise
            except errors.S3Error as error:
                tally.leave(key, error.message)
            except Exception:  # one key must not hold up all others
                log.exception("the undo of %s/%s failed", bucket, key)
                tally.leave(key, errors.InternalError().message)

    await asyncio.gather(*map(one, page.changed))
    return tally


async def start(storage: Storage, bucket: str, prefix: str, at_ms: int) -> UndoJob:
    """Begin an undo. Raises UndoRefused, EngineError."""
    kv = storage.store.kv
    now_ms = storage.clock_ms()
    if at_ms > now_ms:
        raise UndoRefused("the moment to go back to has not come yet")
    for _ in range(COMMIT_ATTEMPTS_MAX):
        reading = await kv.get_many([keys.bucket(bucket), keys.undo(bucket)])
        bucket_item, job_item = reading.items
        if bucket_item is None:
            raise UndoRefused(f"there is no bucket {bucket}")
        if decode(BucketRecord, bucket_item.value).versioning != ENABLED:
            raise UndoRefused(f"bucket {bucket} keeps no versions now: enable versioning first")
        if job_item is not None and decode(UndoJob, job_item.value).state == WALKING:
            raise UndoRefused(f"an undo of bucket {bucket} is under way")
        sequence = sequence_at(storage.store.moment(reading.revision))
        job = UndoJob(prefix, at_ms, sequence, now_ms)
        guards = [
            At(bucket_item.key, bucket_item.revision),
            At(keys.undo(bucket), job_item.revision if job_item is not None else 0),
        ]
        try:
            await kv.commit(guards, [Put(keys.undo(bucket), encode(job))])
        except Conflict:
            continue
        return job
    raise UndoRefused(f"bucket {bucket} is changed too often by others: try again")


async def status(kv: KV, bucket: str) -> UndoJob | None:
    """The last undo of a bucket, or None. Raises EngineError."""
    (item,) = (await kv.get_many([keys.undo(bucket)])).items
    return decode(UndoJob, item.value) if item is not None else None


async def cancel(storage: Storage, bucket: str) -> UndoJob:
    """Stop an undo where it is; what it did stays. Raises UndoRefused, EngineError."""
    kv = storage.store.kv
    for _ in range(COMMIT_ATTEMPTS_MAX):
        (item,) = (await kv.get_many([keys.undo(bucket)])).items
        job = decode(UndoJob, item.value) if item is not None else None
        if item is None or job is None or job.state != WALKING:
            raise UndoRefused(f"no undo of bucket {bucket} is under way")
        job = msgspec.structs.replace(job, state=CANCELLED, ended_ms=storage.clock_ms())
        try:
            await kv.commit([At(item.key, item.revision)], [Put(item.key, encode(job))])
        except Conflict:
            continue
        return job
    raise UndoRefused(f"the undo of bucket {bucket} is changed too often: try again")


class Undoer(PeriodicWorker):
    """The worker. One unit is one page of one job."""

    name = "undo"
    interval_seconds = 5.0

    def __init__(
        self,
        storage: Storage,
        *,
        versions_per_unit: int = VERSIONS_PER_UNIT,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(storage, **timing)
        self._versions_per_unit = versions_per_unit
        self._turn = b""

    async def work(self, claim: Claim = UNCLAIMED) -> bool:
        """A page of the next job; whether there was one."""
        walking = [item for item in await self._jobs() if self._walks(item)]
        if not walking:
            return False
        item = next((item for item in walking if item.key > self._turn), walking[0])
        self._turn = item.key
        try:
            await self._unit(claim, item, decode(UndoJob, item.value))
        except Conflict:
            log.info("the undo of %r was cancelled", item.key)
        return True

    def _walks(self, item: Item) -> bool:
        try:
            return decode(UndoJob, item.value).state == WALKING
        except Exception:
            log.exception("the job %r cannot be read", item.key)
            return False

    async def _jobs(self) -> list[Item]:
        items: list[Item] = []
        position, end = keys.UNDOS, keys.after_prefix(keys.UNDOS)
        while True:
            page = await self._storage.store.kv.scan(position, end, limit=limits.SCAN_ITEMS_MAX)
            items += page.items
            if not page.more:
                return items
            position = page.items[-1].key + b"\x00"

    async def _unit(self, claim: Claim, item: Item, job: UndoJob) -> None:
        storage, bucket = under(self._storage, claim), item.key[len(keys.UNDOS) :].decode()
        moment = Moment(job.at_ms, job.sequence)

        async def treat(key: str) -> Verdict:
            return await undo.undo_key(storage, bucket, key, moment)

        try:
            tally = await _page(
                storage,
                bucket,
                job.prefix,
                job.at_ms,
                job.cursor,
                self._versions_per_unit,
                treat,
            )
        except (NotVersioned, errors.NoSuchBucket):
            note = "the bucket is not there any more, or keeps no versions"
            await self._save(claim, item, self._ended(job, CANCELLED, note))
            return
        job = msgspec.structs.replace(
            job,
            cursor=tally.last or job.cursor,
            keys=job.keys + tally.keys,
            restored=job.restored + tally.restored,
            hidden=job.hidden + tally.hidden,
            left=job.left + tally.left,
            note=tally.note or job.note,
        )
        await self._save(claim, item, job if tally.last else self._ended(job, DONE, job.note))

    def _ended(self, job: UndoJob, state: str, note: str) -> UndoJob:
        return msgspec.structs.replace(
            job, state=state, note=note, ended_ms=self._storage.clock_ms()
        )

    async def _save(self, claim: Claim, item: Item, job: UndoJob) -> None:
        tx = Transaction()
        tx.expect(item.key, item.revision)
        tx.put(item.key, job)
        tx.witness = item.key
        await commit(self._storage.store, claim, tx)
