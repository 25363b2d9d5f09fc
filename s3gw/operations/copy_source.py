"""The source of CopyObject and UploadPartCopy: named by a header, authorized, loaded."""

from __future__ import annotations

from s3gw import errors
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import publish
from s3gw.objects.publish import Target
from s3gw.operations.call import Call
from s3gw.operations.present import check_version, current_of
from s3gw.wire.conditions import COPY_SOURCE_PREFIX, ReadConditions
from s3gw.wire.copy_source import parse_copy_source


async def load_source(call: Call) -> Target:
    """The source's bucket and key as read now. Raises NoSuchBucket, NoSuchKey, InvalidArgument."""
    named = parse_copy_source(call.headers["x-amz-copy-source"])
    check_version(named.version_id)
    source = await publish.read_target(call.storage, named.bucket, named.key)
    if source.visible is None:
        raise errors.NoSuchKey(Key=named.key)
    return source


def check_source(call: Call, record: ObjectRecord) -> None:
    """The `x-amz-copy-source-if-*` conditions. Raises PreconditionFailed."""
    current = current_of(record)
    assert current is not None
    ReadConditions.of(call.headers, COPY_SOURCE_PREFIX).check_copy_source(current)
