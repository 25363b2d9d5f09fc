"""The settings of a bucket: documents in its record, changed by one guarded commit.

Every commit about an object is guarded by the bucket's record, so a write that was decided under
the settings as they were does not take effect after the change.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import Transaction
from s3gw.objects.buckets import find_bucket
from s3gw.objects.storage import Storage

Check = Callable[[BucketRecord], None]
"""A precondition on the record that is changed; raises S3Error."""


def no_check(bucket: BucketRecord) -> None:
    """No precondition."""


async def set_document(
    storage: Storage,
    bucket_name: str,
    document_name: str,
    document: bytes | None,
    *,
    check: Check = no_check,
) -> None:
    """Keep a document, or with None drop it. `check` is asked again whenever the record changed
    meanwhile. Raises NoSuchBucket, OperationAborted, OutcomeUnknown, what `check` raises."""
    key = keys.bucket(bucket_name)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        bucket = await find_bucket(storage, bucket_name)
        assert bucket.record is not None
        check(bucket.record)
        if bucket.record.documents.get(document_name) == document:
            return
        documents = dict(bucket.record.documents)
        if document is None:
            del documents[document_name]
        else:
            documents[document_name] = document
        tx = Transaction()
        tx.expect(key, bucket.revision)
        tx.put(key, msgspec.structs.replace(bucket.record, documents=documents))
        tx.witness = key
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return
    raise errors.OperationAborted("The bucket is changed too often by others. Please try again.")
