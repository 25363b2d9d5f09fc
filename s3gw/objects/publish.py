"""Publishing a version of an object: the one commit that makes it visible.

The commit is guarded by everything the decision rests on: the bucket's record, the key's record
and, for a new blob, its placement. When it loses, all of these are read again and the decision
is made again, authorization and preconditions included.

The newest version of a key is in `object/`, unless it is a delete marker: then, and only then, the
key has no record in `object/` and the newest in `version/` is that marker. So a listing meets no
markers, and whoever finds no visible version reads one more record. What a new version leaves
behind goes to `version/` in the same commit: with versioning, what was visible; a null version,
which is what a bucket without versioning and one with suspended versioning get, takes the place
of the null version, wherever it is. The newest record of a key names the sequence of the null
version, which may be gone: every record newer than a null version was made when it or one that
names it was the newest.

A blob that lies exactly on the present slots of its group is published by the group's record. Any
other names its nodes, and counts on them: should the layout have given one up since the blob was
written, that node's shard is rebuilt elsewhere first (`Placed`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from s3gw import errors, limits
from s3gw.buckets import lock as lock_rules
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import Profile
from s3gw.cluster.writer import NotWritten, Written
from s3gw.kv.interface import At, Conflict, Empty, Item, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Description,
    Lock,
    ObjectRecord,
    Usage,
    decode,
)
from s3gw.metadata.sequences import sequence_at
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects import lifecycle, profiles, references, trash
from s3gw.objects.storage import Storage
from s3gw.wire.version_ids import NULL, NULL_VERSION, encode_version_id

ENABLED, SUSPENDED = "Enabled", "Suspended"
SETTLE_ATTEMPTS_MAX = 4


@dataclass(frozen=True, slots=True)
class Found:
    """A version, and the key and revision of its record."""

    key: bytes
    record: ObjectRecord
    revision: int


@dataclass(frozen=True, slots=True)
class Target:
    """A key and its bucket as read at one revision: what a decision is made on.

    `asked` is the sequence of the version that a request names (NULL_VERSION for the null
    version), None for none. `noncurrent` has, by sequence, what was read in `version/`: the version
    asked for; without a visible version the newest, whose sequence is `newest` (else 0); and the
    null version, where a write would replace it. `drawn` tells a version decided on this reading
    from others decided at the same revision (`s3gw.metadata.sequences`).
    """

    bucket_name: str
    key: str
    bucket: BucketRecord
    bucket_revision: int
    current: Versioned[ObjectRecord]
    revision: int
    drawn: int
    asked: int | None = None
    newest: int = 0
    noncurrent: Mapping[int, Found] = field(default_factory=dict)

    @property
    def visible(self) -> ObjectRecord | None:
        return self.current.record

    @property
    def latest(self) -> ObjectRecord | None:
        """The newest version: the visible one, or a delete marker."""
        if self.current.record is not None or not self.newest:
            return self.current.record
        return self.noncurrent[self.newest].record

    @property
    def null_sequence(self) -> int:
        """The sequence of the null version, which may be gone; 0 for none."""
        latest = self.latest
        if latest is None:
            return 0
        return latest.sequence if latest.null_version else latest.null_sequence

    @property
    def shown(self) -> ObjectRecord | None:
        """The record of the version asked for; None also for a delete marker."""
        found = self.found
        return None if found is None or found.record.marker else found.record

    @property
    def found(self) -> Found | None:
        """The version asked for; when none was, the visible one."""
        visible = self.current.record
        sequence = self.null_sequence if self.asked == NULL_VERSION else self.asked
        if visible is not None and sequence in (None, visible.sequence):
            key = keys.object_(self.bucket_name, self.key)
            return Found(key, visible, self.current.revision)
        return None if sequence is None else self.noncurrent.get(sequence)


Check = Callable[[Target], None]
"""Whether a change may be made to a key as it was read for the commit: raises AccessDenied where
its caller may not make it any more, PreconditionFailed and the like. Called for every reading."""


async def read_target(
    storage: Storage, bucket_name: str, key: str, asked: int | None = None
) -> Target:
    """Read bucket and key, and the version `asked` for, in one round trip; where there is no
    visible version, or the null version matters, in two or three. Raises NoSuchBucket."""
    wanted = [keys.bucket(bucket_name), keys.object_(bucket_name, key)]
    if asked:
        wanted.append(keys.version(bucket_name, key, asked))
    reading = await storage.store.kv.get_many(wanted)
    bucket = versioned(BucketRecord, reading.items[0])
    if bucket.record is None:
        raise errors.NoSuchBucket(BucketName=bucket_name)
    current = versioned(ObjectRecord, reading.items[1])
    target = Target(
        bucket_name,
        key,
        bucket.record,
        bucket.revision,
        current,
        reading.revision,
        next(storage.draws),
        asked,
    )
    if bucket.record.versioning:
        named = reading.items[2] if asked else None
        target = await _with_versions(storage, target, named)
    records = [found.record for found in target.noncurrent.values()]
    if current.record is not None:
        records.append(current.record)
    held = [name for record in records for name in profiles.named_by(record.data)]
    await profiles.know(storage, bucket.record.profile, *held)
    return target


async def _with_versions(storage: Storage, target: Target, named: Item | None) -> Target:
    """The target with what matters of `version/`, at the same revision."""
    store, revision = storage.store, target.revision
    noncurrent: dict[int, Found] = {}

    def note(items: Sequence[Item]) -> int:
        for item in items:
            record = decode(ObjectRecord, item.value)
            noncurrent[record.sequence] = Found(item.key, record, item.revision)
            return record.sequence
        return 0

    note([named] if named is not None else [])
    newest = 0
    if target.current.record is None:
        first = keys.versions_of(target.bucket_name, target.key)
        end = keys.after_prefix(first)
        newest = note((await store.scan_listed(first, end, limit=1, revision=revision)).items)
    target = dataclasses.replace(target, newest=newest, noncurrent=noncurrent)
    null, latest = target.null_sequence, target.latest
    matters = target.asked == NULL_VERSION or target.bucket.versioning == SUSPENDED
    if matters and latest is not None and null not in (0, latest.sequence):
        key = keys.version(target.bucket_name, target.key, null)
        note((await store.kv.scan(key, key + b"\x00", limit=1, revision=revision)).items)
    return target


def sequence_of(storage: Storage, target: Target) -> int:
    """The sequence of a version decided on this reading: that in the footers of a request, and that
    of what it publishes unless it has to decide again."""
    return sequence_at(storage.store.moment(target.revision), target.drawn)


def version_id_of(bucket: BucketRecord, record: ObjectRecord) -> str:
    """A version's id as clients see it; "" in a bucket that never had versioning."""
    if not record.null_version:
        return encode_version_id(record.sequence)
    return NULL if bucket.versioning else ""


def no_check(target: Target) -> None:
    """No precondition, and nobody to authorize."""


def guarded(target: Target) -> Transaction:
    """A transaction that holds only while bucket and key are as read: the newest version is the
    same, and no newer one came. Nor may one have come and gone into the trash, which is ordered by
    sequence: it was deleted first, but of one moment with this one it might come out as later."""
    tx = Transaction()
    tx.expect(keys.bucket(target.bucket_name), target.bucket_revision)
    tx.expect(keys.object_(target.bucket_name, target.key), target.current.revision)
    if target.bucket.versioning and target.current.record is None:
        first = keys.versions_of(target.bucket_name, target.key)
        if target.newest:
            marker = target.noncurrent[target.newest]
            tx.guards.append(Empty(first, marker.key))
            tx.expect(marker.key, marker.revision)
        else:
            tx.guards.append(Empty(first, keys.after_prefix(first)))
    if trash.keeps(target.bucket) and target.current.record is None:
        first = keys.trash_of(target.bucket_name, target.key)
        tx.guards.append(NoneNewer(first, keys.after_prefix(first), target.revision))
    return tx


def replace(
    storage: Storage, tx: Transaction, target: Target, record: ObjectRecord
) -> ObjectRecord:
    """Write `record` as the key's visible version, and keep or let go of what is there. Returns it
    as it is written: a null version or not, as the bucket's versioning says."""
    record = as_newest(target, record)
    object_key = keys.object_(target.bucket_name, target.key)
    storage.store.put_listed(tx, object_key, record)
    tx.witness = object_key
    tx.use(target.bucket_name, Usage(objects=1, bytes=record.size))
    lifecycle.schedule(storage, tx, target.bucket_name, target.bucket, target.key, record)
    make_way(storage, tx, target, null=record.null_version)
    return record


def as_newest(target: Target, record: ObjectRecord) -> ObjectRecord:
    """A record that becomes the newest of its key: a null version or not, and under the bucket's
    default retention unless it has one of its own."""
    null = target.bucket.versioning != ENABLED
    null_sequence = record.sequence if null else target.null_sequence
    description = record.description
    if not record.marker:
        description = under_default(target.bucket, description, record.modified_ms)
    return msgspec.structs.replace(
        record,
        description=description,
        null_version=null,
        null_sequence=null_sequence,
        noncurrent_ms=0,
    )


def under_default(bucket: BucketRecord, description: Description, modified_ms: int) -> Description:
    """What describes a version made at `modified_ms`: under the bucket's default retention unless
    it has one of its own."""
    default, lock = bucket.documents.get(lock_rules.DOCUMENT), description.lock
    if default is None or (lock is not None and lock.mode):
        return description
    retention = lock_rules.decode_default(default)
    lock = Lock(
        retention.mode,
        retention.until_ms(modified_ms),
        legal_hold=lock is not None and lock.legal_hold,
    )
    return msgspec.structs.replace(description, lock=lock)


def make_way(storage: Storage, tx: Transaction, target: Target, *, null: bool) -> None:
    """For a new version of the key: what was visible becomes noncurrent; a `null` version takes
    the place of the null version."""
    old = target.visible
    if old is not None and null and old.null_version:
        let_go(storage, tx, target, old)
        tx.use(target.bucket_name, Usage(objects=-1, bytes=-old.size))
    elif old is not None:
        key = keys.version(target.bucket_name, target.key, old.sequence)
        displace(storage, tx, target, key, old)
        tx.use(target.bucket_name, Usage(objects=-1, versions=1))
    noncurrent = target.noncurrent.get(target.null_sequence)
    if null and noncurrent is not None:
        drop_noncurrent(storage, tx, target, noncurrent)
    marker = target.noncurrent.get(target.newest)
    if marker is not None and not (null and marker is noncurrent):
        displace(storage, tx, target, marker.key, marker.record)


def displace(
    storage: Storage, tx: Transaction, target: Target, key: bytes, record: ObjectRecord
) -> None:
    """Write what was the newest version as the noncurrent one that it becomes, at `key`."""
    lifecycle.unschedule(storage, tx, target.bucket, target.key, record)
    noncurrent = msgspec.structs.replace(record, noncurrent_ms=storage.clock_ms())
    storage.store.put_listed(tx, key, noncurrent)
    lifecycle.schedule(storage, tx, target.bucket_name, target.bucket, target.key, noncurrent)
    lifecycle.displaced(storage, tx, target.bucket_name, target.bucket, target.key)


def drop_noncurrent(
    storage: Storage, tx: Transaction, target: Target, found: Found, *, bypass: bool = False
) -> None:
    """Remove a record of `version/`; `bypass` as in `let_go`."""
    tx.expect(found.key, found.revision)
    storage.store.delete_listed(tx, found.key)
    let_go(storage, tx, target, found.record, bypass=bypass)
    usage = Usage(versions=-1, bytes=-found.record.size)
    tx.use(target.bucket_name, Usage(markers=-1) if found.record.marker else usage)
    if target.visible is None:
        lifecycle.uncovered(storage, tx, target.bucket_name, target.bucket, target.key)


def let_go(
    storage: Storage,
    tx: Transaction,
    target: Target,
    record: ObjectRecord,
    *,
    bypass: bool = False,
) -> None:
    """Drop what a version that is removed was made of, or put it into its bucket's trash. Every
    removal comes through here, so none passes over object lock; `bypass`: GOVERNANCE does not keep
    it. Raises AccessDenied."""
    lock = record.description.lock
    if lock is not None:
        lock_rules.check_removal(
            lock.mode,
            lock.until_ms,
            legal_hold=lock.legal_hold,
            now_ms=storage.clock_ms(),
            bypass=bypass,
        )
    lifecycle.unschedule(storage, tx, target.bucket, target.key, record)
    if trash.keeps(target.bucket):
        trash.put(storage, tx, target.bucket_name, target.bucket, target.key, record)
    else:
        release(storage, tx, target, record)


def release(storage: Storage, tx: Transaction, target: Target, record: ObjectRecord) -> None:
    """Drop the references of a version of the key."""
    if record.data is not None:
        holder = keys.object_holder(target.bucket_name, target.key, record.sequence)
        references.release(storage, tx, target.bucket_name, record.data, holder)


def under_new_name(
    storage: Storage, tx: Transaction, target: Target, record: ObjectRecord
) -> ObjectRecord:
    """All that an object is as a version of `target`, holding the same data; for `replace`. The
    time of its last modification stays where no versions are told apart by it."""
    sequence = sequence_of(storage, target)
    if record.data is not None:
        holder = keys.object_holder(target.bucket_name, target.key, sequence)
        references.hold(storage, tx, target.bucket_name, record.data, holder)
    modified_ms = storage.clock_ms() if target.bucket.versioning else record.modified_ms
    return msgspec.structs.replace(record, sequence=sequence, modified_ms=modified_ms)


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
    with storage.turns.of(keys.object_(target.bucket_name, target.key)) as turn:
        if await turn.behind_others():
            target = await read_target(storage, target.bucket_name, target.key)
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            check(target)
            if placed is not None:
                await placed.settle(storage)
            tx = guarded(target)
            record = replace(storage, tx, target, build(tx, target))
            try:
                await storage.store.apply(tx)
            except Conflict as conflict:
                lost(conflict)
                if placed is not None:
                    await placed.refresh(storage, conflict)
                await storage.ring.refresh(conflict)
                await turn.wait()
                target = await read_target(storage, target.bucket_name, target.key)
            else:
                return record
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
