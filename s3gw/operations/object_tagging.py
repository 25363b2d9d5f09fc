"""PutObjectTagging and DeleteObjectTagging."""

from __future__ import annotations

from s3gw.buckets.tagging import parse_object_tags
from s3gw.objects.retag import retag
from s3gw.operations.bucket_documents import parse_body
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import visible


async def put_object_tagging(call: Call) -> Reply:
    """Replace a version's tags."""
    await _set_tags(call, await parse_body(call, parse_object_tags))
    return Reply()


async def delete_object_tagging(call: Call) -> Reply:
    """Remove a version's tags."""
    await _set_tags(call, {})
    return Reply(204)


async def _set_tags(call: Call, tags: dict[str, str]) -> None:
    visible(call)
    await retag(call.storage, call.target, tags)
