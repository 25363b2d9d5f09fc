"""Metadata made anew in an empty engine: from a base found on the drives, and from shards.

1. A mark is written, guarded by the whole engine being empty: metadata that is there is never
   overwritten, and two recoveries cannot mix. Until the `store` record, which is written last,
   nothing takes the result for a store.
2. Profiles, layouts and groups (s3gw.rescue.groups), then every row of the base, with fences for
   the new secret. Its counters, references and queues are taken over as they are; only where a
   blob lies may be written otherwise, and what has been written anew as another blob since then
   is referred to as that (s3gw.rescue.moved).
3. What the base does not know is published from shards by the same code as any write
   (s3gw.rescue.adopt), so that references, counters, fences and garbage are what they would be.
4. The `store` record: the next incarnation, new secrets, and an offset above every sequence that
   can have been given out.

The mark stays and holds back the removal of orphans until an operator has confirmed the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from s3gw import limits
from s3gw.buckets import lifecycle
from s3gw.cluster.blobs import BlobStore
from s3gw.cluster.directory import Directory
from s3gw.cluster.topology import Topology
from s3gw.kv.interface import KV, At, Conflict, Delete, Empty, Guard, Put, Write
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.lifecycle_records import LifecycleJob
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Data,
    Garbage,
    ManifestPage,
    ManifestRef,
    NameRecord,
    ObjectRecord,
    PartRecord,
    Reference,
    Repair,
    RestoredRecord,
    SnapshotRecord,
    StoreRecord,
    TrashRecord,
    decode,
    encode,
)
from s3gw.metadata.sequences import moment_of
from s3gw.metadata.store import Store
from s3gw.objects.references import URGENCY_MISPLACED
from s3gw.objects.storage import Storage
from s3gw.rescue.catalog import Catalog
from s3gw.rescue.drives import RescueError
from s3gw.rescue.groups import Groups, layouts_of, profiles_of
from s3gw.rescue.moved import Moved
from s3gw.rescue.sources import Base

WRITING = "writing"
HELD = "held"
MOMENTS_AHEAD = 2**32
# What a version found in shards replaces stays on the drives for so long: that version may never
# have been published, and an operator can still take the other one out.
REPLACED_KEPT_MS = 7 * 24 * 3600 * 1000
BATCH_WRITES = 100
BATCH_BYTES = limits.MIB
EVERYTHING = (b"\x00", b"\xff")
THREADS = 2

# Rows of the base that are not taken over: made anew, or of processes that are gone.
_LEFT_OUT = (
    keys.STORE,
    keys.RESTORED,
    keys.fence(b""),
    keys.PGS,
    keys.LAYOUTS,
    keys.PROFILES,
    keys.NODES,
    keys.DEPARTURES,
    keys.LIFECYCLES,
    keys.INVENTORIES,
    keys.PINS,
    keys.ALARMS,
    b"lock/",
    b"cursor/",
    b"process/",
    b"progress/",
    b"reading/",
    b"slots/",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an operator should look at. `kind`:

    lost        a version of which too few shards are on these drives
    gone        a version of the base whose bytes are not there, in no blob: deleted since then, or
                lost
    older       a version that is not the newest of its key, and was left out or replaced
    uncertain   nothing says whether it was ever published, or is deleted since
    upload      parts of an upload that was never completed, left out
    refused     a name that no object or bucket can have
    outlier     shards that say other than the rest of their blob or profile, or another store's
    """

    kind: str
    bucket: str
    key: str
    text: str


@dataclass(slots=True)
class Report:
    """What was done. `findings` counts by kind, `moved` the blobs of the base that were found as
    another blob."""

    source: str = ""
    source_revision: int = 0
    incarnation: int = 0
    rows: int = 0
    buckets: int = 0
    objects: int = 0
    moved: int = 0
    findings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make. `weights` are those of drives that no layout knows, `region` and `pg_count`
    serve where nothing found says otherwise; with `add_newer` what the base does not know is taken
    from shards."""

    store_id: str
    region: str
    pg_count: int
    now_ms: int
    add_newer: bool = True
    weights: dict[str, int] = field(default_factory=dict)


class Rebuild:
    """One recovery into `kv`. `found` is told of every finding as it comes."""

    def __init__(
        self,
        kv: KV,
        catalog: Catalog,
        base: Base | None,
        plan: Plan,
        found: Callable[[Finding], None],
    ) -> None:
        self.kv = kv
        self.catalog = catalog
        self.base = base
        self.plan = plan
        self.report = Report()
        self._found = found
        self._batch: dict[bytes, Write] = {}
        self._batch_bytes = 0
        profiles = profiles_of(catalog, base, plan.pg_count)
        if not profiles:
            raise RescueError("neither shards nor metadata were found")
        self._layouts = layouts_of(catalog, base, profiles, plan.weights, plan.now_ms)
        self.groups = Groups(catalog, base, profiles, self._layouts[-1][1].nodes)
        self.moved = Moved(catalog, self.groups, base, plan.now_ms)
        self.identity = self._identity()
        for bucket, key, text in catalog.doubts():
            self.note("outlier", bucket, key, text)

    def note(self, kind: str, bucket: str, key: str, text: str) -> None:
        """Tell of a finding."""
        self.report.findings[kind] = self.report.findings.get(kind, 0) + 1
        self._found(Finding(kind, bucket, key, text))

    def _identity(self) -> StoreRecord:
        """The store's record, but for its offset."""
        base = self.base
        seen = max((drive.incarnation for drive in self.catalog.drives), default=0)
        created_ms = self.plan.now_ms
        if base is not None:
            seen = max(seen, base.incarnation)
            stored = base.rows.get(keys.STORE)
            created_ms = decode(StoreRecord, stored).created_ms if stored else created_ms
            self.report.source, self.report.source_revision = base.name, base.revision
        self.report.incarnation = seen + 1
        return StoreRecord(
            self.plan.store_id,
            created_ms,
            seen + 1,
            0,
            os.urandom(32),
            os.urandom(32),
            os.urandom(32),
        )

    async def begin(self) -> None:
        """Claim the engine and write what does not come from shards. Raises RescueError when it
        is not empty."""
        mark = self._mark(WRITING)
        try:
            await self.kv.commit([Empty(*EVERYTHING)], [Put(keys.RESTORED, encode(mark))])
        except Conflict:
            raise RescueError(await self._occupied()) from None
        for name, profile in self.groups.profiles.items():
            await self._put(keys.profile(name), encode(profile))
        for (name, number), record in self.groups.records.items():
            await self._put(keys.pg(name, number), encode(record))
        for epoch, layout in self._layouts:
            await self._put(keys.layout(epoch), encode(layout))
        if self.base is not None:
            await self._take_over(self.base)
        await self._flush()

    async def _take_over(self, base: Base) -> None:
        """Write the rows of the base."""
        self.moved.learn()
        self.report.moved = self.moved.blobs
        for key, value in base.scan():
            if not key.startswith(_LEFT_OUT):
                self.report.rows += 1
                for changed_key, changed in self._changed(key, value):
                    await self._put(changed_key, changed)
        for key, value in self.moved.counts():
            await self._put(key, value)

    async def _occupied(self) -> str:
        (mark,) = (await self.kv.get_many([keys.RESTORED])).items
        if mark is not None and decode(RestoredRecord, mark.value).state == WRITING:
            return "an interrupted recovery is in the metadata engine: empty it, and run this again"
        return "the metadata engine is not empty: nothing was changed"

    async def finish(self, highest: int) -> None:
        """Make a store of it. `highest` is the highest sequence of any version."""
        if self.base is not None:
            highest = max(highest, self.base.sequence)
        offset = moment_of(highest) + MOMENTS_AHEAD
        identity = msgspec.structs.replace(self.identity, sequence_offset=offset)
        guards: list[Guard] = [At(keys.STORE, 0)]
        writes: list[Write] = [
            Put(keys.STORE, encode(identity)),
            Put(keys.RESTORED, encode(self._mark(HELD))),
            Put(keys.GENERATION, os.urandom(8)),
        ]
        await self.kv.commit(guards, writes)

    def _mark(self, state: str) -> RestoredRecord:
        return RestoredRecord(
            state, self.plan.now_ms, self.identity.incarnation, self.report.source_revision
        )

    async def _put(self, key: bytes, value: bytes) -> None:
        self._batch[key] = Put(key, value)
        self._batch_bytes += len(key) + len(value)
        if len(self._batch) >= BATCH_WRITES or self._batch_bytes >= BATCH_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        writes, self._batch, self._batch_bytes = list(self._batch.values()), {}, 0
        if writes:
            await self.kv.commit([], writes)

    def _changed(self, key: bytes, value: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What becomes of a row of the base."""
        if key.startswith((keys.OBJECTS, keys.VERSIONS, keys.UPLOADS, keys.TRASH)):
            if key.startswith(keys.TRASH):
                entry = decode(TrashRecord, value)
                value = encode(msgspec.structs.replace(entry, record=self._object(entry.record)))
            elif not key.startswith(keys.UPLOADS):
                value = encode(self._object(decode(ObjectRecord, value)))
            if keys.carries_fence(key, self.identity.fence_secret):
                yield keys.fence(key), b""
        elif key.startswith(keys.BUCKETS):
            bucket = decode(BucketRecord, value)
            if lifecycle.NAME in bucket.documents:  # what shards add is to be looked at as well
                job = LifecycleJob(bucket.bucket_id, self.plan.now_ms)
                yield keys.lifecycle(key[len(keys.BUCKETS) :].decode()), encode(job)
        elif key.startswith((keys.COMPLETED, keys.RENAMED)):
            if keys.carries_fence(key, self.identity.fence_secret):
                yield keys.fence(key), b""
        elif key.startswith(b"part/"):
            value = encode(self._part(decode(PartRecord, value)))
        elif key.startswith(b"manifest/"):
            page = decode(ManifestPage, value)
            value = encode(ManifestPage(tuple(self._part(part) for part in page.parts)))
        elif key.startswith(keys.SNAPSHOTS):
            snapshot = decode(SnapshotRecord, value)
            value = encode(msgspec.structs.replace(snapshot, blob=self._ref(snapshot.blob)))
        elif key.startswith(keys.NAMES):
            name = decode(NameRecord, value)
            if name.blob is not None:
                blob, there = self.groups.located(name.blob)
                name = msgspec.structs.replace(name, blob=blob)
                if not there and self.catalog.drives:  # written anew as another blob, or lost
                    key = keys.NAMINGS + key[len(keys.NAMES) :]
                    name = msgspec.structs.replace(name, blob=None)
                value = encode(name)
        elif key.startswith(keys.GARBAGE):
            value = encode(self.moved.garbage(decode(Garbage, value)))
        elif key.startswith(keys.REPAIRS):
            repair = decode(Repair, value)
            if repair.copy is not None:
                value = encode(msgspec.structs.replace(repair, copy=self._ref(repair.copy)))
        elif key.startswith(keys.BLOBS):
            yield from self._reference(key, decode(Reference, value))
            return
        yield key, value

    def _ref(self, ref: BlobRef) -> BlobRef:
        return self.moved.now(ref) or self.groups.located(ref)[0]

    def _object(self, record: ObjectRecord) -> ObjectRecord:
        data: Data | None = record.data
        if isinstance(data, ManifestRef):
            data = msgspec.structs.replace(data, blob=self._ref(data.blob))
        elif data is not None:
            data = self._ref(data)
        return msgspec.structs.replace(record, data=data)

    def _part(self, part: PartRecord) -> PartRecord:
        return msgspec.structs.replace(part, blob=self._ref(part.blob))

    def _reference(self, key: bytes, reference: Reference) -> Iterator[tuple[bytes, bytes]]:
        """A reference, and a queue entry when its blob is found elsewhere than it says."""
        if self.moved.is_taken(key):
            return
        profile, pg, blob, holder = keys.split_reference(key)
        old = BlobRef(profile, blob, reference.size, 0, reference.nodes, reference.scheme)
        moved = None if reference.dropped_due_ms else self.moved.now(old)
        if moved is not None:
            yield from self.moved.reference(key, reference, moved)
            return
        new, there = self.groups.located(old)
        if not there and not reference.dropped_due_ms and self.catalog.drives:
            if holder[:1] == b"n":  # it is noted again
                self.moved.forget(key, reference)
                return
            self._note_gone(holder)
        if new != old:
            repair = Repair(profile, pg, blob, "not on its group's slots", self.plan.now_ms)
            yield keys.repair(URGENCY_MISPLACED, profile, pg, blob), encode(repair)
        changed = msgspec.structs.replace(reference, nodes=new.nodes, scheme=new.scheme)
        yield key, encode(changed)

    def _note_gone(self, holder: bytes) -> None:
        text = "its bytes are not on these drives: deleted since then, or lost"
        if holder[:1] == b"o":
            bucket, key, _ = keys.split_object_holder(holder)
            self.note("gone", bucket, key, text)
        elif holder[:1] == b"p":
            number = int.from_bytes(holder[17:], "big")
            self.note("gone", "", f"upload {holder[1:17].hex()} part {number}", text)

    async def storage(self) -> Storage:
        """What publishing needs, over what is written so far."""
        topology = Topology(self.kv)
        await topology.load()
        executor = ThreadPoolExecutor(THREADS, "rescue")
        blobs = BlobStore(topology, Directory(), executor, lambda ref, index, reason: None)
        return Storage(
            store=Store(self.kv, self.identity, Counters(self.kv)),
            blobs=blobs,
            executor=executor,
            garbage_after_ms=REPLACED_KEPT_MS,
            layout_epoch=lambda: self._layouts[-1][0],
            lease=lambda: 0,
            clock_ms=lambda: self.plan.now_ms,
        )


async def held_since(kv: KV) -> RestoredRecord | None:
    """The mark of a recovery that nobody has confirmed yet."""
    (item,) = (await kv.get_many([keys.RESTORED])).items
    return None if item is None else decode(RestoredRecord, item.value)


async def confirm(kv: KV) -> bool:
    """Accept the outcome of a recovery: blobs that nothing refers to may be removed again. False
    when there is none to confirm. Raises RescueError while one is going on."""
    (item,) = (await kv.get_many([keys.RESTORED])).items
    if item is None:
        return False
    if decode(RestoredRecord, item.value).state != HELD:
        raise RescueError("the recovery has not ended")
    await kv.commit([At(item.key, item.revision)], [Delete(item.key)])
    return True
