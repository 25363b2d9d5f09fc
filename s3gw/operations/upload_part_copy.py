"""UploadPartCopy."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.objects.copy import StoredPayload, source_version
from s3gw.objects.multipart import find_upload, upload_part
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.copy_source import check_source, load_source, source_headers
from s3gw.operations.encryption import SOURCE, encryption_headers, opened, opened_upload
from s3gw.operations.parameters import part_number, upload_id
from s3gw.operations.present import quoted
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.ranges import parse_copy_range
from s3gw.wire.xml import Writer


async def upload_part_copy(call: Call) -> Reply:
    """Store a stored object, or a range of it, as a part of an upload."""
    number = part_number(call)
    upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call), number)
    source = await load_source(call)
    record = source_version(source).record
    check_source(call, record)
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
    payload = StoredPayload(
        call.storage,
        record.data,
        first,
        stop,
        upload.record.checksum_algorithm,
        await opened(call, record, SOURCE),
        record.size,
    )
    framing = await opened_upload(call, upload)
    part = await upload_part(call.storage, upload, number, payload, framing)
    writer = Writer("CopyPartResult")
    writer.element("LastModified", iso8601_ms(part.modified_ms))
    writer.element("ETag", quoted(part.etag))
    for name, value in part.checksums.values.items():
        writer.element(f"Checksum{name}", value)
    reply = xml_reply(writer.finish())
    reply.headers += source_headers(source)
    reply.headers += encryption_headers(call, upload.record.description.encryption)
    return reply
