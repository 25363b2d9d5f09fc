"""Buckets in terms of storage: create, find, list, delete."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.kv.interface import At, Conflict, Delete, Empty, Put
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import BucketRecord, Usage, decode
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects.storage import Storage


@dataclass(frozen=True, slots=True)
class BucketPage:
    """A page of buckets by name; `more` says that others follow."""

    buckets: list[tuple[str, BucketRecord]]
    more: bool


async def find_bucket(storage: Storage, name: str) -> Versioned[BucketRecord]:
    """The bucket's record. Raises NoSuchBucket."""
    bucket = await storage.store.get(BucketRecord, keys.bucket(name))
    if bucket.record is None:
        raise errors.NoSuchBucket(BucketName=name)
    return bucket


async def create_bucket(
    storage: Storage,
    name: str,
    *,
    owner: str,
    region: str,
    profile: str,
    object_lock: bool,
    tags: dict[str, str],
    placement: str = "",
) -> BucketRecord | None:
    """Make a bucket, or return the record of the one that is there."""
    key = keys.bucket(name)
    record = BucketRecord(
        storage.clock_ms(),
        owner,
        region,
        profile,
        os.urandom(16),
        versioning="Enabled" if object_lock else "",
        object_lock=object_lock,
        tags=tags,
        placement=placement,
    )
    tx = Transaction()
    tx.expect(key, 0)
    tx.put(key, record)
    tx.witness = key
    _bump_generation(tx)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        try:
            await storage.store.apply(tx)
        except Conflict:
            existing = await storage.store.get(BucketRecord, key)
            if existing.record is not None:
                return existing.record
        else:
            return None
    raise errors.OperationAborted("The bucket is changed too often by others. Please try again.")


async def change_bucket(
    storage: Storage, name: str, change: Callable[[BucketRecord], BucketRecord]
) -> None:
    """Write what `change` makes of the bucket's record; it may raise S3Error, and is called again
    after a lost commit. Raises NoSuchBucket, OutcomeUnknown."""
    key = keys.bucket(name)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        bucket = await find_bucket(storage, name)
        assert bucket.record is not None
        record = change(bucket.record)
        if record == bucket.record:
            return
        tx = Transaction()
        tx.expect(key, bucket.revision)
        tx.put(key, record)
        _bump_generation(tx)
        tx.witness = keys.GENERATION  # its value is random; the bucket's may be written by others
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return
    raise errors.OperationAborted("The bucket is changed too often by others. Please try again.")


async def delete_bucket(storage: Storage, name: str) -> None:
    """Remove an empty bucket. Raises NoSuchBucket, BucketNotEmpty."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        bucket = await find_bucket(storage, name)
        prefix = keys.usages(name)
        slots = await storage.store.kv.scan(
            prefix, keys.after_prefix(prefix), limit=limits.USAGE_SLOTS_MAX
        )
        if not _is_empty(total(slots.items)):
            raise errors.BucketNotEmpty(BucketName=name)
        tx = Transaction()
        tx.expect(keys.bucket(name), bucket.revision)
        for start in (keys.objects(name), keys.versions(name), keys.uploads(name)):
            tx.guards.append(Empty(start, keys.after_prefix(start)))
        tx.delete(keys.bucket(name))
        for item in slots.items:
            tx.guards.append(At(item.key, item.revision))
            tx.writes[item.key] = Delete(item.key)
        tx.delete(keys.grant(name))
        _bump_generation(tx)
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return
    raise errors.OperationAborted("The bucket is changed too often by others. Please try again.")


def _is_empty(usage: Usage) -> bool:
    return not (usage.objects or usage.versions or usage.markers or usage.uploads)


def _bump_generation(tx: Transaction) -> None:
    """Tell every gateway that buckets or identities changed; only the difference matters."""
    tx.writes[keys.GENERATION] = Put(keys.GENERATION, os.urandom(8))


async def list_buckets(storage: Storage, *, prefix: str, after: str, most: int) -> BucketPage:
    """Up to `most` buckets whose names start with `prefix` and come after `after`."""
    start = keys.bucket(prefix)
    end = keys.after_prefix(start)
    if after:
        start = max(start, keys.bucket(after) + b"\x00")
    if start >= end:
        return BucketPage([], more=False)
    page = await storage.store.kv.scan(start, end, limit=most)
    buckets = [
        (item.key[len(keys.BUCKETS) :].decode(), decode(BucketRecord, item.value))
        for item in page.items
    ]
    return BucketPage(buckets, page.more)
