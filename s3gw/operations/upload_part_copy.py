"""UploadPartCopy."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.objects.copy import StoredPayload, source_version
from s3gw.objects.multipart import find_upload, upload_part
from s3gw.objects.part_copy import Keys, share_part
from s3gw.objects.publish import Target
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.copy_source import check_source, load_source, source_headers
from s3gw.operations.encryption import (
    SOURCE,
    encryption_headers,
    opened,
    opened_upload,
    same_kept_keys,
)
from s3gw.operations.parameters import part_number, upload_id
from s3gw.operations.present import quoted
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.ranges import parse_copy_range
from s3gw.wire.xml import Writer


async def upload_part_copy(call: Call) -> Reply:
    """Store a stored object, or a range of it, as a part of an upload."""
    number = part_number(call)
    upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call), number)
    call.access.require_parts(call, upload.record.initiator_id)
    source = await load_source(call)
    record = source_version(source).record
    first, stop = _span(call, source, source)
    still_allowed = still_allowed_in_bucket(call)
    source_framing = await opened(call, record, SOURCE)
    framing = await opened_upload(call, upload)
    part = None
    if same_kept_keys(call, record.description.encryption, upload.record.description.encryption):
        held = Keys(record.content_id, source_framing, framing)
        part = await share_part(
            call.storage,
            upload,
            number,
            source,
            lambda now: _span(call, source, now),
            held,
            still_allowed,
        )
    if part is None:
        payload = StoredPayload(
            call.storage,
            record.data,
            first,
            stop,
            upload.record.checksum_algorithm,
            source_framing,
            record.size,
        )
        part = await upload_part(call.storage, upload, number, payload, framing, still_allowed)
    writer = Writer("CopyPartResult")
    writer.element("LastModified", iso8601_ms(part.modified_ms))
    writer.element("ETag", quoted(part.etag))
    for name, value in part.checksums.values.items():
        writer.element(f"Checksum{name}", value)
    reply = xml_reply(writer.finish())
    reply.headers += source_headers(source)
    reply.headers += encryption_headers(call, upload.record.description.encryption)
    return reply


def _span(call: Call, source: Target, now: Target) -> tuple[int, int]:
    """The bytes [first, stop) of the source, as it is read now, that are asked for. Raises
    PreconditionFailed, InvalidArgument, InvalidRequest, AccessDenied."""
    check_source(call, source, now)
    record = source_version(now).record
    first, stop = 0, record.size
    wanted = call.headers.get("x-amz-copy-source-range")
    if wanted is not None:
        copied = parse_copy_range(wanted, record.size)
        first, stop = copied.first, copied.last + 1
    if stop - first > limits.PART_BYTES_MAX:
        raise errors.InvalidRequest(
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {limits.PART_BYTES_MAX}"
        )
    return first, stop
