"""DeleteObject."""

from __future__ import annotations

from s3gw import errors
from s3gw.objects.delete import delete_object as remove_object
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import current_of
from s3gw.wire.conditions import WriteConditions


async def delete_object(call: Call) -> Reply:
    """Remove the key's visible version; 204 also when there is none."""
    check_version(call.query.get("versionId"))
    conditions = WriteConditions.of_delete(call.headers)
    await remove_object(
        call.storage, call.target, lambda record: conditions.check(current_of(record))
    )
    return Reply(204)


def check_version(version_id: str | None) -> None:
    """Without versioning a key has one version, `null`. Raises InvalidArgument."""
    if version_id not in (None, "null"):
        raise errors.InvalidArgument(
            "Invalid version id specified", ArgumentName="versionId", ArgumentValue=str(version_id)
        )
