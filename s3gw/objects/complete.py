"""CompleteMultipartUpload: from parts to one object, without moving a byte of them.

The order is what keeps it safe, whoever dies or races:

1. check the list that the client sent against the parts;
2. take the upload (`open` → `completing`, with this process's lease): from here on no part is
   added and no abort succeeds, so what is read next stays true;
3. read and check the parts again; on an error give the upload back;
4. write the manifest's blob (for rescue) and its pages, which nobody sees yet;
5. one commit: the object appears, the upload goes, a record answers retries for a day.

If the process dies in between, its lease ends, and the next Complete or Abort takes over. Who asks
for the same while it is under way waits for its end, and gets the answer of a retry.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b, md5

import msgspec

from s3gw import errors, limits
from s3gw.cluster.topology import Profile
from s3gw.kv.interface import At, Conflict, EngineError
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Checksums,
    CompletedRecord,
    Encryption,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    UploadRecord,
    Usage,
    encode,
)
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects import footer, publish, references
from s3gw.objects.copy import StoredBytes
from s3gw.objects.ingest import Ingested, Learned, ingest
from s3gw.objects.multipart import (
    COMPLETING,
    OPEN,
    Parts,
    Upload,
    change_record,
    find_upload,
    forget_upload,
    give_back,
    list_parts,
    owner_lives,
)
from s3gw.objects.publish import Check, Target, version_id_of
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import (
    ALGORITHMS,
    ChecksumType,
    composite,
    decode,
    full_object,
    mismatch,
)
from s3gw.wire.checksums import encode as encode_checksum

# A move of a part writes its page, so pages are small; with as many as this, an object's record has
# a hundred offsets at most.
PAGE_PARTS = 100
PAGES_PER_COMMIT = 10
DEFAULT_ALGORITHM = ALGORITHMS["CRC64NVME"]
COMPLETED_MS = 24 * 3600 * 1000
# For another request that completes the upload: longer than the lease of a process that died, and
# shorter than clients wait for an answer.
WAIT_SECONDS_MAX = 30.0
POLL_SECONDS_MIN = 0.05
POLL_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class PartChoice:
    """A part as the client lists it: number, ETag without quotes, checksums if it gave any."""

    number: int
    etag: str
    checksums: dict[str, str]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the client asks Complete for. `expected` are object checksums and the object's size
    (-1: not given) that it wants compared."""

    choices: Sequence[PartChoice]
    check: Check
    expected: dict[str, str]
    expected_type: str
    expected_size: int

    @property
    def digest(self) -> bytes:
        """Tells a retry of the same list from another request."""
        listed = [(choice.number, choice.etag) for choice in self.choices]
        return blake2b(msgspec.msgpack.encode(listed), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer; `size` is -1, and `record` is not told, in the answer to a retry. `version_id` as
    clients see it."""

    etag: str
    checksums: Checksums
    size: int = -1
    version_id: str = ""
    encryption: Encryption | None = None
    record: ObjectRecord | None = None


async def complete_upload(
    storage: Storage, bucket_name: str, key: str, upload_id: bytes, completion: Completion
) -> Completed:
    """Complete an upload, or answer a retry; while another request completes it, wait for that one.
    Raises S3Error, OutcomeUnknown."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + WAIT_SECONDS_MAX
    pause = POLL_SECONDS_MIN
    while True:
        try:
            upload = await find_upload(storage, bucket_name, key, upload_id)
        except errors.NoSuchUpload:
            return await _answer_retry(storage, bucket_name, key, upload_id, completion)
        if upload.record.state == OPEN or not await owner_lives(storage, upload.record):
            try:
                return await _complete(storage, upload, completion)
            except Conflict:
                pass  # the upload was taken, or wrapped anew, by another
        seconds_left = ends_at - clock()
        if seconds_left <= 0:
            raise errors.SlowDown(
                "The upload is being completed by another request.", headers={"Retry-After": "1"}
            )
        await _wait_for(storage, upload.record, min(pause, seconds_left), seconds_left)
        pause = min(2 * pause, POLL_SECONDS_MAX)


async def _wait_for(
    storage: Storage, record: UploadRecord, pause: float, seconds_left: float
) -> None:
    """Wait for the end of the attempt that has an upload, or, when it is one of another process,
    for so long that its record is worth another look."""
    ended = storage.completing.get(record.attempt)
    if ended is None:
        await asyncio.sleep(pause)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_left):
            await ended.wait()


async def _complete(storage: Storage, upload: Upload, completion: Completion) -> Completed:
    """Complete an upload that nobody has. Raises Conflict when another has taken it meanwhile."""
    parts, _ = await list_parts(storage, upload.upload_id)
    choose(parts, completion.choices, upload.record)
    target = await publish.read_target(storage, upload.bucket_name, upload.key)
    completion.check(target)
    attempt, ended = os.urandom(8), asyncio.Event()
    tried = bool(upload.record.attempt)
    storage.completing[attempt] = ended
    taking = asyncio.ensure_future(_take(storage, upload, attempt))
    try:
        upload = await asyncio.shield(taking)
        if tried:
            await _drop_pages(storage, upload)
        return await _complete_taken(storage, upload, target, completion)
    except BaseException:
        # Also when the outcome is unknown: only one of this commit and that one can succeed.
        await storage.store.shielded(_give_back(storage, upload, attempt, taking))
        raise
    finally:
        del storage.completing[attempt]
        ended.set()


async def _answer_retry(
    storage: Storage, bucket_name: str, key: str, upload_id: bytes, completion: Completion
) -> Completed:
    record = await storage.store.get(CompletedRecord, keys.completed(bucket_name, upload_id))
    done = record.record
    if done is None or done.key != key or done.digest != completion.digest:
        raise errors.NoSuchUpload(UploadId=upload_id.hex())
    return Completed(
        done.etag, done.checksums, version_id=done.version_id, encryption=done.encryption
    )


def choose(parts: Parts, choices: Sequence[PartChoice], upload: UploadRecord) -> list[PartRecord]:
    """The parts that the client lists. Raises InvalidPart, InvalidPartOrder, EntityTooSmall,
    BadDigest."""
    by_number = {part.number: part for part in parts.records}
    chosen: list[PartRecord] = []
    for choice in choices:
        if chosen and choice.number <= chosen[-1].number:
            raise errors.InvalidPartOrder()
        part = by_number.get(choice.number)
        if part is None or part.etag != choice.etag:
            raise errors.InvalidPart(PartNumber=str(choice.number), ETag=choice.etag)
        _compare_part(part, choice)
        if upload.checksum_type == "COMPOSITE" and not choice.checksums:
            raise errors.InvalidRequest(
                f"The upload was created using a {upload.checksum_algorithm.lower()} checksum. "
                "The complete request must include the checksum for each part. "
                f"It was missing for part {choice.number} in the request."
            )
        if chosen and chosen[-1].size < limits.PART_BYTES_MIN:
            raise errors.EntityTooSmall(
                ProposedSize=str(chosen[-1].size),
                MinSizeAllowed=str(limits.PART_BYTES_MIN),
                PartNumber=str(chosen[-1].number),
                ETag=chosen[-1].etag,
            )
        chosen.append(part)
    return chosen


def _compare_part(part: PartRecord, choice: PartChoice) -> None:
    """A part's checksum with the one that the list gives it. Raises InvalidPart, and BadDigest for
    an algorithm that the part has no checksum of."""
    for name, value in choice.checksums.items():
        stored = part.checksums.values.get(name)
        if stored is None:
            raise errors.BadDigest(
                f"The {name.lower()} you specified for part {choice.number} did not match what we "
                "received."
            )
        if stored != value:
            raise errors.InvalidPart(PartNumber=str(choice.number), ETag=choice.etag)


async def _take(storage: Storage, upload: Upload, attempt: bytes) -> Upload:
    """`open` → `completing`; also takes over from a process that is gone. Raises Conflict."""
    lease = storage.lease()
    return await change_record(
        storage,
        upload,
        lambda record: msgspec.structs.replace(
            record, state=COMPLETING, owner_lease=lease, attempt=attempt
        ),
    )


async def _give_back(
    storage: Storage, upload: Upload, attempt: bytes, taking: asyncio.Future[Upload]
) -> None:
    """`completing` → `open`, if this attempt has it, or had it without being told. Its record may
    be another one for all that: its key was wrapped anew."""
    await asyncio.wait([taking])  # a caller that has gone did not
    if not taking.cancelled():
        taking.exception()
    try:
        now = await find_upload(storage, upload.bucket_name, upload.key, upload.upload_id)
        if (now.record.state, now.record.attempt) != (COMPLETING, attempt):
            return
        await give_back(storage, now)
    except (EngineError, OutcomeUnknown, errors.NoSuchUpload, errors.NoSuchBucket):
        return  # completed or taken over; else this process or the lease's end says that it is free


async def _complete_taken(
    storage: Storage, upload: Upload, target: Target, completion: Completion
) -> Completed:
    parts, _ = await list_parts(storage, upload.upload_id)
    chosen = [
        msgspec.structs.replace(part, object_key="") if part.object_key else part
        for part in choose(parts, completion.choices, upload.record)
    ]
    size = sum(part.size for part in chosen)
    if completion.expected_size not in (-1, size):
        raise errors.InvalidRequest(
            "The provided 'x-amz-mp-object-size' header value "
            f"{completion.expected_size} does not match what was computed: {size}"
        )
    checksums = combine(upload.record, chosen)
    _compare(checksums, completion)
    etag = multipart_etag(chosen)
    done = Completed(etag, checksums, size, encryption=upload.record.description.encryption)
    now_ms = storage.clock_ms()
    manifest_blob = await _write_manifest(storage, upload, target, chosen, done, now_ms)
    manifest = await _write_pages(storage, upload, chosen, manifest_blob)
    return await _publish(
        storage, upload, target, completion, parts, manifest, manifest_blob, done, now_ms
    )


def combine(upload: UploadRecord, parts: Sequence[PartRecord]) -> Checksums:
    """The object's checksum from those of its parts, of the type that the upload asked for; if it
    asked for none, the CRC64NVME of the whole, as S3 gives it, from those that all blobs have."""
    if not upload.checksum_algorithm:
        whole = full_object(DEFAULT_ALGORITHM, ((_crc64(part), part.size) for part in parts))
        return Checksums({DEFAULT_ALGORITHM.name: encode_checksum(whole)}, ChecksumType.FULL_OBJECT)
    algorithm = ALGORITHMS[upload.checksum_algorithm]
    digests = [decode(algorithm, part.checksums.values[algorithm.name]) for part in parts]
    if upload.checksum_type == ChecksumType.COMPOSITE:
        value = composite(algorithm, digests)
    else:
        sizes = [part.size for part in parts]
        value = encode_checksum(full_object(algorithm, zip(digests, sizes, strict=True)))
    return Checksums({algorithm.name: value}, upload.checksum_type)


def _told(encryption: Encryption | None) -> Encryption | None:
    """What an answer says of it; nothing that a change of master keys would have to wrap anew."""
    if encryption is None:
        return None
    return msgspec.structs.replace(encryption, wrapped_key=b"", context="")


def _crc64(part: PartRecord) -> bytes:
    crc64 = part.blob.crc64 if part.content is None else part.content.crc64
    return crc64.to_bytes(DEFAULT_ALGORITHM.digest_bytes, "big")


def _compare(checksums: Checksums, completion: Completion) -> None:
    """The object's checksum with those that the request gives. Raises BadDigest, InvalidRequest."""
    if completion.expected_type.upper() not in ("", checksums.kind):
        raise errors.InvalidRequest(
            f"The upload was created using the {checksums.kind} checksum mode. The complete "
            "request must use the same checksum mode."
        )
    for name, value in completion.expected.items():
        if name not in checksums.values:
            raise errors.InvalidRequest(
                "Checksum Type mismatch occurred, expected checksum Type: "
                f"{', '.join(checksums.values).lower()}, actual checksum Type: {name.lower()}"
            )
        # minio-go leaves the number of parts out.
        if value not in (checksums.values[name], checksums.values[name].partition("-")[0]):
            raise mismatch(ALGORITHMS[name])


def multipart_etag(parts: Sequence[PartRecord]) -> str:
    """md5 of the parts' binary md5s, a dash and their number (S3: "multipart upload ETags")."""
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


async def _write_manifest(
    storage: Storage,
    upload: Upload,
    target: Target,
    chosen: Sequence[PartRecord],
    done: Completed,
    now_ms: int,
) -> Ingested:
    """The manifest as a blob, so that rescue finds the parts' order without metadata."""
    body = encode(ManifestPage(tuple(chosen)))
    key_copy = await storage.ring.key_copy(upload.record.description.encryption)

    def footer_map(learned: Learned) -> bytes:
        return footer.describe(
            "manifest",
            upload.bucket_name,
            upload.key,
            store=storage.store.identity.store_id,
            size=done.size,
            etag=done.etag,
            modified_ms=now_ms,
            owner=upload.record.owner,
            checksums=done.checksums,
            description=publish.under_default(target.bucket, upload.record.description, now_ms),
            versioning=target.bucket.versioning,
            key_copy=key_copy,
            upload=upload.upload_id,
            sequence=publish.sequence_of(storage, target),
        )

    profile: Profile = storage.blobs.topology.profile(upload.record.profile)
    return await ingest(
        storage,
        profile,
        upload.bucket_name,
        StoredBytes(body),
        footer_map,
        most=len(body),
        placement=upload.bucket.placement,
    )


async def _drop_pages(storage: Storage, upload: Upload) -> None:
    """Remove the pages of an attempt before, which may have listed more parts."""
    prefix = keys.manifest(upload.upload_id)
    page = await storage.store.kv.scan(
        prefix, keys.after_prefix(prefix), limit=limits.PART_NUMBER_MAX, keys_only=True
    )
    tx = Transaction()
    tx.expect(upload.record_key, upload.upload_revision)
    for item in page.items:
        tx.expect(item.key, item.revision)  # sent twice, it does not remove what is written next
        tx.delete(item.key)
    if tx.writes:
        await storage.store.apply(tx)


async def _write_pages(
    storage: Storage, upload: Upload, chosen: Sequence[PartRecord], blob: Ingested
) -> ManifestRef:
    """The pages that reads use; invisible until the object's record names the manifest."""
    offsets: list[int] = []
    offset = 0
    pages = [chosen[row : row + PAGE_PARTS] for row in range(0, len(chosen), PAGE_PARTS)]
    for first in range(0, len(pages), PAGES_PER_COMMIT):
        tx = Transaction()
        tx.expect(upload.record_key, upload.upload_revision)
        for page, parts in enumerate(pages[first : first + PAGES_PER_COMMIT], first):
            offsets.append(offset)
            offset += sum(part.size for part in parts)
            tx.witness = keys.manifest_page(upload.upload_id, page)
            tx.put(tx.witness, ManifestPage(tuple(parts)))
        await storage.store.apply(tx)
    ref: BlobRef = blob.written.ref
    return ManifestRef(upload.upload_id, len(chosen), tuple(offsets), PAGE_PARTS, ref)


async def _publish(
    storage: Storage,
    upload: Upload,
    target: Target,
    completion: Completion,
    parts: Parts,
    manifest: ManifestRef,
    blob: Ingested,
    done: Completed,
    now_ms: int,
) -> Completed:
    placed = publish.Placed(blob.written)
    profile = storage.blobs.topology.profile(upload.record.profile)
    published: list[CompletedRecord] = []

    def build(tx: Transaction, now: Target) -> ObjectRecord:
        sequence = publish.sequence_of(storage, now)
        holder = keys.object_holder(now.bucket_name, now.key, sequence)
        manifest_holder = keys.manifest_blob_holder(upload.upload_id)
        tx.expect(upload.record_key, upload.upload_revision)
        ref = publish.add_new_blob(
            storage, tx, now.bucket_name, placed, manifest_holder, profile=profile
        )
        data = msgspec.structs.replace(manifest, blob=ref)
        references.hold(storage, tx, now.bucket_name, data, holder)
        storage.store.delete_listed(tx, upload.record_key)
        forget_upload(storage, tx, upload)
        tx.use(now.bucket_name, Usage(uploads=-1, pending_bytes=-parts.bytes))
        references.queue_manifest(
            storage, tx, now.bucket_name, upload.upload_id, b"parts", wait=False
        )
        record = ObjectRecord(
            sequence=sequence,
            modified_ms=now_ms,
            owner=upload.record.owner,
            size=done.size,
            etag=done.etag,
            data=data,
            description=upload.record.description,
            checksums=done.checksums,
            content_id=upload.upload_id,
        )
        answer = CompletedRecord(
            upload.key,
            completion.digest,
            done.etag,
            version_id_of(now.bucket, publish.as_newest(now, record)),
            done.checksums,
            now_ms + COMPLETED_MS,
            _told(done.encryption),
        )
        storage.store.put_listed(tx, keys.completed(now.bucket_name, upload.upload_id), answer)
        published.append(answer)
        return record

    def lost(conflict: Conflict) -> None:
        if isinstance(conflict.guard, At) and conflict.guard.key == upload.record_key:
            raise conflict

    record = await publish.publish(
        storage, target, completion.check, build, placed=placed, lost=lost
    )
    return replace(done, version_id=published[-1].version_id, record=record)
