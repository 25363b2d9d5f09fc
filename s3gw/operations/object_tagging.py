"""PutObjectTagging and DeleteObjectTagging."""

from __future__ import annotations

import msgspec

from s3gw.buckets.tagging import parse_object_tags
from s3gw.metadata.records import ObjectRecord
from s3gw.objects.change import change_version
from s3gw.operations.access import still_allowed
from s3gw.operations.bucket_documents import parse_body
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import version_headers, visible
from s3gw.operations.request_values import tag_values


async def put_object_tagging(call: Call) -> Reply:
    """Replace a version's tags. Whether the caller may give these is asked once they are known."""
    tags = await parse_body(call, parse_object_tags)
    named = "versionId" in call.query
    action = "s3:PutObjectVersionTagging" if named else "s3:PutObjectTagging"
    call.access.require_row(call, action, tag_values(tags))
    return await _set_tags(call, tags, 200)


async def delete_object_tagging(call: Call) -> Reply:
    """Remove a version's tags."""
    return await _set_tags(call, {}, 204)


async def _set_tags(call: Call, tags: dict[str, str], status: int) -> Reply:
    visible(call)  # or its error

    def change(record: ObjectRecord) -> ObjectRecord:
        description = msgspec.structs.replace(record.description, tags=tags)
        return msgspec.structs.replace(record, description=description)

    record = await change_version(call.storage, call.target, change, still_allowed(call))
    return Reply(status, version_headers(call.bucket, record))
