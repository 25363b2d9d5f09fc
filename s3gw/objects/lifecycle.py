"""The queue of what lifecycle rules want to be looked at, as the commits of requests keep it.

In a bucket with rules every commit that makes or changes a version or an upload also writes an
entry `due/<time>/…`, at the first time at which a rule may want something of it, and removes the
one of what it takes away. In other buckets there is nothing to do. An entry is a hint: who finds it
due reads the version and the rules of that moment, and acts by them alone
(`s3gw.workers.lifecycle`).

    a version comes, or gets other tags        its own entry
    it becomes noncurrent                      another one, by the time of that; and one for the key
                                               at once, where rules count the younger versions
    a noncurrent version behind a marker goes  one for the key at once, as the marker may be alone
    an upload begins                           its own entry

Since the time of an entry follows from the record and the rules, whoever removes a version knows
the entry's key. Where the rules were others then, an entry stays behind, and is found to mean
nothing when it is due. Times are spread over an hour after the midnight that they are rounded to,
so that a day's work does not come at once; a shorter day spreads less.
"""

from __future__ import annotations

from hashlib import blake2b

from s3gw.buckets import lifecycle as rules
from s3gw.buckets.lifecycle import Configuration
from s3gw.buckets.lifecycle_due import Version, abort, first_look
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import Due
from s3gw.metadata.records import BucketRecord, ObjectRecord, UploadRecord
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage

SPREAD_PARTS = 24


def configuration_of(bucket: BucketRecord) -> Configuration | None:
    """The bucket's rules; None without any."""
    return rules.of_bucket(bucket.documents) if rules.NAME in bucket.documents else None


def as_seen(
    bucket: BucketRecord, key: str, record: ObjectRecord, *, newer: int = 0, alone: bool = False
) -> Version:
    """A version as rules see it."""
    description = record.description
    return Version(
        key=key,
        size=record.size,
        tags=description.tags,
        storage_class=description.storage_class,
        since_ms=record.noncurrent_ms or record.modified_ms,
        noncurrent=record.noncurrent_ms > 0,
        marker=record.marker,
        versioned=bool(bucket.versioning),
        newer=newer,
        alone=alone,
    )


def entry_at(storage: Storage, bucket: BucketRecord, due_ms: int, subject: bytes) -> bytes:
    """The key of the entry for what is to be looked at from `due_ms` on. `subject` names it."""
    width = storage.lifecycle_day_ms // SPREAD_PARTS
    if width:
        digest = blake2b(subject, digest_size=4, key=bucket.bucket_id).digest()
        due_ms += int.from_bytes(digest, "big") % width
    return keys.due(due_ms, bucket.bucket_id, subject)


def entry_of(
    storage: Storage,
    bucket: BucketRecord,
    key: str,
    record: ObjectRecord,
    *,
    not_before_ms: int = 0,
) -> bytes | None:
    """The key of a version's entry; None when no rule is about it."""
    configuration = configuration_of(bucket)
    if configuration is None:
        return None
    seen = as_seen(bucket, key, record)
    look_ms = first_look(configuration, seen, storage.lifecycle_day_ms)
    if look_ms is None:
        return None
    subject = keys.due_version(key, record.sequence)
    return entry_at(storage, bucket, max(look_ms, not_before_ms), subject)


def schedule(
    storage: Storage,
    tx: Transaction,
    bucket_name: str,
    bucket: BucketRecord,
    key: str,
    record: ObjectRecord,
) -> int:
    """Queue a version that is there from this commit on, if rules want anything of it. Returns the
    number of entries. None lies in the past: what is behind the present was missed."""
    entry = entry_of(storage, bucket, key, record, not_before_ms=storage.clock_ms())
    if entry is None:
        return 0
    tx.put(entry, Due(bucket_name))
    return 1


def unschedule(
    storage: Storage, tx: Transaction, bucket: BucketRecord, key: str, record: ObjectRecord
) -> None:
    """Forget the entry of a version as it was before this commit."""
    entry = entry_of(storage, bucket, key, record)
    if entry is not None:
        tx.delete(entry)


def displaced(
    storage: Storage, tx: Transaction, bucket_name: str, bucket: BucketRecord, key: str
) -> None:
    """A version of the key has become noncurrent: older ones may be too many now."""
    configuration = configuration_of(bucket)
    if configuration is not None and configuration.newer_kept(key)[0]:
        _look_at_key(storage, tx, bucket_name, bucket, key)


def uncovered(
    storage: Storage, tx: Transaction, bucket_name: str, bucket: BucketRecord, key: str
) -> None:
    """A version behind a delete marker is removed: the marker may be alone now."""
    configuration = configuration_of(bucket)
    if configuration is not None and configuration.cleans_markers(key):
        _look_at_key(storage, tx, bucket_name, bucket, key)


def _look_at_key(
    storage: Storage, tx: Transaction, bucket_name: str, bucket: BucketRecord, key: str
) -> None:
    entry = keys.due(storage.clock_ms(), bucket.bucket_id, keys.due_version(key, 0))
    tx.put(entry, Due(bucket_name))


def _upload_entry(
    storage: Storage,
    bucket: BucketRecord,
    key: str,
    upload_id: bytes,
    record: UploadRecord,
    *,
    not_before_ms: int = 0,
) -> bytes | None:
    configuration = configuration_of(bucket)
    if configuration is None:
        return None
    action = abort(configuration, key, record.initiated_ms, storage.lifecycle_day_ms)
    if action is None:
        return None
    due_ms = max(action.due_ms, not_before_ms)
    return entry_at(storage, bucket, due_ms, keys.due_upload(key, upload_id))


def schedule_upload(
    storage: Storage,
    tx: Transaction,
    bucket_name: str,
    bucket: BucketRecord,
    key: str,
    upload_id: bytes,
    record: UploadRecord,
) -> int:
    """Queue an upload, if a rule is to abort it. Returns the number of entries."""
    now_ms = storage.clock_ms()
    entry = _upload_entry(storage, bucket, key, upload_id, record, not_before_ms=now_ms)
    if entry is None:
        return 0
    tx.put(entry, Due(bucket_name))
    return 1


def unschedule_upload(
    storage: Storage,
    tx: Transaction,
    bucket: BucketRecord,
    key: str,
    upload_id: bytes,
    record: UploadRecord,
) -> None:
    """Forget the entry of an upload that ends."""
    entry = _upload_entry(storage, bucket, key, upload_id, record)
    if entry is not None:
        tx.delete(entry)
