"""UploadPartCopy of what is a blob already: a whole object, or a whole part of one.

The part of the upload refers to the same blob, and no byte moves. The new reference is made from a
live one: the commit is guarded by the source's record and, where the blob is a part's, by the page
of the manifest that names it. Whatever else is asked for (another range, another profile, a
checksum that is not known, content that is sealed or compressed) is read and written again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Checksums,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    Usage,
)
from s3gw.objects import profiles, publish, references
from s3gw.objects.copy import source_version
from s3gw.objects.multipart import Upload, find_upload, guarded, require_open
from s3gw.objects.publish import Target
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import ALGORITHMS, ChecksumType, encode

Span = Callable[[ObjectRecord], tuple[int, int]]
"""The bytes [first, stop) of a version that are asked for; raises S3Error as a condition or the
range of the request demands."""
DEFAULT_ALGORITHM = ALGORITHMS["CRC64NVME"]


@dataclass(frozen=True, slots=True)
class Whole:
    """A blob that is all that is asked for. `page` is the key and revision of the page that names
    it, if one does."""

    ref: BlobRef
    etag: str
    checksums: Checksums
    page: tuple[bytes, int] | None = None


async def share_part(
    storage: Storage, upload: Upload, number: int, source: Target, span: Span
) -> PartRecord | None:
    """Make a blob of the source a part of the upload, or return None: the bytes are to be written
    again. Raises S3Error, OutcomeUnknown."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        require_open(upload)
        found = source_version(source)
        whole = await _whole(storage, upload, found.record, *span(found.record))
        if whole is None:
            return None
        part_key, old = keys.part(upload.upload_id, number), upload.part.record
        holder = keys.part_holder(upload.upload_id, number)
        tx = guarded(upload)
        tx.expect(part_key, upload.part.revision)
        tx.expect(found.key, found.revision)
        if whole.page is not None:
            tx.expect(*whole.page)
        ref = whole.ref
        part = PartRecord(
            number,
            ref.size,
            whole.etag,
            storage.clock_ms(),
            ref,
            whole.checksums,
            object_key=upload.key,
        )
        tx.put(part_key, part)
        tx.witness = part_key
        tx.use(upload.bucket_name, Usage(pending_bytes=part.size - (old.size if old else 0)))
        if old is None or old.blob.blob != ref.blob:
            reference = references.key_of(storage.blobs.topology, ref, holder)
            if old is not None and await _is_there(storage, reference):
                return None  # dropped by a part before, and waits for the collector
            tx.expect(reference, 0)
            references.add(storage, tx, upload.bucket_name, ref, holder)
            if old is not None:
                references.drop(storage, tx, upload.bucket_name, old.blob, holder)
        try:
            await storage.store.apply(tx)
        except Conflict:
            upload = await find_upload(
                storage, upload.bucket_name, upload.key, upload.upload_id, number
            )
            source = await publish.read_target(
                storage, source.bucket_name, source.key, source.asked
            )
        else:
            return part
    raise errors.OperationAborted("The part is written too often by others. Please try again.")


async def _is_there(storage: Storage, key: bytes) -> bool:
    (item,) = (await storage.store.kv.get_many([key])).items
    return item is not None


async def _whole(
    storage: Storage, upload: Upload, record: ObjectRecord, first: int, stop: int
) -> Whole | None:
    """The blob that is these bytes of a version, if there is one that the upload can share."""
    description = record.description
    if description.encryption is not None or description.compression:
        return None
    data, whole = record.data, None
    if isinstance(data, BlobRef) and (first, stop) == (0, record.size):
        whole = Whole(data, record.etag, record.checksums)
    elif isinstance(data, ManifestRef):
        whole = await _listed(storage, data, first, stop)
    if whole is None:
        return None
    await profiles.know(storage, whole.ref.profile)
    profile = storage.blobs.topology.profile(upload.record.profile)
    checksums = _checksums(upload.record.checksum_algorithm, whole)
    if whole.ref.profile not in (profile.name, profile.companion) or checksums is None:
        return None
    return Whole(whole.ref, whole.etag, checksums, whole.page)


async def _listed(storage: Storage, data: ManifestRef, first: int, stop: int) -> Whole | None:
    """The part that is exactly these bytes of an object of parts."""
    number = bisect_right(data.page_offsets, first) - 1
    page_key = keys.manifest_page(data.manifest, number)
    page = await storage.store.get(ManifestPage, page_key)
    if page.record is None:
        return None
    position = data.page_offsets[number]
    for part in page.record.parts:
        if position == first and part.size == stop - first and part.content is None:
            return Whole(part.blob, part.etag, part.checksums, (page_key, page.revision))
        position += part.size
        if position > first:
            return None
    return None


def _checksums(algorithm: str, whole: Whole) -> Checksums | None:
    """The checksum that the parts of the upload have, if it is known of the blob."""
    if not algorithm:
        return Checksums()
    value = whole.checksums.values.get(algorithm)
    if value is None and algorithm == DEFAULT_ALGORITHM.name:
        value = encode(whole.ref.crc64.to_bytes(DEFAULT_ALGORITHM.digest_bytes, "big"))
    if value is None:
        return None
    return Checksums({algorithm: value}, ChecksumType.FULL_OBJECT)
