"""PutBucketTagging, GetBucketTagging and DeleteBucketTagging."""

from __future__ import annotations

import msgspec

from s3gw.buckets.tagging import parse_bucket_tags, render_tags
from s3gw.operations.bucket_documents import change_own_bucket, parse_body, require_checksum
from s3gw.operations.bucket_subresources import fresh_answer
from s3gw.operations.call import Call, Reply, xml_reply


async def put_bucket_tagging(call: Call) -> Reply:
    """Set the bucket's tags."""
    require_checksum(call)
    await _set_tags(call, await parse_body(call, parse_bucket_tags))
    return Reply(204)


async def get_bucket_tagging(call: Call) -> Reply:
    """The bucket's tags."""
    if not call.bucket.tags:
        return xml_reply(fresh_answer(call.operation, bucket=call.bucket_name))
    return xml_reply(render_tags(call.bucket.tags))


async def delete_bucket_tagging(call: Call) -> Reply:
    """Remove the bucket's tags."""
    await _set_tags(call, {})
    return Reply(204)


async def _set_tags(call: Call, tags: dict[str, str]) -> None:
    await change_own_bucket(call, lambda record: msgspec.structs.replace(record, tags=tags))
