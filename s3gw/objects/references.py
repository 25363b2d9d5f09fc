"""References: who holds a blob. They decide what may be collected; headers in shards do not.

A reference is written and removed in the commit that adds or drops it. Dropping one marks it with
its due time and queues it for the collector; it stays under the blob's prefix, so that the blob
is no orphan meanwhile. A published blob without references never gets one again.
"""

from __future__ import annotations

from s3gw import limits
from s3gw.cluster.topology import Topology
from s3gw.kv.interface import Empty, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Data,
    Garbage,
    ManifestRef,
    Reference,
    Repair,
    encode,
)
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage

URGENCY_REDUCED = 1
URGENCY_MISPLACED = 5


def key_of(topology: Topology, ref: BlobRef, holder: bytes) -> bytes:
    """The key of `holder`'s reference to a blob."""
    return keys.reference(
        ref.profile, topology.group_of(ref.profile, ref.blob).number, ref.blob, holder
    )


def add(storage: Storage, tx: Transaction, bucket: str, ref: BlobRef, holder: bytes) -> None:
    """Refer to a blob, and count the reference."""
    topology = storage.blobs.topology
    group = topology.group_of(ref.profile, ref.blob)
    tx.put(
        key_of(topology, ref, holder),
        Reference(ref.size, bucket, nodes=ref.nodes, scheme=ref.scheme),
    )
    tx.count(keys.count(ref.profile, group.number, bucket), 1, ref.size)


def drop(storage: Storage, tx: Transaction, bucket: str, ref: BlobRef, holder: bytes) -> None:
    """Mark a reference dropped and queue it. The collector takes it from the count."""
    due_ms = storage.clock_ms() + storage.garbage_after_ms
    key = key_of(storage.blobs.topology, ref, holder)
    tx.put(key, Reference(ref.size, bucket, due_ms, ref.nodes, ref.scheme))
    tx.put(keys.garbage(due_ms, ref.blob, holder), Garbage(reference=key, bucket=bucket))


async def is_held(storage: Storage, reference_key: bytes) -> bool:
    """Whether the holder of a reference that is not dropped is still one itself.

    A manifest is by its versions: the reference to its own blob is made in the commit of the first
    one, and another takes the manifest over only from one that has it. With none left it can only
    be collected."""
    holder = keys.split_reference(reference_key)[3]
    if holder[:1] != b"m":
        return True
    start = keys.manifest_holders(holder[1:])
    end = keys.after_prefix(start)
    while True:
        page = await storage.store.kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
        if any(not version.value for version in page.items):  # a dropped one has its due time
            return True
        if not page.more:
            return False
        start = page.items[-1].key + b"\x00"


def guard_placement(storage: Storage, tx: Transaction, ref: BlobRef) -> None:
    """Guard the first publication of a blob: its group is as it was placed by, or, for explicit
    nodes, no later layout is there that might not know them."""
    if ref.nodes:
        start = keys.layout(storage.layout_epoch() + 1)
        tx.guards.append(Empty(start, keys.after_prefix(keys.LAYOUTS)))
    else:
        group = storage.blobs.topology.group_of(ref.profile, ref.blob)
        tx.expect(group.key, group.revision)


def queue_repair(
    storage: Storage,
    tx: Transaction,
    ref: BlobRef,
    *,
    reduced: bool,
    target: str = "",
    bucket: str = "",
) -> None:
    """Queue an explicit blob: to be completed if shards are missing, and to be moved home. With a
    `target`: any blob, to be moved into that profile for a bucket."""
    group = storage.blobs.topology.group_of(ref.profile, ref.blob)
    urgency = URGENCY_REDUCED if reduced else URGENCY_MISPLACED
    reason = "shards missing since it was written" if reduced else "not on its group's slots"
    if target and not reduced:
        reason = "not in the profile of its bucket"
    key = keys.repair(urgency, ref.profile, group.number, ref.blob)
    record = Repair(
        ref.profile,
        group.number,
        ref.blob,
        reason,
        storage.clock_ms(),
        target=target,
        bucket=bucket,
    )
    tx.writes[key] = Put(key, encode(record))


def hold(storage: Storage, tx: Transaction, bucket: str, data: Data, holder: bytes) -> None:
    """Hold what a version is made of: a blob, or a manifest."""
    if isinstance(data, ManifestRef):
        key = keys.manifest_holder(data.manifest, holder)
        tx.writes[key] = Put(key, b"")
    else:
        add(storage, tx, bucket, data, holder)


def release(storage: Storage, tx: Transaction, bucket: str, data: Data, holder: bytes) -> None:
    """Drop what a version was made of."""
    if isinstance(data, ManifestRef):
        due_ms = storage.clock_ms() + storage.garbage_after_ms
        own = key_of(storage.blobs.topology, data.blob, keys.manifest_blob_holder(data.manifest))
        tx.put(keys.manifest_holder(data.manifest, holder), Reference(0, bucket, due_ms))
        entry = Garbage(reference=own, manifest=data.manifest, bucket=bucket)
        tx.put(keys.garbage(due_ms, data.manifest, holder), entry)
    else:
        drop(storage, tx, bucket, data, holder)


def queue_manifest(
    storage: Storage,
    tx: Transaction,
    bucket: str,
    manifest: bytes,
    holder: bytes,
    *,
    wait: bool = True,
) -> None:
    """Let the collector look at a manifest's parts: after the usual time, or at once."""
    due_ms = storage.clock_ms() + (storage.garbage_after_ms if wait else 0)
    tx.put(keys.garbage(due_ms, manifest, holder), Garbage(manifest=manifest, bucket=bucket))
