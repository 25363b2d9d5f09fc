"""HeadBucket."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply


async def head_bucket(call: Call) -> Reply:
    """Whether the bucket is there, and where."""
    return Reply(
        headers=[
            ("x-amz-bucket-region", call.bucket.region),
            ("x-amz-access-point-alias", "false"),
            ("Content-Type", "application/xml"),
        ]
    )
