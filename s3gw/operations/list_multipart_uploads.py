"""ListMultipartUploads."""

from __future__ import annotations

from s3gw import errors
from s3gw.metadata.records import UploadRecord
from s3gw.objects.listing import Entry, page, uploads_of
from s3gw.operations.call import Call, Principal, Reply, xml_reply
from s3gw.operations.list_objects import ListRequest, write_prefixes
from s3gw.operations.present import initiator_of, write_owner
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.xml import Writer


async def list_multipart_uploads(call: Call) -> Reply:
    """A page of uploads by key, then by time of their creation."""
    request = ListRequest.of(call, "max-uploads")
    key_marker = call.query.get("key-marker", "")
    id_marker = call.query.get("upload-id-marker", "")
    listing = await page(
        call.storage,
        uploads_of(call.bucket_name),
        prefix=request.prefix,
        delimiter=request.delimiter,
        after=key_marker,
        after_mark=_mark(id_marker) if key_marker and id_marker else None,
        most=request.most,
    )
    writer = Writer("ListMultipartUploadsResult")
    writer.element("Bucket", call.bucket_name)
    writer.element("KeyMarker", request.encode(key_marker))
    writer.element("UploadIdMarker", id_marker if key_marker else "")
    if listing.truncated:
        writer.element("NextKeyMarker", request.encode(listing.last))
        writer.element("NextUploadIdMarker", listing.last_mark.hex())
    writer.element("Prefix", request.encode(request.prefix))
    if request.delimiter:
        writer.element("Delimiter", request.encode(request.delimiter))
    writer.element("MaxUploads", request.most)
    if request.encoded:
        writer.element("EncodingType", "url")
    writer.flag("IsTruncated", listing.truncated)
    for entry in listing.entries:
        _write_upload(writer, entry, request, call.owner)
    write_prefixes(writer, listing.prefixes, request)
    return xml_reply(writer.finish())


def _mark(text: str) -> bytes:
    try:
        mark = bytes.fromhex(text)
    except ValueError:
        mark = b""
    if len(mark) != 16:
        raise errors.InvalidArgument(
            "Invalid uploadId marker", ArgumentName="upload-id-marker", ArgumentValue=text
        )
    return mark


def _write_upload(
    writer: Writer, entry: Entry[UploadRecord], request: ListRequest, owner: Principal
) -> None:
    upload = entry.record
    writer.open("Upload")
    writer.element("Key", request.encode(entry.key))
    writer.element("UploadId", entry.mark.hex())
    write_owner(writer, "Initiator", initiator_of(upload, owner))
    write_owner(writer, "Owner", owner)
    writer.element("StorageClass", upload.description.storage_class)
    writer.element("Initiated", iso8601_ms(upload.initiated_ms))
    if upload.checksum_algorithm:
        writer.element("ChecksumAlgorithm", upload.checksum_algorithm)
        writer.element("ChecksumType", upload.checksum_type)
    writer.close("Upload")
