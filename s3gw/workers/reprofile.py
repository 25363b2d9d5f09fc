"""Changing a bucket's profile while it is used.

`start` changes the bucket's record, so that new objects go into the new profile, and writes the job
in the same commit. The worker then walks over the bucket and moves every blob of its former
profiles as `s3gw.workers.reencode` does: the blob is written anew and published under a reference
of the move's own, in one commit with an entry of the repair queue that names it; then each holder
goes over by compare-and-swap. Old and new are readable all the time. Whatever is cut short between
the two is ended by the repair worker, which finds the entry.

**The walk** goes over open uploads, visible objects, noncurrent versions, in this order, because
records move in this order: an upload becomes an object, an object becomes a noncurrent version. So
nothing escapes a walk by moving. The one move the other way, a noncurrent version that becomes
visible because the newer ones were removed, asks for another round in its own commit. The place is
kept in the job's record; whoever holds the lock goes on from there. An open upload is given the new
profile, for the parts to come.

**What cannot be moved**, because nodes are missing or too little of a blob is left, is met by every
walk anew. After the second one that moved nothing, and each after it, the job rests, twice as long
every time, unless other nodes live then. A record that cannot be read is left, and noted.

**Space.** Each blob that is moved has two references, and a queue entry, until the collector has
been there. While the metadata engine is short of space, nothing is moved: what is left of that is
for requests.

**The end.** A job is done when a whole walk has met nothing of the former profiles. A writer that
decided by the bucket's former record cannot publish without reading it again, and then queues its
blob for the move in the same commit (`s3gw.objects.publish.add_new_blob`).

Objects whose storage class belongs to a profile of its own are taken there and not to the bucket's.
A multipart upload that objects of several buckets share goes over as a whole.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, Unpack

import msgspec

from s3gw import limits
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import UnknownProfile
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import KV, At, Conflict, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    ProfileRecord,
    ReprofileJob,
    TrashRecord,
    UploadRecord,
    decode,
    encode,
)
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects.multipart import OPEN
from s3gw.objects.storage import Storage, wall_clock_ms
from s3gw.workers.blob_move import move_blob
from s3gw.workers.contract import UNCLAIMED, Claim, PeriodicWorker, Timing, commit
from s3gw.workers.reencode import ContentChanged, NotPossibleNow

log = logging.getLogger(__name__)

WALKING, DONE, CANCELLED = "walking", "done", "cancelled"
UPLOADS, OBJECTS, VERSIONS, TRASH = "uploads", "objects", "versions", "trash"
STAGES = (UPLOADS, OBJECTS, VERSIONS, TRASH)
RECORDS_PER_UNIT = 50
REST_SECONDS_MAX = 3600.0
BLOBS_AT_ONCE = 4
COMMIT_ATTEMPTS_MAX = 8
NO_SPACE = "the metadata engine is short of space: nothing is moved meanwhile"


R = TypeVar("R", bound=msgspec.Struct)


class ReprofileRefused(ValueError):
    """The bucket cannot be moved so; the text says why."""


async def start(kv: KV, bucket: str, profile: str, *, now_ms: int | None = None) -> ReprofileJob:
    """Give a bucket another profile, for new objects at once and for the others by a job. A job
    that is under way to this profile is returned as it is; one to another profile is replaced.

    Raises ReprofileRefused, EngineError; after Unavailable it may be asked for again.
    """
    for _ in range(COMMIT_ATTEMPTS_MAX):
        wanted = [keys.bucket(bucket), keys.profile(profile), keys.reprofile(bucket)]
        bucket_item, profile_item, job_item = (await kv.get_many(wanted)).items
        if bucket_item is None:
            raise ReprofileRefused(f"there is no bucket {bucket}")
        if profile_item is None or not decode(ProfileRecord, profile_item.value).companion:
            raise ReprofileRefused(f"there is no profile {profile}")
        record = decode(BucketRecord, bucket_item.value)
        before = decode(ReprofileJob, job_item.value) if job_item is not None else None
        if before is not None and before.state == WALKING and before.target == profile:
            return before
        sources = _sources(record, before, profile)
        if not sources:
            raise ReprofileRefused(f"bucket {bucket} is in profile {profile} already")
        job = ReprofileJob(
            sources, profile, wall_clock_ms() if now_ms is None else now_ms, stage=UPLOADS
        )
        guards = [
            At(keys.bucket(bucket), bucket_item.revision),
            At(keys.profile(profile), profile_item.revision),
            At(keys.reprofile(bucket), job_item.revision if job_item is not None else 0),
        ]
        after = msgspec.structs.replace(record, profile=profile)
        writes = [
            Put(keys.bucket(bucket), encode(after)),
            Put(keys.reprofile(bucket), encode(job)),
            Put(keys.GENERATION, os.urandom(8)),
        ]
        try:
            await kv.commit(guards, writes)
        except Conflict:
            continue
        return job
    raise ReprofileRefused(f"bucket {bucket} is changed too often by others: try again")


def _sources(record: BucketRecord, before: ReprofileJob | None, profile: str) -> tuple[str, ...]:
    """The profiles that blobs of the bucket may be in: of a job that did not end, all of its."""
    sources = {record.profile}
    if before is not None and before.state != DONE:
        sources |= {*before.sources, before.target}
    return tuple(sorted(sources - {profile}))


async def status(kv: KV, bucket: str) -> ReprofileJob | None:
    """The last job of a bucket, or None. Raises EngineError."""
    (item,) = (await kv.get_many([keys.reprofile(bucket)])).items
    return decode(ReprofileJob, item.value) if item is not None else None


async def list_jobs(kv: KV) -> dict[str, ReprofileJob]:
    """All jobs, ended ones too, by bucket. Raises EngineError."""
    return {bucket: decode(ReprofileJob, item.value) for bucket, item in await _jobs(kv)}


async def cancel(kv: KV, bucket: str, *, now_ms: int | None = None) -> ReprofileJob:
    """Stop moving. The bucket keeps its new profile, and what was moved stays there; `start` with
    the former profile takes everything back. Raises ReprofileRefused, EngineError."""
    for _ in range(COMMIT_ATTEMPTS_MAX):
        (item,) = (await kv.get_many([keys.reprofile(bucket)])).items
        job = decode(ReprofileJob, item.value) if item is not None else None
        if item is None or job is None or job.state != WALKING:
            raise ReprofileRefused(f"no change of profile of bucket {bucket} is under way")
        job = msgspec.structs.replace(
            job, state=CANCELLED, ended_ms=wall_clock_ms() if now_ms is None else now_ms
        )
        try:
            await kv.commit([At(item.key, item.revision)], [Put(item.key, encode(job))])
        except Conflict:
            continue
        return job
    raise ReprofileRefused(f"the job of bucket {bucket} is changed too often: try again")


async def _jobs(kv: KV) -> list[tuple[str, Item]]:
    items: list[Item] = []
    start, end = keys.REPROFILES, keys.after_prefix(keys.REPROFILES)
    while True:
        page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
        items += page.items
        if not page.more:
            return [(item.key[len(keys.REPROFILES) :].decode(), item) for item in items]
        start = page.items[-1].key + b"\x00"


def _walking(item: Item) -> ReprofileJob | None:
    """The job that a record holds, if it is under way."""
    try:
        job = decode(ReprofileJob, item.value)
    except Exception:
        log.exception("the job %r cannot be read", item.key)
        return None
    return job if job.state == WALKING else None


@dataclass(frozen=True, slots=True)
class _Found:
    """A blob that is to be moved, and the profile it is to go to."""

    ref: BlobRef
    target: str


@dataclass(slots=True)
class _Tally:
    """What a unit has moved and what must wait."""

    blobs: int = 0
    bytes: int = 0
    left: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Rest:
    """After `idle` walks that moved nothing, at `blobs_done` of a job, it rests until then, or
    until others than these nodes live."""

    blobs_done: int
    idle: int
    until: float
    live: frozenset[str]


class Reprofiler(PeriodicWorker):
    """The worker. One unit is one page of one job."""

    name = "reprofile"
    interval_seconds = 10.0

    def __init__(
        self,
        storage: Storage,
        *,
        throttle: Throttle | None = None,
        records_per_unit: int = RECORDS_PER_UNIT,
        space_short: Callable[[], bool] = lambda: False,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(storage, **timing)
        self._space_short = space_short
        self._throttle = throttle or Throttle(lambda: 0)
        self._records_per_unit = records_per_unit
        self._turn = ""
        # By bucket and when the job was started: another job begins at once.
        self._rests: dict[tuple[str, int], _Rest] = {}

    async def work(self, claim: Claim = UNCLAIMED) -> bool:
        """One page of the next job; whether it was one with work to do, so that more may be."""
        walking = []
        for bucket, item in await _jobs(self._storage.store.kv):
            job = _walking(item)
            if job is not None:
                walking.append((bucket, item, job))
        names = {(bucket, job.started_ms) for bucket, _, job in walking}
        self._rests = {name: rest for name, rest in self._rests.items() if name in names}
        awake = [one for one in walking if not self._is_resting(one[0], one[2])]
        if not awake:
            return False
        bucket, item, job = next((one for one in awake if one[0] > self._turn), awake[0])
        self._turn = bucket
        try:
            if self._space_short():
                await self._say_no_space(claim, awake)
                return False
            return await self._unit(claim, bucket, item, job)
        except Conflict:
            return True  # the job was cancelled, or replaced, meanwhile

    async def _say_no_space(
        self, claim: Claim, jobs: Sequence[tuple[str, Item, ReprofileJob]]
    ) -> None:
        for _, item, job in jobs:
            if job.note != NO_SPACE:
                await self._save(claim, item, msgspec.structs.replace(job, note=NO_SPACE))

    def _is_resting(self, bucket: str, job: ReprofileJob) -> bool:
        rest = self._rests.get((bucket, job.started_ms))
        return (
            rest is not None
            and self._storage.monotonic() < rest.until
            and self._live() == rest.live
        )

    def _live(self) -> frozenset[str]:
        return frozenset(node.id for node in self._storage.blobs.directory.all() if node.live)

    def _rest(self, bucket: str, job: ReprofileJob) -> None:
        """Note that a walk has ended that left something."""
        name = bucket, job.started_ms
        before = self._rests.get(name)
        idle, seconds = 0, 0.0
        if before is not None and before.blobs_done == job.blobs_done:
            idle = before.idle + 1
            seconds = min(REST_SECONDS_MAX, self.interval_seconds * 2**idle)
        until = self._storage.monotonic() + seconds
        self._rests[name] = _Rest(job.blobs_done, idle, until, self._live())

    async def _unit(self, claim: Claim, bucket: str, item: Item, job: ReprofileJob) -> bool:
        storage = self._storage
        found = await storage.store.get(BucketRecord, keys.bucket(bucket))
        if found.record is None or found.record.profile != job.target:
            ended = msgspec.structs.replace(
                job,
                state=CANCELLED,
                ended_ms=storage.clock_ms(),
                note="the bucket is not there any more, or was given another profile",
            )
            await self._save(claim, item, ended)
            return True
        for name in (*job.sources, job.target):
            await storage.blobs.topology.know(name)
        base = {
            UPLOADS: keys.uploads(bucket),
            OBJECTS: keys.objects(bucket),
            VERSIONS: keys.versions(bucket),
            TRASH: keys.trash(bucket),
        }[job.stage]
        start = job.cursor + b"\x00" if job.cursor else base
        page = await storage.store.scan_listed(
            start, keys.after_prefix(base), limit=self._records_per_unit
        )
        tally = _Tally()
        if job.stage == UPLOADS:
            await self._uploads(claim, bucket, job, page.items, tally)
        else:
            await self._versions(claim, bucket, job, page.items, tally)
        after = msgspec.structs.replace(
            job,
            cursor=page.items[-1].key if page.items else job.cursor,
            blobs_done=job.blobs_done + tally.blobs,
            bytes_done=job.bytes_done + tally.bytes,
            blobs_left=job.blobs_left + tally.left,
            note=tally.note or (job.note if job.note != NO_SPACE else ""),
        )
        met = bool(tally.blobs or tally.left)
        after = msgspec.structs.replace(after, met=job.met or met)
        waits = not page.more and self._ends_round(after)
        await self._save(claim, item, after if page.more else self._next(after))
        if waits:
            self._rest(bucket, after)
        return not waits

    def _ends_round(self, job: ReprofileJob) -> bool:
        """Whether a walk ends here that left something: to be tried again after a while."""
        return job.stage == STAGES[-1] and job.blobs_left > 0

    def _next(self, job: ReprofileJob) -> ReprofileJob:
        """The job at the start of its next stage or round, or done."""
        if job.stage != STAGES[-1]:
            following = STAGES[STAGES.index(job.stage) + 1]
            return msgspec.structs.replace(job, stage=following, cursor=b"")
        rounds = job.rounds + 1
        if not job.met:
            return msgspec.structs.replace(
                job, state=DONE, rounds=rounds, ended_ms=self._storage.clock_ms(), note=""
            )
        return msgspec.structs.replace(
            job, stage=UPLOADS, cursor=b"", rounds=rounds, blobs_left=0, met=False
        )

    async def _save(self, claim: Claim, item: Item, job: ReprofileJob) -> None:
        tx = Transaction()
        tx.expect(item.key, item.revision)
        tx.put(item.key, job)
        tx.witness = item.key
        await commit(self._storage.store, claim, tx)

    def _target(self, job: ReprofileJob, profile: str, storage_class: str) -> str:
        """The profile that a blob of `profile` is to go to; "" when it may stay."""
        topology = self._storage.blobs.topology
        claiming = topology.of_class(storage_class)
        target = claiming.name if claiming is not None else job.target
        homes = {
            name for source in job.sources for name in (source, topology.profile(source).companion)
        }
        wanted = topology.profile(target)
        if profile not in homes or profile in (wanted.name, wanted.companion):
            return ""
        return target

    async def _versions(
        self, claim: Claim, bucket: str, job: ReprofileJob, items: Sequence[Item], tally: _Tally
    ) -> None:
        for item in items:
            if job.stage == TRASH:
                trashed = self._read(TrashRecord, item, tally)
                record = trashed.record if trashed is not None else None
            else:
                record = self._read(ObjectRecord, item, tally)
            if record is None:
                continue
            storage_class = record.description.storage_class
            if isinstance(record.data, BlobRef):
                await self._move_all(claim, bucket, job, [record.data], storage_class, tally)
            elif isinstance(record.data, ManifestRef):
                own = [record.data.blob]
                await self._move_all(claim, bucket, job, own, storage_class, tally)
                async for parts in self._pages(record.data.manifest):
                    refs = [part.blob for part in parts]
                    await self._move_all(claim, bucket, job, refs, storage_class, tally)

    async def _pages(self, manifest: bytes) -> AsyncIterator[Sequence[PartRecord]]:
        """The parts of a completed upload, page by page."""
        prefix = keys.manifest(manifest)
        position = prefix
        while True:
            page = await self._storage.store.kv.scan(position, keys.after_prefix(prefix), limit=1)
            for item in page.items:
                yield decode(ManifestPage, item.value).parts
                position = item.key + b"\x00"
            if not page.more:
                return

    async def _uploads(
        self, claim: Claim, bucket: str, job: ReprofileJob, items: Sequence[Item], tally: _Tally
    ) -> None:
        for item in items:
            record = self._read(UploadRecord, item, tally)
            if record is None:
                continue
            storage_class = record.description.storage_class
            target = self._target(job, record.profile, storage_class)
            if record.state != OPEN:
                # Who completes it has read its parts: it will be an object, or open again.
                tally.left += 1
                continue
            if target and not await self._redirect(claim, item, record, target):
                tally.left += 1
                continue
            upload_id = item.key[-16:]
            prefix = keys.parts(upload_id)
            page = await self._storage.store.kv.scan(
                prefix, keys.after_prefix(prefix), limit=limits.PART_NUMBER_MAX
            )
            refs = [decode(PartRecord, part.value).blob for part in page.items]
            await self._move_all(claim, bucket, job, refs, storage_class, tally)

    def _read(self, kind: type[R], item: Item, tally: _Tally) -> R | None:
        """A record of the walk; one that cannot be read is left behind."""
        try:
            return decode(kind, item.value)
        except Exception:
            log.exception("the record %r cannot be read", item.key)
            tally.left += 1
            tally.note = f"the record {item.key!r} cannot be read"
            return None

    async def _redirect(self, claim: Claim, item: Item, record: UploadRecord, target: str) -> bool:
        """Let the parts to come of an open upload go into the target."""
        tx = Transaction()
        tx.expect(item.key, item.revision)
        self._storage.store.put_listed(
            tx, item.key, msgspec.structs.replace(record, profile=target)
        )
        tx.witness = item.key
        try:
            await commit(self._storage.store, claim, tx)
        except (Conflict, OutcomeUnknown):
            return False
        return True

    async def _move_all(
        self,
        claim: Claim,
        bucket: str,
        job: ReprofileJob,
        refs: Sequence[BlobRef],
        storage_class: str,
        tally: _Tally,
    ) -> None:
        """Move those blobs that are to be moved, a few at a time."""
        found = [
            _Found(ref, target)
            for ref in refs
            if (target := self._target(job, ref.profile, storage_class))
        ]
        for first in range(0, len(found), BLOBS_AT_ONCE):
            chunk = found[first : first + BLOBS_AT_ONCE]
            await asyncio.gather(*(self._move(claim, bucket, one, tally) for one in chunk))

    async def _move(self, claim: Claim, bucket: str, found: _Found, tally: _Tally) -> None:
        ref = found.ref
        try:
            moved = await move_blob(
                self._storage,
                claim,
                bucket,
                ref,
                found.target,
                reason="its bucket was given another profile",
                throttle=self._throttle,
            )
        except (Conflict, OutcomeUnknown):
            tally.left += 1  # somebody else has changed the blob or its entry: next round
        except (NotPossibleNow, BlobUnreadable, ContentChanged, UnknownProfile) as reason:
            log.info("blob %s stays in %s: %s", ref.blob.hex(), ref.profile, reason)
            tally.left += 1
            tally.note = f"blob {ref.blob.hex()} of {ref.profile}: {reason}"
        else:
            tally.blobs += moved
            tally.bytes += ref.size if moved else 0
            tally.left += not moved
