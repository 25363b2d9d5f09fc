"""PutBucketLogging and GetBucketLogging."""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets.document import Value
from s3gw.buckets.settings import LOGGING
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import Transaction
from s3gw.operations.bucket_documents import Guard, get_document, put_document
from s3gw.operations.call import Call, Reply
from s3gw.operations.delivery import require_target


async def put_bucket_logging(call: Call) -> Reply:
    """Set the bucket that access logs are to go to, or none."""
    return await put_document(call, LOGGING, guard=lambda value: _target_exists(call, value))


async def get_bucket_logging(call: Call) -> Reply:
    """Where access logs are to go."""
    return get_document(call, LOGGING)


def _target_exists(call: Call, value: Value) -> Guard:
    """A guard of the commit: the target is a bucket of the same owner, and the caller may write
    there himself."""
    enabled = value["LoggingEnabled"]
    name = enabled["TargetBucket"]

    async def guard(tx: Transaction) -> None:
        target = await call.storage.store.get(BucketRecord, keys.bucket(name))
        if target.record is None or target.record.owner != call.bucket.owner:
            raise errors.InvalidTargetBucketForLogging(TargetBucket=name)
        require_target(call, name, target.record, enabled["TargetPrefix"])
        if name != call.bucket_name:  # its own record guards the commit anyway
            tx.expect(keys.bucket(name), target.revision)

    return guard
