"""DeleteObject."""

from __future__ import annotations

from s3gw.objects.delete import delete_object as remove_object
from s3gw.objects.publish import Target
from s3gw.operations.access import bypasses
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import current_of
from s3gw.wire.conditions import WriteConditions
from s3gw.wire.version_ids import decode_version_id


async def delete_object(call: Call) -> Reply:
    """Remove the version named, or hide the key; 204 also when there is none."""
    if "versionId" in call.query:
        decode_version_id(call.query["versionId"])
    conditions = WriteConditions.of_delete(call.headers)

    def check(target: Target) -> None:
        call.access.require_still(call, target.bucket, target.bucket_revision, target)
        conditions.check(current_of(target.shown))

    deleted = await remove_object(
        call.storage,
        call.target,
        check,
        owner=call.owner.id,
        bypass=bypasses(call),
    )
    reply = Reply(204)
    if deleted.version_id:
        reply.headers.append(("x-amz-version-id", deleted.version_id))
    if deleted.marker:
        reply.headers.append(("x-amz-delete-marker", "true"))
    return reply
