"""Publishing a version of an object: the one commit that makes it visible.

The commit is guarded by everything the decision rests on: the bucket's record, the key's record
and, for a new blob, its placement. When it loses, all of these are read again and the decision
is made again, preconditions included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.cluster.writer import Written
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, BucketRecord, ObjectRecord, Usage
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects import references
from s3gw.objects.storage import Storage

Check = Callable[[ObjectRecord | None], None]
"""A precondition on the key's visible version; raises PreconditionFailed and the like."""


@dataclass(frozen=True, slots=True)
class Target:
    """A key and its bucket as read at one revision: what a decision is made on."""

    bucket_name: str
    key: str
    bucket: BucketRecord
    bucket_revision: int
    current: Versioned[ObjectRecord]
    revision: int

    @property
    def visible(self) -> ObjectRecord | None:
        record = self.current.record
        return None if record is None or record.marker else record


async def read_target(storage: Storage, bucket_name: str, key: str) -> Target:
    """Read bucket and key in one round trip. Raises NoSuchBucket."""
    reading = await storage.store.kv.get_many(
        [keys.bucket(bucket_name), keys.object_(bucket_name, key)]
    )
    bucket = versioned(BucketRecord, reading.items[0])
    if bucket.record is None:
        raise errors.NoSuchBucket(BucketName=bucket_name)
    current = versioned(ObjectRecord, reading.items[1])
    return Target(bucket_name, key, bucket.record, bucket.revision, current, reading.revision)


def sequence_of(storage: Storage, target: Target) -> int:
    """The sequence of a version decided on this reading."""
    return target.revision + storage.store.identity.sequence_offset


def no_check(current: ObjectRecord | None) -> None:
    """No precondition."""


def guarded(target: Target) -> Transaction:
    """A transaction that holds only while bucket and key are as read."""
    tx = Transaction()
    tx.expect(keys.bucket(target.bucket_name), target.bucket_revision)
    tx.expect(keys.object_(target.bucket_name, target.key), target.current.revision)
    return tx


def replace(storage: Storage, tx: Transaction, target: Target, record: ObjectRecord) -> None:
    """Write `record` as the key's visible version and let go of what it replaces."""
    object_key = keys.object_(target.bucket_name, target.key)
    storage.store.put_listed(tx, object_key, record)
    tx.witness = object_key
    usage = Usage(objects=1, bytes=record.size)
    old = target.current.record
    if old is not None:
        usage += Usage(objects=-1, bytes=-old.size)
        holder = keys.object_holder(target.bucket_name, target.key, old.sequence)
        if old.data is not None:
            references.release(storage, tx, target.bucket_name, old.data, holder)
    tx.use(target.bucket_name, usage)


def settle_placement(storage: Storage, written: Written) -> BlobRef:
    """The reference to publish for a blob, by its group's record as known now: plain if its
    shards lie exactly on the present slots, else with nodes and scheme."""
    ref = written.ref
    group = storage.blobs.topology.group_of(ref.profile, ref.blob)
    if written.nodes == group.nodes and written.scheme == group.profile.scheme:
        return BlobRef(ref.profile, ref.blob, ref.size, ref.crc64)
    return BlobRef(ref.profile, ref.blob, ref.size, ref.crc64, written.nodes, str(written.scheme))


def add_new_blob(
    storage: Storage, tx: Transaction, bucket: str, written: Written, holder: bytes
) -> BlobRef:
    """Refer to a blob for the first time; queue it if it is not as its profile wants it."""
    ref = settle_placement(storage, written)
    references.add(storage, tx, bucket, ref, holder)
    references.guard_placement(storage, tx, ref)
    if ref.nodes:
        references.queue_repair(storage, tx, ref, reduced=bool(written.missing))
    return ref


async def refresh_group(storage: Storage, written: Written) -> None:
    """After a lost commit: read the blob's placement group again."""
    await storage.blobs.topology.reread(
        storage.blobs.topology.group_of(written.ref.profile, written.ref.blob)
    )


async def publish(
    storage: Storage,
    target: Target,
    check: Check,
    build: Callable[[Transaction, Target], ObjectRecord],
    *,
    written: Written | None = None,
    lost: Callable[[Conflict], None] = lambda conflict: None,
) -> ObjectRecord:
    """Make what `build` returns the visible version of the key, if `check` allows it.

    `build` adds to the transaction what the version needs (references) and is called again with
    a fresh target after a lost commit; `lost` may raise to give up instead. Raises S3Error,
    OutcomeUnknown.
    """
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        check(target.visible)
        tx = guarded(target)
        record = build(tx, target)
        replace(storage, tx, target, record)
        try:
            await storage.store.apply(tx)
        except Conflict as conflict:
            lost(conflict)
            if written is not None:
                await refresh_group(storage, written)
            target = await read_target(storage, target.bucket_name, target.key)
        else:
            return record
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
