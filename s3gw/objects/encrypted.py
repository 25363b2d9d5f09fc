"""The framing of objects: made for new ones, found for stored ones.

An object whose bucket has neither a default encryption nor compression, and whose request asks for
none, is plain: nothing here is awaited for it.
"""

from __future__ import annotations

import os

import msgspec

from s3gw.buckets.encryption import COMPRESSION, compressible
from s3gw.metadata.records import BucketRecord, Description, Encryption, ManifestRef, ObjectRecord
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.content.sealing import CONTENT_ID_BYTES
from s3gw.objects.keyring.ring import SSE_C, SSE_KMS, SSE_S3, Wanted
from s3gw.objects.storage import Storage


async def frame(
    storage: Storage,
    bucket: BucketRecord,
    description: Description,
    wanted: Wanted | None,
    *,
    content_id: bytes = b"",
) -> tuple[Description, Framing]:
    """The framing of a new object or upload of this description, encrypted as `wanted`, and the
    description that says so. Raises S3Error."""
    compression = compression_of(bucket, description)
    if wanted is None and not compression:
        return description, PLAIN
    content_id = content_id or os.urandom(CONTENT_ID_BYTES)
    data_key, encryption, copy = b"", None, None
    if wanted is not None:
        data_key, encryption, copy = await storage.ring.new_key(wanted, content_id)
    described = msgspec.structs.replace(description, encryption=encryption, compression=compression)
    return described, Framing(content_id, data_key, compression, hides_md5(encryption), copy)


def compression_of(bucket: BucketRecord, description: Description) -> str:
    """The compression to try for a new object; "" for none."""
    wanted = bucket.documents.get(COMPRESSION)
    if wanted is None:
        return ""
    headers = description.headers
    worth = compressible(headers.get("content-type", ""), headers.get("content-encoding", ""))
    return wanted.decode() if worth else ""


def hides_md5(encryption: Encryption | None) -> bool:
    """Whether the ETag is not the MD5, as on S3 with keys that are not its own."""
    return encryption is not None and encryption.kind != SSE_S3


async def framing_of(
    storage: Storage, description: Description, content_id: bytes, customer_key: bytes = b""
) -> Framing:
    """The framing of what is stored. Raises S3Error, ContentDamaged."""
    encryption = description.encryption
    if encryption is None and not description.compression:
        return PLAIN
    data_key = b""
    if encryption is not None:
        data_key = await storage.ring.open(encryption, content_id, customer_key)
    return Framing(content_id, data_key, description.compression, hides_md5(encryption))


async def framing_of_version(
    storage: Storage, record: ObjectRecord, customer_key: bytes = b""
) -> Framing:
    """The framing of a version; of one made of parts, that which theirs follow from. Raises
    S3Error, ContentDamaged."""
    description = record.description
    if isinstance(record.data, ManifestRef) and description.encryption is None:
        return PLAIN  # each part says whether it is compressed
    return await framing_of(storage, description, record.content_id, customer_key)


def same_keys(
    storage: Storage, held: Encryption | None, wanted: Wanted | None, customer_key: bytes
) -> bool:
    """Whether a copy that is `wanted` so can keep the source's data key as it is wrapped;
    `customer_key` is what opens the source."""
    if held is None or wanted is None:
        return held is None and wanted is None
    if held.kind != wanted.kind:
        return False
    if held.kind == SSE_C:
        return customer_key == wanted.customer_key
    if held.kind == SSE_KMS:
        ring = storage.ring
        return held.context == wanted.context and held.key_name == ring.arn(
            ring.name_of(wanted.key_name)
        )
    return True
