"""Buckets in terms of storage: create, find, change, list, delete."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.buckets.configurations import KINDS
from s3gw.kv.interface import At, Conflict, Delete, Empty, Put
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import BucketRecord, Configurations, Usage, decode
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects.storage import Storage

BucketCheck = Callable[[BucketRecord, int], None]
"""Whether a change may be made to a bucket, or in it, as it was read for the commit, at this
revision of its record; raises AccessDenied. Called for every reading."""

TOO_OFTEN = "The bucket is changed too often by others. Please try again."


def no_bucket_check(bucket: BucketRecord, revision: int) -> None:
    """Nobody to authorize."""


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
    documents: dict[str, bytes] | None = None,
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
        documents=documents or {},
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
    raise errors.OperationAborted(TOO_OFTEN)


async def change_bucket(
    storage: Storage,
    name: str,
    change: Callable[[BucketRecord], BucketRecord],
    *,
    guard: Callable[[Transaction], Awaitable[None]] | None = None,
    check: BucketCheck = no_bucket_check,
) -> None:
    """Replace the bucket's record by what `change` makes of it, in one commit guarded by it.

    `change` is called again when others changed the bucket meanwhile. What else the change rests
    on is looked at by `guard`, which adds it to the transaction. Raises NoSuchBucket, and what
    these and `check` raise.
    """
    with storage.turns.of(keys.bucket(name)) as turn:
        await turn.behind_others()
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            bucket = await find_bucket(storage, name)
            assert bucket.record is not None
            check(bucket.record, bucket.revision)
            record = change(bucket.record)
            if record == bucket.record:
                return
            tx = Transaction()
            tx.expect(keys.bucket(name), bucket.revision)
            if guard is not None:
                await guard(tx)
            tx.put(keys.bucket(name), record)
            _bump_generation(tx)
            # Its value is random; the bucket's may be written by others.
            tx.witness = keys.GENERATION
            try:
                await storage.store.apply(tx)
            except Conflict:
                await turn.wait()
            else:
                return
    raise errors.OperationAborted(TOO_OFTEN)


async def read_configurations(storage: Storage, name: str, kind: str) -> Configurations:
    """The configurations of a kind that the bucket has."""
    found = await storage.store.get(Configurations, keys.configurations(name, kind))
    return found.record or Configurations()


async def change_configurations(
    storage: Storage,
    name: str,
    kind: str,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    check: BucketCheck = no_bucket_check,
) -> None:
    """Replace the bucket's configurations of a kind by what `change` makes of them, in one commit
    guarded by them and by the bucket. Raises NoSuchBucket, TooManyConfigurations, and what
    `change` and `check` raise."""
    bucket_key, key = keys.bucket(name), keys.configurations(name, kind)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        reading = await storage.store.kv.get_many([bucket_key, key])
        bucket = versioned(BucketRecord, reading.items[0])
        if bucket.record is None:
            raise errors.NoSuchBucket(BucketName=name)
        check(bucket.record, bucket.revision)
        held = versioned(Configurations, reading.items[1])
        before = held.record.by_id if held.record is not None else {}
        after = dict(sorted(change(before).items()))
        if after == before:
            return
        _check_bounds(after)
        tx = Transaction()
        tx.expect(bucket_key, bucket.revision)
        tx.expect(key, held.revision)
        if after:
            tx.put(key, Configurations(after))
            tx.witness = key
        else:
            tx.delete(key)
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return
    raise errors.OperationAborted(TOO_OFTEN)


def _check_bounds(by_id: dict[str, bytes]) -> None:
    if len(by_id) > limits.CONFIGURATIONS_MAX:
        raise errors.TooManyConfigurations(
            "You are attempting to create a new configuration but have already reached the "
            f"{limits.CONFIGURATIONS_MAX:,}-configuration limit."
        )
    if sum(map(len, by_id.values())) > limits.CONFIGURATIONS_BYTES_MAX:
        raise errors.TooManyConfigurations(
            f"The configurations of a bucket may have {limits.CONFIGURATIONS_BYTES_MAX} bytes."
        )


async def delete_bucket(storage: Storage, name: str, check: BucketCheck = no_bucket_check) -> None:
    """Remove an empty bucket. Raises NoSuchBucket, BucketNotEmpty, and what `check` raises."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        bucket = await find_bucket(storage, name)
        assert bucket.record is not None
        check(bucket.record, bucket.revision)
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
        tx.delete(keys.undo(name))
        tx.delete(keys.lifecycle(name))
        for kind in KINDS:
            tx.delete(keys.configurations(name, kind.name))
        _bump_generation(tx)
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return
    raise errors.OperationAborted(TOO_OFTEN)


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
