"""PutBucketRequestPayment and GetBucketRequestPayment."""

from __future__ import annotations

from s3gw.buckets.settings import REQUEST_PAYMENT
from s3gw.operations.bucket_documents import get_document, put_document
from s3gw.operations.call import Call, Reply


async def put_bucket_request_payment(call: Call) -> Reply:
    """Set who pays for requests and transfer."""
    return await put_document(call, REQUEST_PAYMENT)


async def get_bucket_request_payment(call: Call) -> Reply:
    """Who pays for requests and transfer."""
    return get_document(call, REQUEST_PAYMENT)
