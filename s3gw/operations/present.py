"""How stored records look to clients: response headers, owners, quoted ETags."""

from __future__ import annotations

from base64 import b64encode

from s3gw import errors
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Checksums,
    Lock,
    ManifestRef,
    ObjectRecord,
    UploadRecord,
)
from s3gw.objects.publish import version_id_of
from s3gw.operations.call import Call, Principal
from s3gw.wire.checksums import ALGORITHMS
from s3gw.wire.conditions import Current
from s3gw.wire.dates import http_date, iso8601_ms
from s3gw.wire.headers import metadata_headers
from s3gw.wire.version_ids import decode_version_id
from s3gw.wire.xml import Writer, url_encode

HEADER_NAMES = {
    "content-type": "Content-Type",
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}


def quoted(etag: str) -> str:
    """An ETag as clients see it."""
    return f'"{etag}"'


def current_of(record: ObjectRecord | None) -> Current | None:
    """What conditions are judged against."""
    if record is None:
        return None
    return Current(record.etag, record.modified_ms / 1000, record.size)


def visible(call: Call) -> ObjectRecord:
    """The version that the request names, or the key's visible one. Raises InvalidArgument,
    NoSuchKey, NoSuchVersion, and MethodNotAllowed for a delete marker that is named."""
    target = call.target
    version_id = call.query.get("versionId")
    if version_id is not None:
        decode_version_id(version_id)
    found = target.found
    if found is None:
        if version_id is not None:
            raise errors.NoSuchVersion(Key=call.key, VersionId=version_id)
        headers = {} if target.latest is None else _marker_headers(target.bucket, target.latest)
        raise errors.NoSuchKey(headers=headers, Key=call.key)
    if found.record.marker:
        raise errors.MethodNotAllowed(
            headers={
                "Allow": "DELETE",
                "Last-Modified": http_date(found.record.modified_ms // 1000),
                **_marker_headers(target.bucket, found.record),
            },
            Method=call.operation,
            ResourceType="DeleteMarker",
        )
    return found.record


def _marker_headers(bucket: BucketRecord, marker: ObjectRecord) -> dict[str, str]:
    return {"x-amz-delete-marker": "true", "x-amz-version-id": version_id_of(bucket, marker)}


def object_url(call: Call) -> str:
    """Where the object can be read, by the address that the request was sent to."""
    path = f"{call.bucket_name}/{call.key}"
    host = call.headers.get("host")
    if not host:
        return f"{call.settings.public_address}/{url_encode(path)}"
    if host.startswith(f"{call.bucket_name}."):
        path = call.key
    return f"{'https' if call.origin.secure else 'http'}://{host}/{url_encode(path)}"


def version_headers(
    bucket: BucketRecord, record: ObjectRecord, header: str = "x-amz-version-id"
) -> list[tuple[str, str]]:
    """The version's id, unless the bucket never had versioning."""
    version_id = version_id_of(bucket, record)
    return [(header, version_id)] if version_id else []


def checksum_headers(checksums: Checksums) -> list[tuple[str, str]]:
    """`x-amz-checksum-*` and its type."""
    if not checksums.values:
        return []
    headers = [(ALGORITHMS[name].header, value) for name, value in checksums.values.items()]
    return [*headers, ("x-amz-checksum-type", checksums.kind)]


def checksums_of(record: ObjectRecord) -> Checksums:
    """The checksums to show: those asked for, else the CRC64NVME that every blob has, which is
    what S3 computes by default."""
    if record.checksums.values or not isinstance(record.data, BlobRef):
        return record.checksums
    value = b64encode(record.data.crc64.to_bytes(8, "big")).decode()
    return Checksums({"CRC64NVME": value}, "FULL_OBJECT")


def object_headers(record: ObjectRecord, overrides: dict[str, str]) -> list[tuple[str, str]]:
    """The headers of a GET or HEAD of a version, but for its length, range and checksums."""
    stored = record.description.headers
    headers = [
        ("ETag", quoted(record.etag)),
        ("Last-Modified", http_date(record.modified_ms // 1000)),
        ("Accept-Ranges", "bytes"),
    ]
    for name, shown in HEADER_NAMES.items():
        value = overrides.get(name) or stored.get(name)
        if value:
            headers.append((shown, value))
    description = record.description
    if description.user:
        headers += metadata_headers(description.user)
    if description.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", description.storage_class))
    if description.tags:
        headers.append(("x-amz-tagging-count", str(len(description.tags))))
    if description.lock is not None:
        headers += _lock_headers(description.lock)
    if description.redirect:
        headers.append(("x-amz-website-redirect-location", description.redirect))
    return headers


def _lock_headers(lock: Lock) -> list[tuple[str, str]]:
    headers = []
    if lock.mode:
        headers.append(("x-amz-object-lock-mode", lock.mode))
        headers.append(("x-amz-object-lock-retain-until-date", iso8601_ms(lock.until_ms)))
    headers.append(("x-amz-object-lock-legal-hold", "ON" if lock.legal_hold else "OFF"))
    return headers


def cache_headers(record: ObjectRecord) -> dict[str, str]:
    """What a 304 repeats of a 200, beside ETag and date (RFC 9110 §15.4.5)."""
    stored = record.description.headers
    return {
        HEADER_NAMES[name]: stored[name] for name in ("cache-control", "expires") if name in stored
    }


def part_count(record: ObjectRecord) -> int:
    """Parts of a multipart object; 0 for others."""
    return record.data.part_count if isinstance(record.data, ManifestRef) else 0


def write_owner(writer: Writer, element: str, owner: Principal) -> None:
    """`<Owner>` or `<Initiator>`."""
    writer.open(element)
    writer.element("ID", owner.id)
    writer.element("DisplayName", owner.name)
    writer.close(element)


def initiator_of(upload: UploadRecord, owner: Principal) -> Principal:
    """Who began an upload: the owner, or a user or session, which goes by its ARN."""
    if not upload.initiator:
        return owner
    return Principal(upload.initiator, upload.initiator.rsplit("/", 1)[-1])
