"""DeleteBucket."""

from __future__ import annotations

from s3gw.objects import buckets
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.call import Call, Reply


async def delete_bucket(call: Call) -> Reply:
    """Remove an empty bucket."""
    check = still_allowed_in_bucket(call)
    await buckets.delete_bucket(call.storage, call.bucket_name, check)
    return Reply(204)
