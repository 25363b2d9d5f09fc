"""The footer map of shards: what rescue needs to know a blob by without any metadata.

A MessagePack map with text keys, versioned by "v". Readers ignore keys they do not know.

    v          1
    kind       "object", "part" or "manifest"
    bucket, key
    sequence   order among the versions of the key, as known when the blob was written
    modified_ms, owner, size, etag, checksums, checksum_kind
    headers, user, tags, storage_class
    content_id 16 bytes
    upload, number        for a part
    parts                 for a manifest: list of [number, size, etag, blob reference]
"""

from __future__ import annotations

from typing import Any

import msgspec

from s3gw.metadata.records import Checksums, Description

FOOTER_VERSION = 1

_encoder = msgspec.msgpack.Encoder()


def describe(
    kind: str,
    bucket: str,
    key: str,
    *,
    size: int,
    etag: str,
    modified_ms: int,
    owner: str,
    checksums: Checksums,
    description: Description | None = None,
    **more: Any,
) -> bytes:
    """The encoded footer map."""
    fields: dict[str, Any] = {
        "v": FOOTER_VERSION,
        "kind": kind,
        "bucket": bucket,
        "key": key,
        "size": size,
        "etag": etag,
        "modified_ms": modified_ms,
        "owner": owner,
    }
    if checksums.values:
        fields["checksums"] = checksums.values
        fields["checksum_kind"] = checksums.kind
    if description is not None:
        fields["headers"] = description.headers
        fields["user"] = description.user
        fields["tags"] = description.tags
        fields["storage_class"] = description.storage_class
        if description.encryption is not None:
            fields["encryption"] = description.encryption
    fields.update(more)
    return _encoder.encode(fields)
