"""Lifecycle rules for the tests of their workers, and short ways to set and carry them out."""

from __future__ import annotations

import msgspec

from s3gw.buckets import lifecycle
from s3gw.buckets.lifecycle import DAY_MS
from s3gw.buckets.lock import COMPLIANCE
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import LifecycleJob
from s3gw.metadata.records import BucketRecord, Description, Lock, ObjectRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.change import change_version
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.operations.bucket_documents import with_document
from s3gw.workers import on_demand
from s3gw.workers.lifecycle import Lifecycle, LifecycleReport
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, Process

DAY = DAY_MS / 1000
# Midnight is at most a day ahead, and the work of a midnight is spread over an hour.
ROUNDED = DAY + 3600


def rule(content: str, *, chosen: str = "<Filter/>", id_: str = "r", enabled: bool = True) -> str:
    status = "Enabled" if enabled else "Disabled"
    return f"<Rule><ID>{id_}</ID>{chosen}<Status>{status}</Status>{content}</Rule>"


def expires(days: int) -> str:
    return f"<Expiration><Days>{days}</Days></Expiration>"


def removes(days: int, newer: int = 0) -> str:
    kept = f"<NewerNoncurrentVersions>{newer}</NewerNoncurrentVersions>" if newer else ""
    return (
        f"<NoncurrentVersionExpiration><NoncurrentDays>{days}</NoncurrentDays>{kept}"
        "</NoncurrentVersionExpiration>"
    )


MARKERS = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"


def aborts(days: int) -> str:
    return (
        f"<AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation>"
        "</AbortIncompleteMultipartUpload>"
    )


def moves(days: int, storage_class: str) -> str:
    return (
        f"<Transition><Days>{days}</Days><StorageClass>{storage_class}</StorageClass></Transition>"
    )


async def set_rules(process: Process, *rules: str, bucket: str = BUCKET) -> None:
    """What PutBucketLifecycleConfiguration does."""
    body = f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>".encode()
    rules_stored = lifecycle.store(lifecycle.parse(body))
    found = await process.storage.store.get(BucketRecord, keys.bucket(bucket))
    assert found.record is not None
    job = LifecycleJob(found.record.bucket_id, process.storage.clock_ms())

    async def walk(tx: Transaction) -> None:
        tx.put(keys.lifecycle(bucket), job)

    await change_bucket(
        process.storage,
        bucket,
        lambda record: with_document(record, lifecycle.NAME, rules_stored),
        guard=walk,
    )


async def drop_rules(process: Process) -> None:
    await change_bucket(
        process.storage, BUCKET, lambda record: with_document(record, lifecycle.NAME, None)
    )


async def carry_out(process: Process) -> LifecycleReport:
    """Walk, and do what is due now."""
    await LifecycleWalk(process.storage).run_once()
    return await Lifecycle(process.storage).run_once()


async def put_tagged(
    process: Process,
    key: str,
    data: bytes,
    tags: dict[str, str] | None = None,
    *,
    locked_until_ms: int = 0,
) -> ObjectRecord:
    lock = Lock(COMPLIANCE, locked_until_ms) if locked_until_ms else None
    target = await publish.read_target(process.storage, BUCKET, key)
    description = Description(tags=tags or {}, lock=lock)
    return await put_object(process.storage, target, "owner", description, Bytes(data), no_check)


def queue(process: Process) -> list[tuple[int, str, int]]:
    """What is queued: time, key, sequence (0: the key as a whole, -1: an upload)."""
    found = []
    for entry in process.cluster.engine.items:
        if entry.startswith(keys.DUE):
            due_ms, _, subject = keys.split_due(entry)
            found.append((due_ms, *keys.split_subject(subject)[:2]))
    return sorted(found)


def stored(process: Process) -> dict[str, list[bool]]:
    """For each key whether each of its versions is a marker, newest first."""
    found: dict[str, list[bool]] = {}
    for item in sorted(process.cluster.engine.items):
        if item.startswith(keys.objects(BUCKET)):
            found.setdefault(item[len(keys.objects(BUCKET)) :].decode(), []).append(False)
    for item, value in sorted(process.cluster.engine.items.items()):
        if item.startswith(keys.versions(BUCKET)):
            key, _ = keys.unended(item[len(keys.versions(BUCKET)) :])
            found.setdefault(key, []).append(decode(ObjectRecord, value.value).marker)
    return found


async def retag(process: Process, key: str, tags: dict[str, str]) -> None:
    target = await publish.read_target(process.storage, BUCKET, key)

    def change(record: ObjectRecord) -> ObjectRecord:
        description = msgspec.structs.replace(record.description, tags=tags)
        return msgspec.structs.replace(record, description=description)

    await change_version(process.storage, target, change)


def check(process: Process) -> None:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_usage()
    audit.check_counts()


async def at_rest(process: Process) -> None:
    process.cluster.clock.advance(3601)
    await on_demand.collect_garbage(process.storage)
    Audit(process.cluster, process).check_at_rest()
