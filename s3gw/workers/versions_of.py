"""The versions that hold something, by the names of their references.

A manifest's own blob is held by the manifest, and named by each version that is made of it. While
the blob is moved to a copy, some versions name the one and some the other, and the manifest holds
both. Whoever goes then drops the reference to the one that it named; what is left of the other is
dropped here.
"""

from __future__ import annotations

from s3gw.kv.interface import Item, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, ManifestRef, ObjectRecord, TrashRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim, commit
from s3gw.workers.manifests import drop_now

ITEMS_PER_READ = 1000


async def version_items(
    storage: Storage, bucket: str, key: str, sequence: int
) -> list[tuple[Item, ObjectRecord, TrashRecord | None]]:
    """The records that may be this version, visible, noncurrent or in the trash: what is stored,
    the version in it, and what it is in the trash."""
    reading = await storage.store.kv.get_many(
        [
            keys.object_(bucket, key),
            keys.version(bucket, key, sequence),
            keys.trashed(bucket, key, sequence),
        ]
    )
    *plain, trashed = reading.items
    found: list[tuple[Item, ObjectRecord, TrashRecord | None]] = [
        (item, decode(ObjectRecord, item.value), None) for item in plain if item is not None
    ]
    if trashed is not None:
        entry = decode(TrashRecord, trashed.value)
        found.append((trashed, entry.record, entry))
    return [one for one in found if one[1].sequence == sequence]


async def drop_unnamed(storage: Storage, claim: Claim, ref: BlobRef) -> None:
    """Drop manifests' references to their own blob, if it is this one and no version names it.
    Raises Conflict, OutcomeUnknown."""
    group = storage.blobs.topology.group_of(ref.profile, ref.blob)
    prefix = keys.blob(ref.profile, group.number, ref.blob) + b"m"
    page = await storage.store.kv.scan(prefix, keys.after_prefix(prefix), limit=ITEMS_PER_READ)
    for item in page.items:
        nobody = await _nobody_names(storage, keys.split_reference(item.key)[3][1:], ref.blob)
        tx = Transaction()
        if nobody is not None and drop_now(storage, tx, item):
            tx.guards.append(nobody)
            await commit(storage.store, claim, tx)


async def _nobody_names(storage: Storage, manifest: bytes, blob: bytes) -> NoneNewer | None:
    """The guard of that no version of a manifest names a blob as the manifest's own; None when one
    does. Where none does, only a copy made of one that did could be another."""
    prefix = keys.manifest_holders(manifest)
    position, end, revision = prefix, keys.after_prefix(prefix), None
    while True:
        page = await storage.store.kv.scan(position, end, limit=ITEMS_PER_READ, revision=revision)
        for held in (item for item in page.items if not item.value):
            version = keys.split_object_holder(held.key[len(prefix) :])
            for _, record, _ in await version_items(storage, *version):
                if isinstance(record.data, ManifestRef) and record.data.blob.blob == blob:
                    return None
        if not page.more:
            return NoneNewer(prefix, end, page.revision)
        position, revision = page.items[-1].key + b"\x00", page.revision
