"""ListObjectVersions."""

from __future__ import annotations

from s3gw import errors
from s3gw.objects.version_listing import VersionEntry, list_versions
from s3gw.operations.call import Call, Principal, Reply, xml_reply
from s3gw.operations.list_objects import ListRequest, write_prefixes
from s3gw.operations.present import checksums_of, quoted, write_owner
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.version_ids import NULL, decode_version_id, encode_version_id
from s3gw.wire.xml import Writer


async def list_object_versions(call: Call) -> Reply:
    """A page of versions, delete markers and common prefixes: by key, newest first. Without
    versioning every object is its null version.

    Where a page ends with a null version, its marker is the id that it would have had: `null` may
    be another version by the time the next page is asked for.
    """
    request = ListRequest.of(call)
    key_marker = call.query.get("key-marker", "")
    version_marker = call.query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise errors.InvalidArgument(
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=version_marker,
        )
    after_sequence = None
    if version_marker:
        after_sequence = decode_version_id(version_marker, "version-id-marker")
    listing = await list_versions(
        call.storage,
        call.bucket_name,
        prefix=request.prefix,
        delimiter=request.delimiter,
        most=request.most,
        after_key=key_marker,
        after_sequence=after_sequence,
    )
    writer = Writer("ListVersionsResult")
    writer.element("Name", call.bucket_name)
    writer.element("Prefix", request.encode(request.prefix))
    writer.element("KeyMarker", request.encode(key_marker))
    writer.element("VersionIdMarker", version_marker)
    if listing.truncated:
        writer.element("NextKeyMarker", request.encode(listing.last_key))
        if listing.last_sequence:
            writer.element("NextVersionIdMarker", encode_version_id(listing.last_sequence))
    writer.element("MaxKeys", request.most)
    if request.delimiter:
        writer.element("Delimiter", request.encode(request.delimiter))
    if request.encoded:
        writer.element("EncodingType", "url")
    writer.flag("IsTruncated", listing.truncated)
    for entry in listing.entries:
        _write_version(writer, entry, request, call.owner)
    write_prefixes(writer, listing.prefixes, request)
    return xml_reply(writer.finish())


def _write_version(
    writer: Writer, entry: VersionEntry, request: ListRequest, owner: Principal
) -> None:
    record = entry.record
    element = "DeleteMarker" if record.marker else "Version"
    writer.open(element)
    writer.element("Key", request.encode(entry.key))
    writer.element("VersionId", NULL if record.null_version else encode_version_id(record.sequence))
    writer.flag("IsLatest", entry.latest)
    writer.element("LastModified", iso8601_ms(record.modified_ms))
    if not record.marker:
        writer.element("ETag", quoted(record.etag))
        checksums = checksums_of(record)
        for name in checksums.values:
            writer.element("ChecksumAlgorithm", name)
        if checksums.values:
            writer.element("ChecksumType", checksums.kind)
        writer.element("Size", record.size)
        writer.element("StorageClass", record.description.storage_class)
    write_owner(writer, "Owner", owner)
    writer.close(element)
