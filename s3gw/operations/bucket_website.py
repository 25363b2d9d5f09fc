"""PutBucketWebsite, GetBucketWebsite and DeleteBucketWebsite."""

from __future__ import annotations

from s3gw.buckets.website import WEBSITE
from s3gw.operations.bucket_documents import delete_document, get_document, put_document
from s3gw.operations.call import Call, Reply


async def put_bucket_website(call: Call) -> Reply:
    """Set the website configuration."""
    return await put_document(call, WEBSITE)


async def get_bucket_website(call: Call) -> Reply:
    """The website configuration."""
    return get_document(call, WEBSITE)


async def delete_bucket_website(call: Call) -> Reply:
    """Remove the website configuration."""
    return await delete_document(call, WEBSITE)
