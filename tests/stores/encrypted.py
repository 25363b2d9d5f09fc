"""Encrypted and compressed objects on a process, as short as tests want them."""

from __future__ import annotations

import msgspec

from s3gw.buckets.encryption import COMPRESSION
from s3gw.metadata import keys
from s3gw.metadata.records import Description, ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.encrypted import frame, framing_of, framing_of_version
from s3gw.objects.keyring.ring import SSE_C, SSE_KMS, SSE_S3, Wanted
from s3gw.objects.multipart import create_upload, find_upload, new_upload_id, upload_part
from s3gw.objects.publish import no_check
from s3gw.objects.reading import read_version
from s3gw.objects.write import put_object
from tests.stores import operations
from tests.stores.memory_store import BUCKET, Bytes, Process

CUSTOMER = b"c" * 32
S3 = Wanted(SSE_S3)
KMS = Wanted(SSE_KMS, "default")
OWN = Wanted(SSE_C, customer_key=CUSTOMER)
ALL = {"S3": S3, "KMS": KMS, "own": OWN}


def key_of(wanted: Wanted | None) -> bytes:
    return wanted.customer_key if wanted is not None else b""


async def put(process: Process, key: str, data: bytes, wanted: Wanted | None = S3) -> ObjectRecord:
    target = await publish.read_target(process.storage, BUCKET, key)
    description, framing = await frame(process.storage, target.bucket, Description(), wanted)
    return await put_object(
        process.storage, target, "owner", description, Bytes(data), no_check, framing
    )


async def get(
    process: Process,
    key: str,
    first: int = 0,
    stop: int | None = None,
    wanted: Wanted | None = S3,
) -> bytes:
    target = await publish.read_target(process.storage, BUCKET, key)
    record = target.visible
    assert record is not None, f"{key} is not there"
    framing = await framing_of_version(process.storage, record, key_of(wanted))
    end = record.size if stop is None else stop
    pieces = read_version(process.storage, target, record, first, end, framing)
    return b"".join([bytes(buffer) async for buffers in pieces for buffer in buffers])


async def begin(process: Process, key: str, wanted: Wanted | None = S3) -> bytes:
    """Start an upload; its id."""
    storage = process.storage
    upload_id = new_upload_id(storage.clock_ms())
    target = await publish.read_target(storage, BUCKET, key)
    description, _ = await frame(
        storage, target.bucket, Description(), wanted, content_id=upload_id
    )
    await create_upload(
        storage,
        BUCKET,
        key,
        "owner",
        description,
        checksum_algorithm="",
        checksum_type="",
        upload_id=upload_id,
    )
    return upload_id


async def multipart(
    process: Process, key: str, bodies: list[bytes], wanted: Wanted | None = S3
) -> bytes:
    """Upload and complete parts; the upload's id."""
    upload_id = await begin(process, key, wanted)
    await finish(process, key, upload_id, bodies, wanted)
    return upload_id


async def finish(
    process: Process, key: str, upload_id: bytes, bodies: list[bytes], wanted: Wanted | None
) -> None:
    """Upload and complete the parts of an upload that was begun."""
    storage = process.storage
    for number, body in enumerate(bodies, 1):
        upload = await find_upload(storage, BUCKET, key, upload_id, number)
        description = upload.record.description
        framing = await framing_of(storage, description, upload_id, key_of(wanted))
        await upload_part(storage, upload, number, Bytes(body), framing)
    await operations.complete(process, key, upload_id)


async def copy(
    process: Process,
    source: str,
    key: str,
    wanted: Wanted | None = S3,
    source_key: bytes = b"",
) -> ObjectRecord:
    def described(record: ObjectRecord) -> Description:
        return msgspec.structs.replace(record.description, encryption=None, compression="")

    return await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, source),
        await publish.read_target(process.storage, BUCKET, key),
        Copying("owner", described, "", no_check, lambda found: None, wanted, source_key),
    )


async def compress(process: Process, kind: bytes = b"zstd") -> None:
    """Let the bucket compress what is new."""
    await change_bucket(
        process.storage,
        BUCKET,
        lambda bucket: msgspec.structs.replace(
            bucket, documents={**bucket.documents, COMPRESSION: kind}
        ),
    )


async def overwrite(process: Process, key: str, record: ObjectRecord) -> None:
    """Change a record as somebody with the metadata in his hands would."""
    tx = Transaction()
    tx.put(keys.object_(BUCKET, key), record)
    await process.kv.commit([], list(tx.writes.values()))
