"""DeleteObject."""

from __future__ import annotations

from s3gw.objects.delete import delete_object as remove_object
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import check_version, current_of
from s3gw.wire.conditions import WriteConditions


async def delete_object(call: Call) -> Reply:
    """Remove the key's visible version; 204 also when there is none."""
    check_version(call.query.get("versionId"))
    conditions = WriteConditions.of_delete(call.headers)
    await remove_object(
        call.storage, call.target, lambda record: conditions.check(current_of(record))
    )
    return Reply(204)
