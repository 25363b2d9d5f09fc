"""GetBucketLocation."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.create_bucket import US_EAST_1
from s3gw.wire.xml import Writer, escape


async def get_bucket_location(call: Call) -> Reply:
    """The bucket's region; empty for us-east-1, as on S3."""
    region = "" if call.bucket.region == US_EAST_1 else call.bucket.region
    writer = Writer("LocationConstraint")
    writer.raw(escape(region))
    return xml_reply(writer.finish())
