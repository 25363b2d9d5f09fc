"""PutBucketAccelerateConfiguration and GetBucketAccelerateConfiguration."""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets.settings import ACCELERATE
from s3gw.operations.bucket_documents import get_document, put_document
from s3gw.operations.call import Call, Reply


async def put_bucket_accelerate_configuration(call: Call) -> Reply:
    """Set the acceleration status."""
    if "." in call.bucket_name:
        raise errors.InvalidRequest(
            "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names"
        )
    return await put_document(call, ACCELERATE)


async def get_bucket_accelerate_configuration(call: Call) -> Reply:
    """The acceleration status."""
    return get_document(call, ACCELERATE)
