"""PutBucketCors, GetBucketCors and DeleteBucketCors; preflights."""

from __future__ import annotations

from s3gw.buckets.cors import CORS, VARY, preflight_headers
from s3gw.operations.bucket_documents import (
    delete_document,
    get_document,
    put_document,
    require_checksum,
)
from s3gw.operations.call import Call, Reply


async def put_bucket_cors(call: Call) -> Reply:
    """Set the rules by which browsers let scripts of other sites at the bucket."""
    require_checksum(call)
    return await put_document(call, CORS)


async def get_bucket_cors(call: Call) -> Reply:
    """The rules."""
    return get_document(call, CORS)


async def delete_bucket_cors(call: Call) -> Reply:
    """Remove the rules."""
    return await delete_document(call, CORS)


async def preflight(call: Call) -> Reply:
    """A browser asks before it sends another site's request. Raises AccessForbidden."""
    headers = preflight_headers(
        call.bucket.documents.get(CORS.name),
        call.headers.get("origin"),
        call.headers.get("access-control-request-method"),
        call.headers.get("access-control-request-headers"),
        resource_type="OBJECT" if call.key else "BUCKET",
    )
    return Reply(headers=[*headers, VARY])
