"""Moving a blob home: its stored bytes as a new blob, and every holder moved over.

A blob never changes its place or scheme. To give one that was written around lost nodes its
profile's scheme and its group's slots, its bytes are written as a new blob:

1. the new blob is published under a reference of the job's own, in one commit with the queue
   entry, which from then on names it: whoever goes on with the entry goes on with that blob;
2. each holder is moved by compare-and-swap: new reference in, guarded by the job's; old one
   dropped. A holder that changed meanwhile is looked at again;
3. when the old blob has no live reference left, the job's reference and the entry go.

An entry with a `target` moves a blob into another profile (`s3gw.workers.reprofile`) for objects
of one bucket. Objects of other buckets that share the blob keep it. Meanwhile a version may have
got a storage class that belongs to yet another profile: its bytes go on from here, by an entry for
the copy in the commit that moves it.

What holds a blob, and where that is written:

    o…   an object version: its own record, which may lie in the trash
    p…   a part: the part's record while the upload is open, a page of the manifest afterwards
    m…   a manifest: the record of every version that holds the manifest
    s…   a snapshot of the metadata: its record
    n…   the note of a version's name: its record
    j…   another job: waits for it to end

A part of an upload that is being completed is left alone until that has ended: who completes it
has read its parts. If that process is gone, the upload is given back first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from s3gw import errors, limits
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.topology import Group, Profile, Topology
from s3gw.cluster.writer import NotWritten, Written
from s3gw.kv.interface import Conflict, Item, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    ManifestPage,
    ManifestRef,
    NameRecord,
    ObjectRecord,
    PartRecord,
    Reference,
    Repair,
    SnapshotRecord,
    TrashRecord,
    UploadRecord,
    decode,
)
from s3gw.metadata.store import Transaction
from s3gw.objects import publish, references
from s3gw.objects.complete import PAGE_PARTS
from s3gw.objects.multipart import OPEN, find_upload, give_back, owner_lives
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim, commit
from s3gw.workers.damage import URGENCIES
from s3gw.workers.versions_of import drop_unnamed, version_items

ROUNDS_MAX = 4
REFERENCES_PER_READ = 1000


class NotPossibleNow(Exception):
    """No group of the profile has all its nodes, or nodes fail: to be tried again later."""


class ContentChanged(Exception):
    """The bytes read are not the bytes that were stored: nothing is replaced by them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A repair queue entry as read."""

    key: bytes
    revision: int
    record: Repair


async def live_references(
    storage: Storage, profile: str, pg: int, blob: bytes
) -> AsyncGenerator[tuple[Item, Reference], None]:
    """What holds a blob at one revision, page by page; references that wait for the collector alone
    do not."""
    prefix = keys.blob(profile, pg, blob)
    position, end, revision = prefix, keys.after_prefix(prefix), None
    while True:
        page = await storage.store.kv.scan(
            position, end, limit=REFERENCES_PER_READ, revision=revision
        )
        for item in page.items:
            reference = decode(Reference, item.value)
            if not reference.dropped_due_ms and await references.is_held(storage, item.key):
                yield item, reference
        if not page.more:
            return
        position, revision = page.items[-1].key + b"\x00", page.revision


async def first_holder(
    storage: Storage, record: Repair, *, concerned: bool = False
) -> Reference | None:
    """One of what holds an entry's blob now, or of what is `concerned` by it."""
    async with aclosing(
        live_references(storage, record.profile, record.pg, record.blob)
    ) as holders:
        async for item, reference in holders:
            if not concerned or _concerns(item, record):
                return reference
    return None


async def write_copy(storage: Storage, claim: Claim, entry: Entry, old: BlobRef) -> Entry:
    """Write a blob's bytes anew and publish them under the job's reference; the entry that names
    them. Raises NotPossibleNow, BlobUnreadable, Conflict, OutcomeUnknown."""
    profile = destination(storage.blobs.topology, old.profile, entry.record.target)
    holder = await first_holder(storage, entry.record, concerned=True)
    if holder is None:
        raise NotPossibleNow("nothing holds the blob any more")
    bucket = holder.bucket
    others = await _other_entries(storage, entry)
    found = await storage.store.get(BucketRecord, keys.bucket(bucket))
    written = await _write(storage, profile, old, found.record.placement if found.record else "")
    # By the group's record as it is known now, which the commit below is guarded by.
    new = publish.settle_placement(storage, written)
    if new.nodes:
        raise NotPossibleNow("the copy's placement group was moved while it was written")
    record = msgspec.structs.replace(entry.record, copy=new)
    tx = Transaction()
    tx.expect(entry.key, entry.revision)
    for key, revision in others.items():
        tx.expect(key, revision)
    tx.put(entry.key, record)
    tx.witness = entry.key
    references.add(storage, tx, bucket, new, keys.job_holder(old.blob))
    references.guard_placement(storage, tx, new)
    revision = await commit(storage.store, claim, tx)
    return Entry(entry.key, revision, record)


async def _other_entries(storage: Storage, entry: Entry) -> dict[bytes, int]:
    """Where else in the queue the blob may be, and as of which revision it is. Raises
    NotPossibleNow when it has a copy there: two copies of one blob would share its holders."""
    record = entry.record
    others = {
        keys.repair(urgency, record.profile, record.pg, record.blob): 0 for urgency in URGENCIES
    }
    del others[entry.key]
    for item in (await storage.store.kv.get_many(list(others))).items:
        if item is not None:
            if decode(Repair, item.value).copy is not None:
                raise NotPossibleNow("another entry of the queue moves the blob")
            others[item.key] = item.revision
    return others


def destination(topology: Topology, present: str, target: str) -> Profile:
    """The profile for a blob of profile `present` that is to go to `target` ("": to stay): a small
    blob's is the companion."""
    profile = topology.profile(present)
    if not target:
        return profile
    goal = topology.profile(target)
    return goal if profile.companion else topology.companion(goal)


def require_opening(storage: Storage, profile: Profile) -> None:
    """Raises NotPossibleNow unless a placement group of the profile has all its nodes: found out
    before anything is read, or waited for, for a copy that cannot be written."""
    usable = {node.id for node in storage.blobs.directory.usable_nodes()}
    groups = (storage.blobs.topology.group(profile, number) for number in range(profile.pg_count))
    if not any(usable.issuperset(group.nodes) for group in groups):
        raise NotPossibleNow(f"no placement group of {profile.name} has all its nodes")


def _concerns(item: Item, record: Repair) -> bool:
    """Whether a holder is to go over to the copy. For a profile change of one bucket, objects of
    other buckets that share the blob stay; what a manifest holds goes with it."""
    holder = keys.split_reference(item.key)[3]
    if not record.bucket or holder[:1] != b"o":
        return True
    return keys.split_object_holder(holder)[0] == record.bucket


async def _stripes(
    storage: Storage, old: BlobRef, stripe_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The bytes of a blob in stripes of another length."""
    held = bytearray()
    async for buffers in storage.blobs.read(old, 0, old.size, window_stripes=1):
        for buffer in buffers:
            held += buffer
        while len(held) >= stripe_bytes:
            yield bytes(memoryview(held)[:stripe_bytes])
            del held[:stripe_bytes]
    if held:
        yield bytes(held)


async def write_anew(storage: Storage, old: BlobRef, profile: Profile, placement: str) -> Written:
    """A blob's bytes as another one, not published yet, in `profile` or, if it is small, in its
    companion. Raises NotPossibleNow, BlobUnreadable."""
    goal = destination(storage.blobs.topology, old.profile, profile.name)
    return await _write(storage, goal, old, placement)


async def _write(storage: Storage, profile: Profile, old: BlobRef, placement: str) -> Written:
    def not_whole(group: Group) -> bool:
        return not all(storage.blobs.directory.usable(node) for node in group.nodes)

    blob, group = storage.blobs.draw(profile, not_whole, placement=placement)
    if not_whole(group):
        raise NotPossibleNow("no placement group has all its nodes")
    footer_map = await storage.blobs.footer_map(old)
    try:
        writer = storage.blobs.open_writer(blob, group)
        try:
            async with aclosing(_stripes(storage, old, profile.stripe_bytes)) as stripes:
                async for stripe in stripes:
                    await writer.write(stripe)
            written = await writer.finish(footer_map)
        except BaseException:
            await writer.abort()
            raise
    except (NotWritten, TooFewNodes) as error:
        raise NotPossibleNow(str(error)) from error
    if written.ref.nodes or written.missing:
        raise NotPossibleNow("a node failed while the copy was written")
    if written.ref.size != old.size:
        raise BlobUnreadable(f"{written.ref.size} of {old.size} bytes could be read")
    return written


async def _pages_of(storage: Storage, upload_id: bytes, number: int) -> AsyncGenerator[Item, None]:
    """The pages of a manifest, first the one where a part is when no number before it was left out.
    An object may have many parts, and each of them is looked for when it is moved."""
    likely = keys.manifest_page(upload_id, (number - 1) // PAGE_PARTS)
    (item,) = (await storage.store.kv.get_many([likely])).items
    if item is not None:
        yield item
    prefix = keys.manifest(upload_id)
    page = await storage.store.kv.scan(
        prefix, keys.after_prefix(prefix), limit=limits.SCAN_ITEMS_MAX
    )
    for other in page.items:
        if other.key != likely:
            yield other


class Swap:
    """Moves the holders of one blob to its copy. `old` need not know its checksum. With `follows`
    the copy is queued for the profile that their storage class belongs to, should that be yet
    another one; without, the class is about to change."""

    def __init__(
        self,
        storage: Storage,
        claim: Claim,
        entry: Entry,
        old: BlobRef,
        *,
        follows: bool = True,
    ) -> None:
        assert entry.record.copy is not None
        self._storage = storage
        self._claim = claim
        self._entry = entry
        self._old = old
        self._new = entry.record.copy
        self._follows = follows and bool(entry.record.target)
        self._job_key = references.key_of(
            storage.blobs.topology, self._new, keys.job_holder(old.blob)
        )
        self._job_revision = 0
        self._bucket = ""

    async def run(self) -> bool:
        """Move all holders; False when some must wait. Raises ContentChanged, OutcomeUnknown."""
        job = await self._storage.store.get(Reference, self._job_key)
        if job.record is None or job.record.dropped_due_ms:
            raise ContentChanged("the copy has lost its reference")
        self._job_revision, self._bucket = job.revision, job.record.bucket
        record = self._entry.record
        for _ in range(ROUNDS_MAX):
            found = stays = False
            live = live_references(self._storage, self._old.profile, record.pg, self._old.blob)
            async with aclosing(live) as holders:
                async for item, reference in holders:
                    if _concerns(item, record):
                        found = True
                        await self._move(item, reference)
                    else:
                        stays |= bool(reference.nodes or record.lost)
            if not found:
                return await self._finish(stays=stays)
        return False

    async def _finish(self, *, stays: bool) -> bool:
        """End the job. With `stays` other holders keep the blob, which is not at home or has lost
        shards: it is in the queue for that."""
        record = self._entry.record
        tx = Transaction()
        tx.expect(self._entry.key, self._entry.revision)
        tx.expect(self._job_key, self._job_revision)
        if stays:
            kept = msgspec.structs.replace(
                record, not_before_ms=0, attempts=0, copy=None, target="", bucket=""
            )
            tx.put(self._entry.key, kept)
        else:
            tx.delete(self._entry.key)
        job_holder = keys.job_holder(self._old.blob)
        references.drop(self._storage, tx, self._bucket, self._new, job_holder)
        await drop_unnamed(self._storage, self._claim, self._old)
        await drop_unnamed(self._storage, self._claim, self._new)
        await commit(self._storage.store, self._claim, tx)
        return True

    async def _move(self, item: Item, reference: Reference) -> None:
        """Move one holder, if it is as it was read."""
        holder = keys.split_reference(item.key)[3]
        try:
            if holder[:1] == b"o":
                await self._move_version(holder, reference)
            elif holder[:1] == b"p":
                await self._move_part(holder, reference)
            elif holder[:1] == b"m":
                await self._move_manifest(item, holder, reference)
            elif holder[:1] == b"s":
                await self._move_snapshot(holder, reference)
            elif holder[:1] == b"n":
                await self._move_name(holder, reference)
        except Conflict:
            return  # the next round sees what it has become

    def _transaction(self) -> Transaction:
        tx = Transaction()
        tx.expect(self._job_key, self._job_revision)
        return tx

    def _pass_on(self, tx: Transaction, holder: bytes, reference: Reference) -> None:
        """New reference in, old one dropped."""
        references.add(self._storage, tx, reference.bucket, self._new, holder)
        self._let_go(tx, holder, reference)

    def _let_go(self, tx: Transaction, holder: bytes, reference: Reference) -> None:
        """Drop a holder's reference to the old blob."""
        old = msgspec.structs.replace(
            self._old, nodes=reference.nodes, scheme=reference.scheme, size=reference.size
        )
        references.drop(self._storage, tx, reference.bucket, old, holder)

    def _replaces(self, held: BlobRef) -> bool:
        """Whether a holder's reference is to the old blob. Raises ContentChanged."""
        if held.blob != self._old.blob:
            return False
        if (held.crc64, held.size) != (self._new.crc64, self._new.size):
            raise ContentChanged(f"blob {held.blob.hex()} is not what was stored")
        return True

    def _rewrite(
        self, tx: Transaction, item: Item, record: ObjectRecord, entry: TrashRecord | None
    ) -> None:
        """Write a version's record where it lies."""
        tx.expect(item.key, item.revision)
        stored = record if entry is None else msgspec.structs.replace(entry, record=record)
        self._storage.store.put_listed(tx, item.key, stored)
        tx.witness = item.key

    async def _move_version(self, holder: bytes, reference: Reference) -> None:
        bucket, key, sequence = keys.split_object_holder(holder)
        for item, record, entry in await version_items(self._storage, bucket, key, sequence):
            if isinstance(record.data, BlobRef) and self._replaces(record.data):
                tx = self._transaction()
                moved = msgspec.structs.replace(record, data=self._new)
                self._rewrite(tx, item, moved, entry)
                self._pass_on(tx, holder, reference)
                await self._follow_class(tx, bucket, record)
                await commit(self._storage.store, self._claim, tx)
                return

    async def _follow_class(self, tx: Transaction, bucket: str, record: ObjectRecord) -> None:
        """Queue the copy when the version's class belongs to another profile than it is in. An
        entry that is there with a target stays: its move may be under way."""
        topology, new = self._storage.blobs.topology, self._new
        wanted = topology.of_class(record.description.storage_class)
        if not self._follows or wanted is None or new.profile in (wanted.name, wanted.companion):
            return
        number = topology.group_of(new.profile, new.blob).number
        key = keys.repair(references.URGENCY_MISPLACED, new.profile, number, new.blob)
        queued = await self._storage.store.get(Repair, key)
        tx.expect(key, queued.revision)
        if queued.record is None:
            references.queue_repair(
                self._storage, tx, new, reduced=False, target=wanted.name, bucket=bucket
            )
        elif not (queued.record.copy or queued.record.target):
            tx.put(key, msgspec.structs.replace(queued.record, target=wanted.name, bucket=bucket))

    async def _follow_class_of_parts(self, tx: Transaction, manifest: bytes) -> None:
        """The same for a part, by the first version that holds it. Those that are gone may be many
        until the collector has been there."""
        topology = self._storage.blobs.topology
        if not any(profile.storage_classes for profile in topology.profiles()):
            return
        prefix = keys.manifest_holders(manifest)
        position, end, more = prefix, keys.after_prefix(prefix), True
        while more:
            page = await self._storage.store.kv.scan(position, end, limit=REFERENCES_PER_READ)
            for held in (item for item in page.items if not item.value):
                bucket, key, sequence = keys.split_object_holder(held.key[len(prefix) :])
                for item, record, _ in await version_items(self._storage, bucket, key, sequence):
                    tx.expect(item.key, item.revision)
                    await self._follow_class(tx, bucket, record)
                    return
            more = page.more
            if more:
                position = page.items[-1].key + b"\x00"

    async def _move_part(self, holder: bytes, reference: Reference) -> None:
        upload_id, number = holder[1:17], int.from_bytes(holder[17:], "big")
        part = await self._storage.store.get(PartRecord, keys.part(upload_id, number))
        key = await self._upload_key(reference.bucket, upload_id, part.record)
        upload = await self._storage.store.get(UploadRecord, key)
        if upload.record is None:
            await self._move_listed_part(upload_id, number, holder, reference)
            return
        if upload.record.state != OPEN:
            await self._free_upload(key)
            return
        if part.record is None:
            return
        if self._replaces(part.record.blob):
            tx = self._transaction()
            tx.expect(key, upload.revision)
            part_key = keys.part(upload_id, number)
            tx.expect(part_key, part.revision)
            tx.put(part_key, msgspec.structs.replace(part.record, blob=self._new))
            tx.witness = part_key
            self._pass_on(tx, holder, reference)
            await commit(self._storage.store, self._claim, tx)

    async def _free_upload(self, key: bytes) -> None:
        """Give an upload back whose completion has died, so that the next round moves its part. A
        record that is changed meanwhile (its key is wrapped anew) is looked at again."""
        bucket, object_key, upload_id = keys.split_upload(key)
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            try:
                upload = await find_upload(self._storage, bucket, object_key, upload_id)
                if upload.record.state == OPEN or await owner_lives(self._storage, upload.record):
                    return
                await give_back(self._storage, upload)
            except Conflict:
                continue
            except errors.S3Error:
                return  # completed or aborted meanwhile: the next round sees that
            return

    async def _move_name(self, holder: bytes, reference: Reference) -> None:
        key = keys.NAMES + holder[1:]
        name = await self._storage.store.get(NameRecord, key)
        held = name.record.blob if name.record is not None else None
        if name.record is not None and held is not None and self._replaces(held):
            tx = self._transaction()
            tx.expect(key, name.revision)
            tx.put(key, msgspec.structs.replace(name.record, blob=self._new))
            tx.witness = key
            self._pass_on(tx, holder, reference)
            await commit(self._storage.store, self._claim, tx)

    async def _move_snapshot(self, holder: bytes, reference: Reference) -> None:
        key = keys.SNAPSHOTS + holder[1:]
        snapshot = await self._storage.store.get(SnapshotRecord, key)
        if snapshot.record is not None and self._replaces(snapshot.record.blob):
            tx = self._transaction()
            tx.expect(key, snapshot.revision)
            tx.put(key, msgspec.structs.replace(snapshot.record, blob=self._new))
            tx.witness = key
            self._pass_on(tx, holder, reference)
            await commit(self._storage.store, self._claim, tx)

    async def _upload_key(self, bucket: str, upload_id: bytes, part: PartRecord | None) -> bytes:
        """The key of a part's upload. Its object's key is in the footer of the part's shards, or,
        where these were written for another object, in the part's record."""
        if part is not None and part.object_key:
            return keys.upload(bucket, part.object_key, upload_id)
        footer = msgspec.msgpack.decode(await self._storage.blobs.footer_map(self._new))
        return keys.upload(bucket, str(footer["key"]), upload_id)

    async def _move_listed_part(
        self, upload_id: bytes, number: int, holder: bytes, reference: Reference
    ) -> None:
        """A part of a completed upload: its row in the manifest's pages. Those of this process who
        move other parts of it write the same page: each waits for its turn."""
        async with (
            self._storage.turns.lock(keys.manifest(upload_id)),
            aclosing(_pages_of(self._storage, upload_id, number)) as pages,
        ):
            async for item in pages:
                parts = decode(ManifestPage, item.value).parts
                row = next((r for r, part in enumerate(parts) if part.number == number), -1)
                if row >= 0:
                    await self._move_row(item, parts, row, upload_id, holder, reference)
                    return

    async def _move_row(
        self,
        item: Item,
        parts: Sequence[PartRecord],
        row: int,
        upload_id: bytes,
        holder: bytes,
        reference: Reference,
    ) -> None:
        """Move one part in its page, if it is as it was read."""
        if not self._replaces(parts[row].blob):
            return
        moved = msgspec.structs.replace(parts[row], blob=self._new)
        tx = self._transaction()
        tx.expect(item.key, item.revision)
        tx.put(item.key, ManifestPage((*parts[:row], moved, *parts[row + 1 :])))
        tx.witness = item.key
        self._pass_on(tx, holder, reference)
        if self._follows:
            await self._follow_class_of_parts(tx, upload_id)
        await commit(self._storage.store, self._claim, tx)

    async def _move_manifest(self, item: Item, holder: bytes, reference: Reference) -> None:
        """A manifest's own blob: the new reference, then every version that holds the manifest,
        then, if none came meanwhile, the old reference goes. Without a version nothing is moved:
        the manifest is being freed."""
        prefix = keys.manifest_holders(holder[1:])
        end = keys.after_prefix(prefix)
        page = await self._storage.store.kv.scan(prefix, end, limit=limits.SCAN_ITEMS_MAX)
        versions = [held for held in page.items if not held.value]
        if not versions or page.more:
            return  # more versions than one look can guard: the blob stays where it is
        new_key = references.key_of(self._storage.blobs.topology, self._new, holder)
        new = await self._storage.store.get(Reference, new_key)
        # Where the copy is moved as well, that may have let go of what nobody named yet.
        if new.record is None or new.record.dropped_due_ms:
            tx = self._transaction()
            tx.expect(item.key, item.revision)
            tx.expect(new_key, new.revision)
            tx.expect(versions[0].key, versions[0].revision)
            references.add(self._storage, tx, reference.bucket, self._new, holder)
            tx.witness = new_key
            revision = await commit(self._storage.store, self._claim, tx)
        else:
            revision = new.revision
        for held in versions:
            await self._move_manifest_of(held.key[len(prefix) :])
        tx = self._transaction()
        tx.expect(item.key, item.revision)
        tx.expect(new_key, revision)
        tx.guards.append(NoneNewer(prefix, end, page.revision))
        self._let_go(tx, holder, reference)
        await commit(self._storage.store, self._claim, tx)

    async def _move_manifest_of(self, version: bytes) -> None:
        bucket, key, sequence = keys.split_object_holder(version)
        for item, record, entry in await version_items(self._storage, bucket, key, sequence):
            data = record.data
            if isinstance(data, ManifestRef) and self._replaces(data.blob):
                tx = self._transaction()
                moved = msgspec.structs.replace(
                    record, data=msgspec.structs.replace(data, blob=self._new)
                )
                self._rewrite(tx, item, moved, entry)
                await self._follow_class(tx, bucket, record)
                await commit(self._storage.store, self._claim, tx)
