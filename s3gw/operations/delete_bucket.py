"""DeleteBucket."""

from __future__ import annotations

from s3gw.objects import buckets
from s3gw.operations.call import Call, Reply


async def delete_bucket(call: Call) -> Reply:
    """Remove an empty bucket."""
    await buckets.delete_bucket(call.storage, call.bucket_name)
    return Reply(204)
