"""The rows of inventory reports: what each column says of a version, and how files spell it.

CSV has no head: every value between double quotes, keys URL-encoded (UTF-8, `/` as it is), so that
no key can break a line. Parquet has the columns under the names and types that S3 gives them, and
keys as they are. A value that a version does not have is empty, or null.

Sources: Amazon S3 User Guide, "Amazon S3 Inventory list"; API Reference, InventoryConfiguration.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from urllib.parse import quote

from s3gw.buckets import acl
from s3gw.metadata.records import Lock, ManifestRef, ObjectRecord
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.version_ids import NULL, encode_version_id

Cell = str | int | bool | None
TEXT, NUMBER, FLAG, TIME = "text", "number", "flag", "time"
ENCRYPTION_STATUS = {"AES256": "SSE-S3", "aws:kms": "SSE-KMS", "customer": "SSE-C"}
ACL_VERSION = "2022-11-10"
NO_LOCK = Lock()
EXPIRY = "LifecycleExpirationDate"


def _lock(record: ObjectRecord) -> Lock:
    return record.description.lock or NO_LOCK


def _unless_marker(read: Callable[[ObjectRecord], Cell]) -> Callable[[ObjectRecord], Cell]:
    return lambda record: None if record.marker else read(record)


def _encryption_status(record: ObjectRecord) -> str:
    encryption = record.description.encryption
    return "NOT-SSE" if encryption is None else ENCRYPTION_STATUS[encryption.kind]


def _bucket_key(record: ObjectRecord) -> Cell:
    encryption = record.description.encryption
    if encryption is None or encryption.kind != "aws:kms":
        return None
    return "ENABLED" if encryption.bucket_key else "DISABLED"


def _grants(record: ObjectRecord) -> str:
    """The access control list as S3's JSON, in base64."""
    grants = []
    for grant in acl.stored(record.description.acl, record.owner):
        canonical = not grant.grantee.startswith("http")
        who = {"canonicalId": grant.grantee} if canonical else {"uri": grant.grantee}
        kind = "CanonicalUser" if canonical else "Group"
        grants.append({**who, "type": kind, "permission": grant.permission})
    document = {"version": ACL_VERSION, "status": "AVAILABLE", "grants": grants}
    return b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()


def _never(record: ObjectRecord) -> Cell:
    """Of features that this store does not have: no version has a value."""
    return None


# Column of S3: name in Parquet, type, and what it says of a version.
COLUMNS: dict[str, tuple[str, str, Callable[[ObjectRecord], Cell]]] = {
    "Size": ("size", NUMBER, _unless_marker(lambda record: record.size)),
    "LastModifiedDate": ("last_modified_date", TIME, lambda record: record.modified_ms),
    "StorageClass": (
        "storage_class",
        TEXT,
        _unless_marker(lambda record: record.description.storage_class),
    ),
    "ETag": ("e_tag", TEXT, _unless_marker(lambda record: record.etag)),
    "IsMultipartUploaded": (
        "is_multipart_uploaded",
        FLAG,
        _unless_marker(lambda record: isinstance(record.data, ManifestRef) or "-" in record.etag),
    ),
    "ReplicationStatus": ("replication_status", TEXT, _never),
    "EncryptionStatus": ("encryption_status", TEXT, _unless_marker(_encryption_status)),
    "ObjectLockRetainUntilDate": (
        "object_lock_retain_until_date",
        TIME,
        lambda record: _lock(record).until_ms or None,
    ),
    "ObjectLockMode": ("object_lock_mode", TEXT, lambda record: _lock(record).mode or None),
    "ObjectLockLegalHoldStatus": (
        "object_lock_legal_hold_status",
        TEXT,
        _unless_marker(lambda record: "On" if _lock(record).legal_hold else "Off"),
    ),
    "ObjectLockEventHoldStatus": ("object_lock_event_hold_status", TEXT, _never),
    "ObjectLockEventHoldDuration": ("object_lock_event_hold_duration", TEXT, _never),
    "IntelligentTieringAccessTier": ("intelligent_tiering_access_tier", TEXT, _never),
    "BucketKeyStatus": ("bucket_key_status", TEXT, _unless_marker(_bucket_key)),
    "ChecksumAlgorithm": (
        "checksum_algorithm",
        TEXT,
        lambda record: ",".join(record.checksums.values) or None,
    ),
    "ObjectAccessControlList": (
        "object_access_control_list",
        TEXT,
        _unless_marker(_grants),
    ),
    "ObjectOwner": ("object_owner", TEXT, lambda record: record.owner),
    "IntelligentTieringReferenceDate": ("intelligent_tiering_reference_date", TIME, _never),
}
# What a record alone does not say.
FIXED = {
    "Bucket": ("bucket", TEXT),
    "Key": ("key", TEXT),
    "VersionId": ("version_id", TEXT),
    "IsLatest": ("is_latest", FLAG),
    "IsDeleteMarker": ("is_delete_marker", FLAG),
    EXPIRY: ("lifecycle_expiration_date", TIME),
}
REQUIRED = frozenset({"Bucket", "Key", "IsLatest", "IsDeleteMarker"})
PARQUET_TYPES = {
    TEXT: "binary {} (STRING)",
    NUMBER: "int64 {}",
    FLAG: "boolean {}",
    TIME: "int64 {} (TIMESTAMP(MILLIS,true))",
}


def column_of(name: str) -> tuple[str, str]:
    """A column's name in Parquet, and its type."""
    return FIXED[name] if name in FIXED else COLUMNS[name][:2]


def schema_of(columns: Sequence[str], *, parquet: bool) -> str:
    """The columns as the manifest names them."""
    if not parquet:
        return ", ".join(columns)
    lines = []
    for name in columns:
        spelled, kind = column_of(name)
        need = "required" if name in REQUIRED else "optional"
        lines.append(f"{need} {PARQUET_TYPES[kind].format(spelled)};")
    return "message s3.inventory { " + " ".join(lines) + "}"


def row_of(
    columns: Sequence[str],
    bucket: str,
    key: str,
    record: ObjectRecord,
    *,
    latest: bool,
    expiry_ms: int = 0,
) -> list[Cell]:
    """The values of a version, in the order of the columns. Times are Unix milliseconds;
    `expiry_ms` is when lifecycle rules remove the version, 0 for never."""
    fixed: dict[str, Cell] = {
        "Bucket": bucket,
        "Key": key,
        "VersionId": NULL if record.null_version else encode_version_id(record.sequence),
        "IsLatest": latest,
        "IsDeleteMarker": record.marker,
        EXPIRY: expiry_ms or None,
    }
    return [fixed[name] if name in fixed else COLUMNS[name][2](record) for name in columns]


def csv_line(columns: Sequence[str], row: Sequence[Cell]) -> bytes:
    """A row as a line of CSV."""
    cells = map(_csv_cell, columns, row)
    return (",".join(cells) + "\n").encode()


def _csv_cell(name: str, value: Cell) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return '"true"' if value else '"false"'
    if name == "Key":
        return f'"{quote(str(value), safe="/")}"'
    if isinstance(value, int) and column_of(name)[1] == TIME:
        return f'"{iso8601_ms(value)}"'
    return '"' + str(value).replace('"', '""') + '"'
