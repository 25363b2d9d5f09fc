"""The trash of buckets without versioning: what a client deletes or replaces can be brought back.

With a trash window (`BucketRecord.trash_ms`) a version that would be let go is moved to
`trash/<bucket>/<key*><~sequence>` by the same commit, and keeps the references that it had: a
holder is named by bucket, key and sequence, wherever its record lies. `purge/<due ms>…` says when
it leaves. S3 clients see nothing of it: no listing, no bucket that is not empty, no byte in the
usage that they are told. It is counted in usage figures of its own.

A bucket with trash can be deleted, as it is empty to its clients; what is in its trash stays until
it is due, and can be restored into a bucket of the same name. Nothing else passes the trash: a
rename takes the object away from its old name without deleting it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from s3gw.kv.interface import At, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BucketRecord,
    ObjectRecord,
    RecordFormatError,
    TrashRecord,
    Usage,
    decode,
)
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects import references
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trashed:
    """What is in the trash under a key, as read."""

    bucket_name: str
    key: str
    record_key: bytes
    record: TrashRecord
    revision: int

    @property
    def holder(self) -> bytes:
        return keys.object_holder(self.bucket_name, self.key, self.record.record.sequence)


def keeps(bucket: BucketRecord) -> bool:
    """Whether what is let go in the bucket goes to the trash."""
    return bucket.trash_ms > 0 and not bucket.versioning


def put(
    storage: Storage,
    tx: Transaction,
    bucket_name: str,
    bucket: BucketRecord,
    key: str,
    record: ObjectRecord,
) -> None:
    """Move a version into the trash. Whoever calls this removes its record, and counts that."""
    now_ms = storage.clock_ms()
    entry = TrashRecord(record, now_ms, now_ms + bucket.trash_ms, bucket.bucket_id)
    record_key = keys.trashed(bucket_name, key, record.sequence)
    storage.store.put_listed(tx, record_key, entry)
    holder = keys.object_holder(bucket_name, key, record.sequence)
    due = keys.purge(entry.purge_ms, holder)
    tx.writes[due] = Put(due, b"")
    tx.use(bucket_name, Usage(trash_objects=1, trash_bytes=record.size))


def take_out(
    storage: Storage, tx: Transaction, trashed: Trashed, bucket: Versioned[BucketRecord]
) -> None:
    """Take a version out of the trash and drop the references that it had there. `bucket` is the
    bucket of that name as read, if there is one: the commit is guarded by it, because it says
    whether this is counted in its usage."""
    entry = trashed.record
    bucket_key = keys.bucket(trashed.bucket_name)
    guard = At(bucket_key, bucket.revision)
    if guard not in tx.guards:
        tx.guards.append(guard)
    tx.expect(trashed.record_key, trashed.revision)
    storage.store.delete_listed(tx, trashed.record_key)
    tx.delete(keys.purge(entry.purge_ms, trashed.holder))
    if entry.record.data is not None:
        references.release(storage, tx, trashed.bucket_name, entry.record.data, trashed.holder)
    if bucket.record is not None and bucket.record.bucket_id == entry.bucket_id:
        usage = Usage(trash_objects=-1, trash_bytes=-entry.record.size)
        tx.use(trashed.bucket_name, usage)


def of_item(item: Item) -> Trashed:
    """A record of `trash/`."""
    bucket_name, key = keys.split_trashed(item.key)
    return Trashed(bucket_name, key, item.key, decode(TrashRecord, item.value), item.revision)


async def list_trash(
    storage: Storage, bucket: str, prefix: str, *, after: bytes = b"", most: int
) -> tuple[list[Trashed], bool]:
    """What is in the trash under a prefix, by key and newest first, behind the record at `after`;
    and whether there may be more than `most`. What cannot be read is left out."""
    base = keys.trash(bucket) + keys.escaped(prefix)
    end = keys.after_prefix(base)
    position = max(base, after + b"\x00") if after else base
    listed: list[Trashed] = []
    while position < end and len(listed) < most:
        page = await storage.store.scan_listed(position, end, limit=most - len(listed))
        for item in page.items:
            try:
                listed.append(of_item(item))
            except RecordFormatError:  # one must not hide all others
                log.exception("%r in the trash cannot be read", item.key)
        if not page.more:
            return listed, False
        position = page.items[-1].key + b"\x00"
    return listed, position < end


async def bucket_now(storage: Storage, name: str) -> Versioned[BucketRecord]:
    """The bucket of this name, if there is one."""
    (item,) = (await storage.store.kv.get_many([keys.bucket(name)])).items
    return versioned(BucketRecord, item)
