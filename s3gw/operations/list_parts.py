"""ListParts."""

from __future__ import annotations

from s3gw import limits
from s3gw.objects.multipart import list_parts as parts_after
from s3gw.operations.begun_upload import begun_upload
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.lifecycle_headers import abort_headers
from s3gw.operations.parameters import integer
from s3gw.operations.present import initiator_of, quoted, write_owner
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.xml import Writer


async def list_parts(call: Call) -> Reply:
    """A page of the parts of an upload, by number."""
    upload = await begun_upload(call, "s3:ListMultipartUploadParts")
    marker = integer(call, "part-number-marker", default=0)
    asked = integer(call, "max-parts", default=limits.LIST_PAGE_KEYS_MAX)
    most = min(asked, limits.LIST_PAGE_KEYS_MAX)
    after = min(marker, limits.PART_NUMBER_MAX)
    parts, more = await parts_after(call.storage, upload.upload_id, after=after, most=most)
    writer = Writer("ListPartsResult")
    writer.element("Bucket", call.bucket_name)
    writer.element("Key", call.key)
    writer.element("UploadId", upload.upload_id.hex())
    writer.element("PartNumberMarker", marker)
    if parts.records:
        writer.element("NextPartNumberMarker", parts.records[-1].number)
    writer.element("MaxParts", most)
    writer.flag("IsTruncated", more and most > 0)
    for part in parts.records:
        writer.open("Part")
        writer.element("PartNumber", part.number)
        writer.element("LastModified", iso8601_ms(part.modified_ms))
        writer.element("ETag", quoted(part.etag))
        writer.element("Size", part.size)
        for name, value in part.checksums.values.items():
            writer.element(f"Checksum{name}", value)
        writer.close("Part")
    write_owner(writer, "Initiator", initiator_of(upload.record, call.owner))
    write_owner(writer, "Owner", call.owner)
    writer.element("StorageClass", upload.record.description.storage_class)
    if upload.record.checksum_algorithm:
        writer.element("ChecksumAlgorithm", upload.record.checksum_algorithm)
        writer.element("ChecksumType", upload.record.checksum_type)
    reply = xml_reply(writer.finish())
    reply.headers += abort_headers(call, upload.record.initiated_ms)
    return reply
