"""GetObjectAttributes."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.metadata.records import ManifestRef, ObjectRecord, PartRecord
from s3gw.objects.read import manifest_page
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.encryption import opened
from s3gw.operations.present import checksums_of, version_headers, visible
from s3gw.wire.dates import http_date
from s3gw.wire.xml import Writer

ATTRIBUTES = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def get_object_attributes(call: Call) -> Reply:
    """The attributes of a version that the request names."""
    wanted = _wanted(call)
    record = visible(call)
    await opened(call, record, for_content=False)
    writer = Writer("GetObjectAttributesResponse")
    if "ETag" in wanted:
        writer.element("ETag", record.etag)
    checksums = checksums_of(record)
    if "Checksum" in wanted and checksums.values:
        writer.open("Checksum")
        for name, value in checksums.values.items():
            writer.element(f"Checksum{name}", value.partition("-")[0])
        writer.element("ChecksumType", checksums.kind)
        writer.close("Checksum")
    if "ObjectParts" in wanted and isinstance(record.data, ManifestRef):
        await _write_parts(call, writer, record, record.data)
    if "StorageClass" in wanted:
        writer.element("StorageClass", record.description.storage_class)
    if "ObjectSize" in wanted:
        writer.element("ObjectSize", record.size)
    reply = xml_reply(writer.finish())
    reply.headers.append(("Last-Modified", http_date(record.modified_ms // 1000)))
    reply.headers += version_headers(call.bucket, record)
    return reply


def _wanted(call: Call) -> frozenset[str]:
    header = call.headers.get("x-amz-object-attributes", "")
    names = [name.strip() for name in header.split(",") if name.strip()]
    if not names:
        raise errors.InvalidRequest(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is "
            "either missing or empty"
        )
    for name in names:
        if name not in ATTRIBUTES:
            raise errors.InvalidArgument(
                "Invalid attribute name specified.",
                ArgumentName="x-amz-object-attributes",
                ArgumentValue=name,
            )
    return frozenset(names)


def _number(call: Call, header: str, default: int) -> int:
    text = call.headers.get(header, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise errors.InvalidArgument(ArgumentName=header, ArgumentValue=text)
    return int(text)


async def _write_parts(
    call: Call, writer: Writer, record: ObjectRecord, manifest: ManifestRef
) -> None:
    """A page of parts; they are listed one by one only when they have checksums, as on S3."""
    after = _number(call, "x-amz-part-number-marker", 0)
    most = min(
        _number(call, "x-amz-max-parts", limits.LIST_PAGE_KEYS_MAX), limits.LIST_PAGE_KEYS_MAX
    )
    parts: list[PartRecord] = []
    for page in range(len(manifest.page_offsets)):
        if len(parts) > most:
            break
        listed = await manifest_page(call.storage, manifest.manifest, page)
        parts += [part for part in listed if part.number > after]
    shown = parts[:most]
    writer.open("ObjectParts")
    writer.element("PartsCount", manifest.part_count)
    if record.checksums.values:
        writer.element("PartNumberMarker", after)
        writer.element("NextPartNumberMarker", shown[-1].number if shown else 0)
        writer.element("MaxParts", most)
        writer.flag("IsTruncated", bool(shown) and len(parts) > most)
        for part in shown:
            writer.open("Part")
            writer.element("PartNumber", part.number)
            writer.element("Size", part.size)
            for name, value in part.checksums.values.items():
                writer.element(f"Checksum{name}", value)
            writer.close("Part")
    writer.close("ObjectParts")
