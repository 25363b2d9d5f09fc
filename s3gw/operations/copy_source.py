"""The source of CopyObject and UploadPartCopy: named by a header, authorized, loaded."""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets.names import is_well_formed
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import publish
from s3gw.objects.copy import source_version
from s3gw.objects.keyring.ring import SSE_KMS
from s3gw.objects.publish import Target
from s3gw.operations.access import Resource
from s3gw.operations.call import Call
from s3gw.operations.encryption import OPEN_KEY, SOURCE, opening_key, require_key
from s3gw.operations.present import current_of, version_headers
from s3gw.wire.conditions import COPY_SOURCE_PREFIX, ReadConditions
from s3gw.wire.copy_source import parse_copy_source
from s3gw.wire.version_ids import decode_version_id


async def load_source(call: Call) -> Target:
    """The source's bucket and key, and the version named, as read now. Raises NoSuchBucket,
    NoSuchKey, NoSuchVersion, InvalidArgument, InvalidRequest for a delete marker that is named,
    AccessDenied if the caller may not read it or its bucket is not the
    expected owner's."""
    named = parse_copy_source(call.headers["x-amz-copy-source"])
    if not is_well_formed(named.bucket.encode()):
        raise errors.InvalidArgument(
            "Invalid copy source bucket name",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=call.headers["x-amz-copy-source"],
        )
    asked = None
    if named.version_id is not None:
        asked = decode_version_id(named.version_id, "x-amz-copy-source")
    source = await publish.read_target(call.storage, named.bucket, named.key, asked)
    _authorize(call, source, None if source.found is None else source.found.record)
    call.access.require_owner(call, "x-amz-source-expected-bucket-owner", source.bucket.owner)
    source_version(source)  # or its error
    return source


def _authorize(call: Call, source: Target, record: ObjectRecord | None) -> None:
    """Whether the caller may copy this version. Raises AccessDenied."""
    version_id = parse_copy_source(call.headers["x-amz-copy-source"]).version_id
    resource = Resource(source.bucket_name, source.bucket, source.key, True, record, version_id)
    named_version = version_id is not None
    read = "s3:GetObjectVersion" if named_version else "s3:GetObject"
    call.access.require(call, read, resource)
    copies_tags = call.headers.get("x-amz-tagging-directive", "COPY") == "COPY"
    tagged = record is not None and record.description.tags
    if call.operation == "CopyObject" and copies_tags and tagged:
        read = "s3:GetObjectVersionTagging" if named_version else "s3:GetObjectTagging"
        call.access.require(call, read, resource)
        call.access.require(call, "s3:PutObjectTagging", call.access.resource_of(call))


def check_source(call: Call, source: Target, now: Target) -> None:
    """The `x-amz-copy-source-if-*` conditions, and the key that opens the source; whether the
    caller may copy it, if it was read again since `load_source` found `source`. Raises
    PreconditionFailed, InvalidRequest without the key, AccessDenied."""
    record = source_version(now).record
    if now is not source:
        _authorize(call, now, record)
    encryption = record.description.encryption
    opening_key(call, encryption, SOURCE)
    if encryption is not None and encryption.kind == SSE_KMS:
        require_key(call, OPEN_KEY, encryption.key_name)
    current = current_of(record)
    assert current is not None
    ReadConditions.of(call.headers, COPY_SOURCE_PREFIX).check_copy_source(current)


def source_headers(source: Target) -> list[tuple[str, str]]:
    """`x-amz-copy-source-version-id`, of the version as it was found."""
    record = source_version(source).record
    return version_headers(source.bucket, record, "x-amz-copy-source-version-id")
