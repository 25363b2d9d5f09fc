"""PutBucketEncryption, GetBucketEncryption and DeleteBucketEncryption."""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets.document import Value
from s3gw.buckets.encryption import ENCRYPTION, default_of
from s3gw.metadata.store import Transaction
from s3gw.objects.keyring.ring import NO_MASTER_KEY
from s3gw.operations.bucket_documents import Guard, delete_document, get_document, put_document
from s3gw.operations.call import Call, Reply


async def put_bucket_encryption(call: Call) -> Reply:
    """Set how new objects are encrypted unless their request says otherwise. Raises
    NotImplementedS3 where the store could not do it."""
    sources = call.storage.ring.sources

    async def nothing_else(tx: Transaction) -> None:
        """The keys of a store are no part of its metadata."""

    def possible(value: Value) -> Guard:
        algorithm = default_of(ENCRYPTION.render(value)).algorithm
        under_transit = sources.transit_key or (algorithm == "aws:kms" and sources.transit)
        if algorithm and sources.master is None and not under_transit:
            raise errors.NotImplementedS3(NO_MASTER_KEY)
        return nothing_else

    return await put_document(call, ENCRYPTION, guard=possible)


async def get_bucket_encryption(call: Call) -> Reply:
    """The default encryption."""
    return get_document(call, ENCRYPTION)


async def delete_bucket_encryption(call: Call) -> Reply:
    """New objects are encrypted only where their request asks for it."""
    return await delete_document(call, ENCRYPTION)
