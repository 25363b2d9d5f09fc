"""Names that shards do not say: those of versions that were renamed.

Shards are never written again, so that those of a renamed object say its former name. The commit of
a rename queues the new one (`naming/`). A worker writes it to the drives, as a blob without bytes
whose footer says all that the version is, and which names its content no longer has; a recovery
goes by the newest (`s3gw.rescue.catalog`). That blob has a reference of its own, which `names/`
keeps beside it.

**A note is of what was committed.** It is written from a version's record behind the commit that
made it, and published by a commit that is guarded by that record: a recovery that finds a note need
not ask whether the rename ever happened. A note whose own commit is lost is of a true name all the
same, and its blob an orphan, which goes like any other.

**It goes with its version.** When that is neither visible, noncurrent nor in the trash any more,
the worker drops the note, within an hour. Meanwhile it brings back nothing that a deleted object
would not: without content on the drives it names nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from s3gw.kv.interface import Item, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BucketRecord,
    ManifestRef,
    NameRecord,
    ObjectRecord,
    TrashRecord,
    decode,
)
from s3gw.metadata.store import Transaction, versioned
from s3gw.objects import footer, profiles, publish, references
from s3gw.objects.copy import StoredBytes
from s3gw.objects.ingest import Learned, ingest
from s3gw.objects.publish import Target
from s3gw.objects.storage import Storage

VERSIONS_PER_READ = 100


def queue(tx: Transaction, target: Target, record: ObjectRecord, former: str) -> None:
    """Have the name of a new version of `target` noted. `former` is the key that its content no
    longer has by the same commit, "" for none."""
    key = keys.naming(target.bucket_name, target.key, record.sequence)
    tx.put(key, NameRecord(record.content_id, former))


async def is_named(storage: Storage, bucket: str, key: str, sequence: int) -> bool:
    """Whether a version's name is noted, or is to be."""
    wanted = [keys.naming(bucket, key, sequence), keys.noted_name(bucket, key, sequence)]
    return any((await storage.store.kv.get_many(wanted)).items)


@dataclass(frozen=True, slots=True)
class Named:
    """An entry of `naming/` or `names/`, with its bucket, the note that there is of it, the version
    it is of (None: gone), and what is visible under its key."""

    item: Item
    name: NameRecord
    bucket_name: str
    key: str
    sequence: int
    bucket: Item | None
    noted: Item | None
    found: Item | None
    record: ObjectRecord | None
    visible: ObjectRecord | None


async def look(storage: Storage, item: Item) -> Named:
    """An entry, and what there is of its version, read at one revision."""
    bucket_name, key, sequence = keys.split_name(item.key)
    reading = await storage.store.kv.get_many(
        [
            keys.bucket(bucket_name),
            keys.object_(bucket_name, key),
            keys.version(bucket_name, key, sequence),
            keys.trashed(bucket_name, key, sequence),
            keys.noted_name(bucket_name, key, sequence),
        ]
    )
    bucket, visible, noncurrent, trashed, noted = reading.items
    shown = decode(ObjectRecord, visible.value) if visible is not None else None
    found, record = visible, shown
    if shown is None or shown.sequence != sequence:
        found, record = noncurrent, None
        if noncurrent is not None:
            record = decode(ObjectRecord, noncurrent.value)
        elif trashed is not None:
            found, record = trashed, decode(TrashRecord, trashed.value).record
    name = decode(NameRecord, item.value)
    return Named(item, name, bucket_name, key, sequence, bucket, noted, found, record, shown)


async def write(storage: Storage, named: Named) -> bool:
    """Note a name on the drives, and take its entry from the queue; one without a version, or noted
    before, is only taken from there (False). Raises Conflict when any of it was changed meanwhile,
    BlobUnreadable, S3Error, OutcomeUnknown."""
    tx = Transaction()
    tx.expect(named.item.key, named.item.revision)
    tx.delete(named.item.key)
    record, bucket = named.record, versioned(BucketRecord, named.bucket).record
    found = None if named.noted is not None else named.found
    if record is None or record.data is None or found is None or bucket is None:
        await storage.store.apply(tx)
        return False
    tx.expect(found.key, found.revision)
    former = await _former_names(storage, tx, named, bucket)
    key_copy = await storage.ring.key_copy(record.description.encryption)

    def footer_map(learned: Learned) -> bytes:
        return footer.describe(
            "name",
            named.bucket_name,
            named.key,
            store=storage.store.identity.store_id,
            size=record.size,
            etag=record.etag,
            modified_ms=record.modified_ms,
            owner=record.owner,
            checksums=record.checksums,
            description=record.description,
            versioning=bucket.versioning,
            key_copy=key_copy,
            sequence=named.sequence,
            content_id=record.content_id,
            former=former,
        )

    profile = await profiles.profile_of(storage, bucket, record.description.storage_class)
    ingested = await ingest(storage, profile, "", StoredBytes(b""), footer_map, most=0)
    placed = publish.Placed(ingested.written)
    await placed.settle(storage)
    holder = keys.name_holder(named.bucket_name, named.key, named.sequence)
    ref = publish.add_new_blob(storage, tx, "", placed, holder, profile=profile)
    key = keys.noted_name(named.bucket_name, named.key, named.sequence)
    tx.expect(key, 0)
    noted = msgspec.structs.replace(named.name, blob=ref, not_before_ms=0, attempts=0)
    tx.put(key, noted)
    tx.witness = key
    await storage.store.apply(tx)
    return True


async def _former_names(
    storage: Storage, tx: Transaction, named: Named, bucket: BucketRecord
) -> list[str]:
    """The keys that the content has no longer: of the one that this rename has left and the one
    that its shards say those under which no version has it. Where a bucket had versioning then, the
    old name keeps its version; it may also have got it since, or a copy has the content."""
    record = named.record
    assert record is not None
    data = record.data
    ref = data.blob if isinstance(data, ManifestRef) else data
    assert ref is not None
    said = footer.parse(await storage.blobs.footer_map(ref))
    former = {named.name.former, said.key if said.bucket == named.bucket_name else ""}
    return [
        key
        for key in sorted(former - {"", named.key})
        if not await _is_called(storage, tx, named.bucket_name, bucket, key, record.content_id)
    ]


async def _is_called(
    storage: Storage,
    tx: Transaction,
    bucket_name: str,
    bucket: BucketRecord,
    key: str,
    content_id: bytes,
) -> bool:
    """Whether a version of a key has this content, by a commit before `tx` takes effect."""
    visible_key = keys.object_(bucket_name, key)
    reading = await storage.store.kv.get_many([visible_key])
    (visible,) = reading.items
    tx.expect(visible_key, visible.revision if visible is not None else 0)
    if visible is not None and decode(ObjectRecord, visible.value).content_id == content_id:
        return True
    if not bucket.versioning:
        return False
    position = keys.versions_of(bucket_name, key)
    end = keys.after_prefix(position)
    tx.guards.append(NoneNewer(position, end, reading.revision))
    while True:
        page = await storage.store.scan_listed(
            position, end, limit=VERSIONS_PER_READ, revision=reading.revision
        )
        if any(decode(ObjectRecord, each.value).content_id == content_id for each in page.items):
            return True
        if not page.more:
            return False
        position = page.items[-1].key + b"\x00"


async def drop(storage: Storage, named: Named) -> None:
    """Let go of a note whose version is gone. When what is visible under its key has the same
    content, as after a copy onto itself, its name is queued. Raises Conflict, OutcomeUnknown."""
    tx = Transaction()
    tx.expect(named.item.key, named.item.revision)
    tx.delete(named.item.key)
    if named.name.blob is not None:
        holder = keys.name_holder(named.bucket_name, named.key, named.sequence)
        references.drop(storage, tx, "", named.name.blob, holder)
    visible = named.visible
    if visible is not None and visible.content_id == named.name.content_id:
        key = keys.naming(named.bucket_name, named.key, visible.sequence)
        tx.put(key, NameRecord(visible.content_id, named.name.former))
    await storage.store.apply(tx)
