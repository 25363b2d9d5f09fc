"""Multipart uploads: create, parts, abort, and what Complete shares with them.

The upload id is the manifest id. An UploadPart commit is guarded by the upload's record, which it
does not write, and by its part's record: parts do not wait for each other, and none is added once
the upload is aborted or taken for completion.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from s3gw import errors, limits
from s3gw.cluster.topology import Profile
from s3gw.kv.interface import Conflict, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BucketRecord,
    Content,
    Description,
    PartRecord,
    UploadRecord,
    Usage,
    decode,
)
from s3gw.metadata.store import Transaction, Versioned, versioned
from s3gw.objects import footer, lifecycle, profiles, publish, references
from s3gw.objects.buckets import BucketCheck, no_bucket_check
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.ingest import Ingested, Learned, Payload, ingest
from s3gw.objects.storage import Storage
from s3gw.objects.write import refuse_if_old

OPEN = "open"
COMPLETING = "completing"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload and its bucket as read at one revision. `part` is the part asked for, if any."""

    bucket_name: str
    key: str
    upload_id: bytes
    bucket: BucketRecord
    bucket_revision: int
    record: UploadRecord
    upload_revision: int
    part: Versioned[PartRecord]

    @property
    def record_key(self) -> bytes:
        return keys.upload(self.bucket_name, self.key, self.upload_id)


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts of an upload, in order of number, as of `revision`."""

    records: list[PartRecord]
    revision: int

    @property
    def bytes(self) -> int:
        return sum(part.size for part in self.records)


def new_upload_id(now_ms: int) -> bytes:
    """16 bytes that order by time of creation, as ListMultipartUploads shows them."""
    return now_ms.to_bytes(6, "big") + os.urandom(10)


def initiated_ms(upload_id: bytes) -> int:
    """When an id of `new_upload_id` was drawn."""
    return int.from_bytes(upload_id[:6], "big")


async def create_upload(
    storage: Storage,
    bucket_name: str,
    key: str,
    owner: str,
    description: Description,
    *,
    checksum_algorithm: str,
    checksum_type: str,
    upload_id: bytes = b"",
    initiator: tuple[str, str] = ("", ""),
    check: BucketCheck = no_bucket_check,
) -> bytes:
    """Start an upload; its id, drawn unless it is given. `initiator` is ARN and unique id, as in
    the record. Raises S3Error, OutcomeUnknown."""
    now_ms = storage.clock_ms()
    upload_id = upload_id or new_upload_id(now_ms)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        bucket = await storage.store.get(BucketRecord, keys.bucket(bucket_name))
        if bucket.record is None:
            raise errors.NoSuchBucket(BucketName=bucket_name)
        check(bucket.record, bucket.revision)
        profile = await profiles.profile_of(storage, bucket.record, description.storage_class)
        record = UploadRecord(
            now_ms,
            owner,
            description,
            checksum_algorithm,
            checksum_type,
            profile.name,
            initiator=initiator[0],
            initiator_id=initiator[1],
        )
        record_key = keys.upload(bucket_name, key, upload_id)
        tx = Transaction()
        tx.expect(keys.bucket(bucket_name), bucket.revision)
        tx.expect(record_key, 0)
        storage.store.put_listed(tx, record_key, record)
        lifecycle.schedule_upload(storage, tx, bucket_name, bucket.record, key, upload_id, record)
        tx.witness = record_key
        tx.use(bucket_name, Usage(uploads=1))
        storage.ring.guard(tx, description.encryption)
        try:
            await storage.store.apply(tx)
        except Conflict as conflict:
            await storage.ring.refresh(conflict)
            continue
        return upload_id
    raise errors.OperationAborted("The bucket is changed too often by others. Please try again.")


async def find_upload(
    storage: Storage, bucket_name: str, key: str, upload_id: bytes, number: int = 0
) -> Upload:
    """Read an upload in one round trip. Raises NoSuchBucket, NoSuchUpload."""
    reading = await storage.store.kv.get_many(
        [
            keys.bucket(bucket_name),
            keys.upload(bucket_name, key, upload_id),
            keys.part(upload_id, number),
        ]
    )
    bucket = versioned(BucketRecord, reading.items[0])
    upload = versioned(UploadRecord, reading.items[1])
    if bucket.record is None:
        raise errors.NoSuchBucket(BucketName=bucket_name)
    if upload.record is None:
        raise errors.NoSuchUpload(UploadId=upload_id.hex())
    part = versioned(PartRecord, reading.items[2])
    held = (part.record.blob.profile,) if part.record is not None else ()
    await profiles.know(storage, upload.record.profile, *held)
    return Upload(
        bucket_name,
        key,
        upload_id,
        bucket.record,
        bucket.revision,
        upload.record,
        upload.revision,
        part,
    )


def require_open(upload: Upload) -> None:
    """Parts are taken only while nobody completes the upload."""
    if upload.record.state != OPEN:
        raise errors.NoSuchUpload(
            "The specified upload is being completed.", UploadId=upload.upload_id.hex()
        )


async def upload_part(
    storage: Storage,
    upload: Upload,
    number: int,
    payload: Payload,
    framing: Framing = PLAIN,
    check: BucketCheck = no_bucket_check,
) -> PartRecord:
    """Store a part; a part of that number is replaced. `framing` is that of the upload. Raises
    S3Error, OutcomeUnknown."""
    check(upload.bucket, upload.bucket_revision)
    require_open(upload)
    if framing is not PLAIN:
        framing = framing.new_part()
    started = storage.monotonic()
    modified_ms = storage.clock_ms()
    framed: dict[str, Any] = {}
    if framing is not PLAIN:
        framed["content_id"] = framing.content_id

    def footer_map(learned: Learned) -> bytes:
        return footer.describe(
            "part",
            upload.bucket_name,
            upload.key,
            store=storage.store.identity.store_id,
            size=learned.size,
            etag=learned.etag,
            modified_ms=modified_ms,
            owner=upload.record.owner,
            checksums=learned.checksums,
            upload=upload.upload_id,
            number=number,
            **framed,
        )

    profile: Profile = storage.blobs.topology.profile(upload.record.profile)
    ingested = await ingest(
        storage,
        profile,
        upload.bucket_name,
        payload,
        footer_map,
        most=limits.PART_BYTES_MAX,
        placement=upload.bucket.placement,
        framing=framing,
    )
    refuse_if_old(storage, started)
    content = None
    if framing is not PLAIN:
        content = Content(framing.content_id, ingested.crc64, ingested.compression)
    return await _publish_part(storage, upload, number, ingested, content, modified_ms, check)


async def _publish_part(
    storage: Storage,
    upload: Upload,
    number: int,
    ingested: Ingested,
    content: Content | None,
    modified_ms: int,
    check: BucketCheck,
) -> PartRecord:
    holder = keys.part_holder(upload.upload_id, number)
    part_key = keys.part(upload.upload_id, number)
    placed = publish.Placed(ingested.written)
    with storage.turns.of(part_key) as turn:
        if await turn.behind_others():
            upload = await find_upload(
                storage, upload.bucket_name, upload.key, upload.upload_id, number
            )
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            check(upload.bucket, upload.bucket_revision)
            require_open(upload)
            await placed.settle(storage)
            tx = guarded(upload)
            tx.expect(part_key, upload.part.revision)
            profile = storage.blobs.topology.profile(upload.record.profile)
            ref = publish.add_new_blob(
                storage, tx, upload.bucket_name, placed, holder, profile=profile
            )
            part = PartRecord(
                number,
                ingested.size,
                ingested.etag,
                modified_ms,
                ref,
                ingested.checksums,
                content,
            )
            tx.put(part_key, part)
            tx.witness = part_key
            old = upload.part.record
            tx.use(upload.bucket_name, Usage(pending_bytes=part.size - (old.size if old else 0)))
            if old is not None:
                references.drop(storage, tx, upload.bucket_name, old.blob, holder)
            try:
                await storage.store.apply(tx)
            except Conflict as conflict:
                await placed.refresh(storage, conflict)
                await turn.wait()
                upload = await find_upload(
                    storage, upload.bucket_name, upload.key, upload.upload_id, number
                )
            else:
                return part
    raise errors.OperationAborted("The part is written too often by others. Please try again.")


def guarded(upload: Upload) -> Transaction:
    """A transaction that holds only while bucket and upload are as read."""
    tx = Transaction()
    tx.expect(keys.bucket(upload.bucket_name), upload.bucket_revision)
    tx.expect(upload.record_key, upload.upload_revision)
    return tx


async def list_parts(
    storage: Storage, upload_id: bytes, *, after: int = 0, most: int = limits.PART_NUMBER_MAX
) -> tuple[Parts, bool]:
    """Parts with a number above `after`, and whether there are more than `most`."""
    start = keys.part(upload_id, after) + b"\x00"
    end = keys.after_prefix(keys.parts(upload_id))
    page = await storage.store.kv.scan(start, end, limit=max(1, most))
    records = [decode(PartRecord, item.value) for item in page.items[:most]]
    return Parts(records, page.revision), page.more or len(page.items) > most


async def give_back(storage: Storage, upload: Upload) -> Upload:
    """`completing` → `open`, of an upload whose owner does not live: what that one may still have
    in flight fails. Raises Conflict, OutcomeUnknown."""
    return await change_record(
        storage,
        upload,
        lambda record: msgspec.structs.replace(record, state=OPEN, owner_lease=0),
    )


async def abort_upload(
    storage: Storage,
    upload: Upload,
    *,
    attempts: int = limits.COMMIT_ATTEMPTS_MAX,
    check: BucketCheck = no_bucket_check,
) -> None:
    """End an upload and give its parts to the collector. With one attempt only as it was read, and
    its bucket. Raises S3Error, OutcomeUnknown."""
    for _ in range(attempts):
        check(upload.bucket, upload.bucket_revision)
        if upload.record.state != OPEN and await owner_lives(storage, upload.record):
            raise errors.NoSuchUpload(
                "The specified upload is being completed.", UploadId=upload.upload_id.hex()
            )
        parts, _ = await list_parts(storage, upload.upload_id)
        tx = guarded(upload)
        prefix = keys.parts(upload.upload_id)
        tx.guards.append(NoneNewer(prefix, keys.after_prefix(prefix), parts.revision))
        storage.store.delete_listed(tx, upload.record_key)
        tx.use(upload.bucket_name, Usage(uploads=-1, pending_bytes=-parts.bytes))
        references.queue_manifest(
            storage, tx, upload.bucket_name, upload.upload_id, b"abort", wait=False
        )
        forget_upload(storage, tx, upload)
        try:
            await storage.store.apply(tx)
        except Conflict:
            upload = await find_upload(storage, upload.bucket_name, upload.key, upload.upload_id)
        else:
            return
    raise errors.OperationAborted("The upload is written too often by others. Please try again.")


def forget_upload(storage: Storage, tx: Transaction, upload: Upload) -> None:
    """Forget that rules were to look at an upload that this commit ends."""
    lifecycle.unschedule_upload(
        storage, tx, upload.bucket, upload.key, upload.upload_id, upload.record
    )


async def owner_lives(storage: Storage, record: UploadRecord) -> bool:
    """Whether the process that took the upload for completion still holds its lease and, if it is
    this one, is still at it: an attempt that could not give the upload back is over as well."""
    if record.owner_lease == storage.lease():
        return record.attempt in storage.completing
    (item,) = (await storage.store.kv.get_many([keys.process(record.owner_lease)])).items
    return item is not None


Change = Callable[[UploadRecord], UploadRecord]


async def change_record(storage: Storage, upload: Upload, change: Change) -> Upload:
    """Compare-and-swap of the upload's record. Raises Conflict, OutcomeUnknown."""
    record = change(upload.record)
    tx = Transaction()
    tx.expect(upload.record_key, upload.upload_revision)
    storage.store.put_listed(tx, upload.record_key, record)
    tx.witness = upload.record_key
    revision = await storage.store.apply(tx)
    return Upload(
        upload.bucket_name,
        upload.key,
        upload.upload_id,
        upload.bucket,
        upload.bucket_revision,
        record,
        revision,
        upload.part,
    )
