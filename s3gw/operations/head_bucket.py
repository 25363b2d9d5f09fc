"""HeadBucket."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply


async def head_bucket(call: Call) -> Reply:
    """Whether the bucket is there, and where."""
    return Reply(
        headers=[
            ("x-amz-bucket-arn", f"arn:aws:s3:::{call.bucket_name}"),
            ("x-amz-bucket-region", call.bucket.region),
            ("x-amz-access-point-alias", "false"),
            ("Content-Type", "application/xml"),
        ]
    )
