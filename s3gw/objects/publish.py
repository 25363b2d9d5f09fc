"""Publishing a version of an object: the one commit that makes it visible.

The commit is guarded by everything the decision rests on: the bucket's record, the key's record
and, for a new blob, its placement. When it loses, all of these are read again and the decision
is made again, preconditions included.

A blob that lies exactly on the present slots of its group is published by the group's record. Any
other names its nodes, and counts on them: should the layout have given one up since the blob was
written, that node's shard is rebuilt elsewhere first (`Placed`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import Profile
from s3gw.cluster.writer import NotWritten, Written
from s3gw.kv.interface import At, Conflict, Empty
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, BucketRecord, ObjectRecord, Usage
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects import profiles, references
from s3gw.objects.storage import Storage

SETTLE_ATTEMPTS_MAX = 4

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
    held = profiles.named_by(current.record.data) if current.record is not None else ()
    await profiles.know(storage, bucket.record.profile, *held)
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
    if old is None:
        # The key may have been created and deleted since it was read as absent: then this
        # sequence may be taken by what is a noncurrent version by now.
        newest = keys.versions_of(target.bucket_name, target.key)
        before = keys.version(target.bucket_name, target.key, sequence_of(storage, target) - 1)
        tx.guards.append(Empty(newest, before))
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


class Placed:
    """A durable blob on its way to its first publication. `written` is where it lies now; another
    blob of the same bytes may take its place."""

    def __init__(self, written: Written) -> None:
        self.written = written

    async def settle(self, storage: Storage) -> None:
        """Before each commit: make sure that every node that the reference is to name counts.
        Nothing may be awaited between this and reading what the commit is guarded by.

        Raises SlowDown when the shards cannot be had elsewhere.
        """
        for _ in range(SETTLE_ATTEMPTS_MAX):
            ref = settle_placement(storage, self.written)
            counting = tuple(node if _counts(storage, node) else "" for node in ref.nodes)
            if counting == ref.nodes:
                return
            missing = tuple(index for index, node in enumerate(counting) if not node)
            held = self.written
            try:
                footer_map = await storage.blobs.footer_map(ref)
                self.written = await storage.blobs.complete(
                    Written(ref, held.group, counting, held.scheme, missing), footer_map
                )
            except (BlobUnreadable, NotWritten) as error:
                raise errors.SlowDown(str(error), headers={"Retry-After": "1"}) from error
        raise errors.SlowDown("The layout changes all the time.", headers={"Retry-After": "1"})

    async def refresh(self, storage: Storage, conflict: Conflict) -> None:
        """After a lost commit: read the blob's placement group again, and, unless that cannot be
        why it was lost, the layout."""
        topology = storage.blobs.topology
        await topology.reread(topology.group_of(self.written.ref.profile, self.written.ref.blob))
        if not isinstance(conflict.guard, At):
            await storage.refresh_layout()


def _counts(storage: Storage, node_id: str) -> bool:
    node = storage.blobs.directory.get(node_id)
    return not node_id or (node is not None and node.counts)


def add_new_blob(
    storage: Storage,
    tx: Transaction,
    bucket: str,
    placed: Placed,
    holder: bytes,
    *,
    profile: Profile,
) -> BlobRef:
    """Refer to a settled blob for the first time; queue it if it is not as its profile wants it,
    or not in `profile`, which may have become another one since its bytes were written."""
    ref = settle_placement(storage, placed.written)
    references.add(storage, tx, bucket, ref, holder)
    references.guard_placement(storage, tx, ref)
    target = "" if ref.profile in (profile.name, profile.companion) else profile.name
    if ref.nodes or target:
        references.queue_repair(
            storage,
            tx,
            ref,
            reduced=bool(placed.written.missing),
            target=target,
            bucket=bucket if target else "",
        )
    return ref


async def publish(
    storage: Storage,
    target: Target,
    check: Check,
    build: Callable[[Transaction, Target], ObjectRecord],
    *,
    placed: Placed | None = None,
    lost: Callable[[Conflict], None] = lambda conflict: None,
) -> ObjectRecord:
    """Make what `build` returns the visible version of the key, if `check` allows it.

    `build` adds to the transaction what the version needs (references) and is called again with
    a fresh target after a lost commit; `lost` may raise to give up instead. Raises S3Error,
    OutcomeUnknown.
    """
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        check(target.visible)
        if placed is not None:
            await placed.settle(storage)
        tx = guarded(target)
        record = build(tx, target)
        replace(storage, tx, target, record)
        try:
            await storage.store.apply(tx)
        except Conflict as conflict:
            lost(conflict)
            if placed is not None:
                await placed.refresh(storage, conflict)
            target = await read_target(storage, target.bucket_name, target.key)
        else:
            return record
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
