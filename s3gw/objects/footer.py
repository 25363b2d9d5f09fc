"""The footer map of shards: what rescue needs to know a blob by without any metadata.

A MessagePack map with text keys, versioned by "v". Readers ignore keys they do not know.

    v          1
    store      id of the store: shards of another one are none of this one's
    kind       "object", "part", "manifest", "snapshot" or "name"
    bucket, key
    sequence   order among the versions of the key, as known when the blob was written; of a
               snapshot, the revision it is of
    modified_ms, owner, size, etag, checksums, checksum_kind
    headers, user, tags, storage_class; lock, encryption, compression, redirect when set
    versioning that of the bucket when the blob was written, when it has or had it
    named_key  a copy of the built-in named key that `encryption` names (KeyCopy)
    content_id 16 bytes
    former     of a name: keys that the content no longer has
    upload, number        for a part; upload for a manifest
    profile, scheme, stored, crc64    how the blob is coded (s3gw.cluster.coding_note)

The payload of a manifest's blob is a ManifestPage with all parts in order.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from s3gw.metadata.key_records import KeyCopy
from s3gw.metadata.records import Checksums, Description, Encryption, Lock, ProfileRecord

FOOTER_VERSION = 1

_encoder = msgspec.msgpack.Encoder()


def describe(
    kind: str,
    bucket: str,
    key: str,
    *,
    store: str,
    size: int,
    etag: str,
    modified_ms: int,
    owner: str,
    checksums: Checksums,
    description: Description | None = None,
    versioning: str = "",
    key_copy: KeyCopy | None = None,
    **more: Any,
) -> bytes:
    """The encoded footer map. The description's lock is the one that the version gets, also where
    it is the bucket's default."""
    fields: dict[str, Any] = {
        "v": FOOTER_VERSION,
        "store": store,
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
        # Not its access control list: one that was closed since would come back open.
        for name in ("lock", "encryption", "compression", "redirect"):
            if value := getattr(description, name):
                fields[name] = value
    if versioning:
        fields["versioning"] = versioning
    if key_copy is not None:
        fields["named_key"] = key_copy
    fields.update(more)
    return _encoder.encode(fields)


class FooterUnknown(Exception):
    """A footer map is not what this version can read."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**47)]


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """A footer map as read. What is absent has its default; `store`, `profile` and `scheme` are
    absent in shards of old versions. Numbers are within what records and dates can hold."""

    v: int
    kind: str
    store: str = ""
    bucket: str = ""
    key: str = ""
    sequence: Sequence = 0
    modified_ms: Milliseconds = 0
    owner: str = ""
    size: Count = 0
    etag: str = ""
    checksums: dict[str, str] = {}
    checksum_kind: str = ""
    headers: dict[str, str] = {}
    user: dict[str, str] = {}
    tags: dict[str, str] = {}
    storage_class: str = "STANDARD"
    lock: Lock | None = None
    encryption: Encryption | None = None
    named_key: KeyCopy | None = None
    compression: str = ""
    redirect: str = ""
    versioning: str = ""
    content_id: bytes = b""
    upload: bytes = b""
    number: Count = 0
    former: list[str] = []
    profile: ProfileRecord | None = None
    scheme: str = ""
    stored: int = -1
    crc64: int = -1

    @property
    def description(self) -> Description:
        return Description(
            self.headers,
            self.user,
            self.tags,
            self.storage_class,
            self.lock,
            self.encryption,
            self.compression,
            self.redirect,
        )


_decoder = msgspec.msgpack.Decoder(Footer)


def parse(footer_map: bytes) -> Footer:
    """Read a footer map. Raises FooterUnknown."""
    try:
        footer = _decoder.decode(footer_map)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FooterUnknown(str(error)) from error
    if footer.v != FOOTER_VERSION:
        raise FooterUnknown(f"footer version {footer.v} is not known")
    return footer
