"""S3 operations on a process, as short as tests want them."""

from __future__ import annotations

import msgspec

from s3gw.metadata.records import BlobRef, Description, ObjectRecord, PartRecord
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.complete import Completed, Completion, PartChoice, complete_upload
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.delete import Deleted, delete_object
from s3gw.objects.multipart import abort_upload, create_upload, find_upload, list_parts, upload_part
from s3gw.objects.part_copy import share_part
from s3gw.objects.publish import no_check
from s3gw.objects.read import read_data
from s3gw.objects.rename import Renaming, rename_object
from s3gw.objects.restore import Emptied, Restored, take_away
from s3gw.objects.restore import restore as restore_trashed
from s3gw.objects.trash import list_trash
from s3gw.objects.write import put_object
from tests.stores.memory_store import BUCKET, Bytes, Process


async def put(process: Process, key: str, data: bytes) -> ObjectRecord:
    return await put_on(process, await publish.read_target(process.storage, BUCKET, key), data)


async def put_on(process: Process, target: publish.Target, data: bytes) -> ObjectRecord:
    """PutObject as decided on a reading."""
    return await put_object(process.storage, target, "owner", Description(), Bytes(data), no_check)


async def record(process: Process, key: str) -> ObjectRecord | None:
    return (await publish.read_target(process.storage, BUCKET, key)).visible


async def get(process: Process, key: str, first: int = 0, stop: int | None = None) -> bytes:
    found = await record(process, key)
    assert found is not None, f"{key} is not there"
    end = found.size if stop is None else stop
    pieces = [
        bytes(buffer)
        async for buffers in read_data(process.storage, found.data, first, end)
        for buffer in buffers
    ]
    return b"".join(pieces)


async def delete(process: Process, key: str) -> None:
    target = await publish.read_target(process.storage, BUCKET, key)
    await delete_object(process.storage, target, no_check)


async def copy(process: Process, source: str, key: str) -> ObjectRecord:
    return await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, source),
        await publish.read_target(process.storage, BUCKET, key),
        Copying("owner", lambda found: found.description, "", no_check, lambda found: None),
    )


async def start(process: Process, key: str) -> bytes:
    return await create_upload(
        process.storage,
        BUCKET,
        key,
        "owner",
        Description(),
        checksum_algorithm="",
        checksum_type="",
    )


async def part(process: Process, key: str, upload_id: bytes, number: int, data: bytes) -> None:
    upload = await find_upload(process.storage, BUCKET, key, upload_id, number)
    await upload_part(process.storage, upload, number, Bytes(data))


async def complete(
    process: Process, key: str, upload_id: bytes, *, leave_out: tuple[int, ...] = ()
) -> Completed:
    parts, _ = await list_parts(process.storage, upload_id)
    choices = [
        PartChoice(part.number, part.etag, {})
        for part in parts.records
        if part.number not in leave_out
    ]
    completion = Completion(choices, no_check, {}, "", -1)
    return await complete_upload(process.storage, BUCKET, key, upload_id, completion)


async def abort(process: Process, key: str, upload_id: bytes) -> None:
    await abort_upload(process.storage, await find_upload(process.storage, BUCKET, key, upload_id))


async def blob_of(process: Process, key: str) -> BlobRef:
    found = await record(process, key)
    assert found is not None
    assert isinstance(found.data, BlobRef)
    return found.data


async def set_versioning(process: Process, state: str) -> None:
    await change_bucket(
        process.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, versioning=state)
    )


async def version(process: Process, key: str, sequence: int) -> ObjectRecord | None:
    """The version with this sequence, NULL_VERSION for the null version."""
    found = (await publish.read_target(process.storage, BUCKET, key, sequence)).found
    return None if found is None else found.record


async def remove(process: Process, key: str, sequence: int | None = None) -> Deleted:
    """DeleteObject, of a version if one is named."""
    target = await publish.read_target(process.storage, BUCKET, key, sequence)
    return await delete_object(process.storage, target, no_check, owner="owner")


async def rename(process: Process, source: str, key: str, token: bytes = b"") -> str:
    """RenameObject, with a token if one is given."""
    return await rename_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, source),
        await publish.read_target(process.storage, BUCKET, key),
        Renaming("owner", lambda found: None, no_check, token, source.encode() + key.encode()),
    )


def of_all(source: publish.Target) -> tuple[int, int]:
    """The span of a whole object."""
    assert source.visible is not None
    return 0, source.visible.size


async def copy_part(
    process: Process, source: str, key: str, upload_id: bytes, number: int
) -> PartRecord | None:
    """UploadPartCopy of a whole object, as far as its blob can be shared."""
    upload = await find_upload(process.storage, BUCKET, key, upload_id, number)
    target = await publish.read_target(process.storage, BUCKET, source)
    return await share_part(process.storage, upload, number, target, of_all)


async def untrash(process: Process, key: str, sequence: int) -> Restored:
    """Bring back from the trash, over what is there."""
    return await restore_trashed(process.storage, BUCKET, key, sequence, replace=True)


async def empty_trash(process: Process, prefix: str) -> None:
    found, _ = await list_trash(process.storage, BUCKET, prefix, most=1000)
    await take_away(process.storage, found, Emptied())


async def set_trash(process: Process, seconds: float) -> None:
    await change_bucket(
        process.storage,
        BUCKET,
        lambda bucket: msgspec.structs.replace(bucket, trash_ms=int(seconds * 1000)),
    )


async def restore(process: Process, source: str, sequence: int | None, key: str) -> ObjectRecord:
    """Copy a version onto a key."""
    return await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, source, sequence),
        await publish.read_target(process.storage, BUCKET, key),
        Copying("owner", lambda found: found.description, "", no_check, lambda found: None),
    )


def noncurrent(process: Process, record: ObjectRecord) -> ObjectRecord:
    """A version as it is once a newer one has come, now."""
    return msgspec.structs.replace(record, noncurrent_ms=process.storage.clock_ms())
