"""PutBucketLifecycleConfiguration, GetBucketLifecycleConfiguration and DeleteBucketLifecycle.

A change of the rules is one commit of the bucket's record. No decision by the former rules takes
effect after it, since what the worker commits is guarded by that record. The same commit writes the
job that queues what is in the bucket.
"""

from __future__ import annotations

import asyncio

import msgspec

from s3gw import errors, limits
from s3gw.buckets import lifecycle
from s3gw.buckets.lifecycle import LIFECYCLE, MINIMUM_SIZE_HEADER
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import LifecycleJob
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import Transaction
from s3gw.operations.bucket_documents import change_own_bucket, require_checksum, with_document
from s3gw.operations.bucket_subresources import fresh_answer
from s3gw.operations.call import Call, Reply, xml_reply


async def put_bucket_lifecycle(call: Call) -> Reply:
    """Set the rules. Raises InvalidStorageClass for a class that no profile has."""
    require_checksum(call)
    minimum_size = call.headers.get(MINIMUM_SIZE_HEADER, lifecycle.ALL_CLASSES_128K)
    if minimum_size not in lifecycle.MINIMUM_SIZES:
        raise errors.InvalidArgument(
            "Unknown default minimum object size.",
            ArgumentName=MINIMUM_SIZE_HEADER,
            ArgumentValue=minimum_size,
        )
    body = await call.body.read(limits.LIFECYCLE_BYTES_MAX)
    on_loop = len(body) <= limits.XML_ON_LOOP_BYTES_MAX
    stored, classes = _read(body) if on_loop else await asyncio.to_thread(_read, body)
    await _check_classes(call, classes)
    bucket_id = call.bucket.bucket_id

    def change(record: BucketRecord) -> BucketRecord:
        nonlocal bucket_id
        bucket_id = record.bucket_id
        default = minimum_size == lifecycle.ALL_CLASSES_128K
        changed = with_document(record, lifecycle.NAME, stored)
        kept = None if default else minimum_size.encode()
        return with_document(changed, lifecycle.MINIMUM_SIZE_NAME, kept)

    async def walk(tx: Transaction) -> None:
        job = LifecycleJob(bucket_id, call.storage.clock_ms())
        tx.put(keys.lifecycle(call.bucket_name), job)

    await change_own_bucket(call, change, guard=walk)
    return Reply(headers=[(MINIMUM_SIZE_HEADER, minimum_size)])


def _read(body: bytes) -> tuple[bytes, set[str]]:
    """The rules as they are kept, and the classes that they move objects to."""
    value = lifecycle.parse(body)
    return lifecycle.store(value), lifecycle.storage_classes(value)


async def _check_classes(call: Call, classes: set[str]) -> None:
    """A class is somewhere to go only if a profile has it: anything else would be a name alone."""
    topology = call.storage.blobs.topology
    if any(topology.of_class(name) is None for name in classes):
        await topology.load()  # a profile may be new
    for name in sorted(classes):
        if name == "STANDARD" or topology.of_class(name) is None:
            raise errors.InvalidStorageClass(
                "The storage class you specified is not valid: no profile of this store has it.",
                StorageClassRequested=name,
            )


async def get_bucket_lifecycle(call: Call) -> Reply:
    """The rules. Raises NoSuchLifecycleConfiguration."""
    stored = call.bucket.documents.get(lifecycle.NAME)
    if stored is None:
        return xml_reply(fresh_answer(call.operation, bucket=call.bucket_name))
    reply = xml_reply(await asyncio.to_thread(LIFECYCLE.render, lifecycle.read(stored)))
    kept = call.bucket.documents.get(lifecycle.MINIMUM_SIZE_NAME)
    minimum_size = lifecycle.ALL_CLASSES_128K if kept is None else kept.decode()
    reply.headers.append((MINIMUM_SIZE_HEADER, minimum_size))
    return reply


async def delete_bucket_lifecycle(call: Call) -> Reply:
    """Remove the rules; it is no error when there are none."""

    def change(record: BucketRecord) -> BucketRecord:
        dropped = (lifecycle.NAME, lifecycle.MINIMUM_SIZE_NAME)
        documents = {k: v for k, v in record.documents.items() if k not in dropped}
        return msgspec.structs.replace(record, documents=documents)

    async def stop(tx: Transaction) -> None:
        tx.delete(keys.lifecycle(call.bucket_name))

    await change_own_bucket(call, change, guard=stop)
    return Reply(204)
