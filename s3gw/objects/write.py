"""PutObject in terms of storage: ingest the body, publish the version."""

from __future__ import annotations

import os
from base64 import b64encode

import msgspec

from s3gw import errors, limits
from s3gw.metadata import keys
from s3gw.metadata.records import Checksums, Description, ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects import footer, publish
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.ingest import WHOLE, Ingested, Learned, Payload, ingest
from s3gw.objects.profiles import known_profile, profile_of
from s3gw.objects.publish import Check, Target
from s3gw.objects.storage import Storage


async def put_object(
    storage: Storage,
    target: Target,
    owner: str,
    description: Description,
    payload: Payload,
    check: Check,
    framing: Framing = PLAIN,
) -> ObjectRecord:
    """Store a body and make it the visible version of the key; with a framing, as that says and the
    description describes. Raises S3Error, OutcomeUnknown."""
    return await store_version(
        storage,
        target,
        owner,
        description,
        payload,
        check,
        content_id=framing.content_id or os.urandom(16),
        most=limits.SINGLE_PUT_BYTES_MAX,
        framing=framing,
    )


async def store_version(
    storage: Storage,
    target: Target,
    owner: str,
    description: Description,
    payload: Payload,
    check: Check,
    *,
    content_id: bytes,
    most: int,
    framing: Framing = PLAIN,
) -> ObjectRecord:
    """Write at most `most` bytes as a new blob and publish it. `content_id` is that of other
    versions exactly if their bytes, as stored, are the same; the one of `framing` if it has one."""
    check(target)
    started = storage.monotonic()
    modified_ms = storage.clock_ms()
    locked = publish.under_default(target.bucket, description, modified_ms)

    def footer_map(learned: Learned) -> bytes:
        return footer.describe(
            "object",
            target.bucket_name,
            target.key,
            store=storage.store.identity.store_id,
            size=learned.size,
            etag=learned.etag,
            modified_ms=modified_ms,
            owner=owner,
            checksums=checksums_of(learned),
            description=_stored(locked, learned),
            versioning=target.bucket.versioning,
            key_copy=framing.key_copy,
            sequence=publish.sequence_of(storage, target),
            content_id=content_id,
        )

    profile = await profile_of(storage, target.bucket, description.storage_class)
    ingested = await ingest(
        storage,
        profile,
        target.bucket_name,
        payload,
        footer_map,
        most=most,
        placement=target.bucket.placement,
        framing=framing,
    )
    refuse_if_old(storage, started)
    placed = publish.Placed(ingested.written)

    def build(tx: Transaction, now: Target) -> ObjectRecord:
        sequence = publish.sequence_of(storage, now)
        holder = keys.object_holder(now.bucket_name, now.key, sequence)
        wanted = known_profile(storage, now.bucket, description.storage_class)
        ref = publish.add_new_blob(storage, tx, now.bucket_name, placed, holder, profile=wanted)
        storage.ring.guard(tx, description.encryption)
        return ObjectRecord(
            sequence=sequence,
            modified_ms=modified_ms,
            owner=owner,
            size=ingested.size,
            etag=ingested.etag,
            data=ref,
            description=_stored(description, ingested),
            checksums=checksums_of(ingested),
            content_id=content_id,
        )

    return await publish.publish(storage, target, check, build, placed=placed)


def _stored(description: Description, learned: Learned | Ingested) -> Description:
    """What is said of a content as it was stored."""
    return msgspec.structs.replace(description, compression=learned.compression)


def checksums_of(learned: Learned | Ingested) -> Checksums:
    """The checksums to keep: those asked for, else the CRC64NVME of a content whose blob has that
    of other bytes."""
    if learned.checksums.values or learned.crc64 < 0:
        return learned.checksums
    value = b64encode(learned.crc64.to_bytes(8, "big")).decode()
    return Checksums({WHOLE: value}, "FULL_OBJECT")


def refuse_if_old(storage: Storage, started: float) -> None:
    """A write that took longer than orphans live on drives is not published."""
    if storage.monotonic() - started > limits.WRITE_AGE_SECONDS_MAX:
        raise errors.RequestTimeout("The request took too long to be stored.")
