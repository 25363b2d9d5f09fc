"""UploadPartCopy of what is a blob already: a whole object, or a whole part of one.

The part of the upload refers to the same blob, and no byte moves. The new reference is made from a
live one: the commit is guarded by the source's record and, where the blob is a part's, by the page
of the manifest that names it. What is sealed is shared by an upload with the same keys: the part
keeps its own data key, under that of the upload. Whatever else is asked for (another range, another
profile, other keys, a checksum that is not known) is read and written again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Checksums,
    Content,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    Usage,
)
from s3gw.objects import profiles, publish, references
from s3gw.objects.buckets import BucketCheck, no_bucket_check
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.content.sealing import NotAuthentic
from s3gw.objects.copy import source_version
from s3gw.objects.multipart import Upload, find_upload, guarded, require_open
from s3gw.objects.publish import Target
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import ALGORITHMS, ChecksumType, decode, encode

Span = Callable[[Target], tuple[int, int]]
"""The bytes [first, stop) that are asked for of the source as it was read for the commit; raises
S3Error as a condition or the range of the request demands, or as its caller may not."""
DEFAULT_ALGORITHM = ALGORITHMS["CRC64NVME"]


@dataclass(frozen=True, slots=True)
class Whole:
    """A blob that is all that is asked for, of `size` bytes of content. `page` is the key and
    revision of the page that names it, if one does."""

    ref: BlobRef
    size: int
    etag: str
    checksums: Checksums
    page: tuple[bytes, int] | None = None
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The framing of the source, which is that with this content id, and that of the upload, whose
    keys are the same."""

    content_id: bytes
    source: Framing
    upload: Framing

    def content(self, framing: Framing, crc64: int) -> Content:
        """How a part of the upload is framed whose stored bytes are framed so in the source."""
        wrapped = b""
        if framing.data_key:
            wrapped = self.upload.wrap_key(framing.data_key, framing.content_id)
        return Content(framing.content_id, crc64, framing.compression, wrapped)


NO_KEYS = Keys(b"", PLAIN, PLAIN)


async def share_part(
    storage: Storage,
    upload: Upload,
    number: int,
    source: Target,
    span: Span,
    held: Keys = NO_KEYS,
    check: BucketCheck = no_bucket_check,
) -> PartRecord | None:
    """Make a blob of the source a part of the upload, or return None: the content is to be written
    again. Raises S3Error, OutcomeUnknown."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        check(upload.bucket, upload.bucket_revision)
        require_open(upload)
        found = source_version(source)
        whole = await _whole(storage, upload, found.record, *span(source), held)
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
            whole.size,
            whole.etag,
            storage.clock_ms(),
            ref,
            whole.checksums,
            whole.content,
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
    storage: Storage, upload: Upload, record: ObjectRecord, first: int, stop: int, held: Keys
) -> Whole | None:
    """The blob that is these bytes of a version, if there is one that the upload can share."""
    sealed = record.description.encryption is not None or bool(held.source.data_key)
    if sealed and record.content_id != held.content_id:
        return None  # another version by now, with other keys or none
    data, whole = record.data, None
    if isinstance(data, BlobRef) and (first, stop) == (0, record.size):
        whole = _object(data, record, held)
    elif isinstance(data, ManifestRef):
        whole = await _listed(storage, data, first, stop, held)
    if whole is None:
        return None
    await profiles.know(storage, whole.ref.profile)
    profile = storage.blobs.topology.profile(upload.record.profile)
    checksums = _checksums(upload.record.checksum_algorithm, whole)
    if whole.ref.profile not in (profile.name, profile.companion) or checksums is None:
        return None
    return replace(whole, checksums=checksums)


def _object(data: BlobRef, record: ObjectRecord, held: Keys) -> Whole | None:
    """An object that is one blob. The CRC64NVME of a framed one must be known."""
    description = record.description
    if description.encryption is None and not description.compression:
        return Whole(data, record.size, record.etag, record.checksums)
    crc64 = record.checksums.values.get(DEFAULT_ALGORITHM.name)
    if crc64 is None or record.content_id != held.content_id:
        return None
    content = held.content(held.source, int.from_bytes(decode(DEFAULT_ALGORITHM, crc64), "big"))
    return Whole(data, record.size, record.etag, record.checksums, content=content)


async def _listed(
    storage: Storage, data: ManifestRef, first: int, stop: int, held: Keys
) -> Whole | None:
    """The part that is exactly these bytes of an object of parts."""
    number = bisect_right(data.page_offsets, first) - 1
    page_key = keys.manifest_page(data.manifest, number)
    page = await storage.store.get(ManifestPage, page_key)
    if page.record is None:
        return None
    position = data.page_offsets[number]
    for part in page.record.parts:
        if position == first and part.size == stop - first:
            try:
                content = part.content
                if content is not None:
                    content = held.content(held.source.of_part(content), content.crc64)
            except NotAuthentic:
                return None  # it cannot be read either, which is found out when it is
            at = (page_key, page.revision)
            return Whole(part.blob, part.size, part.etag, part.checksums, at, content)
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
        crc64 = whole.ref.crc64 if whole.content is None else whole.content.crc64
        value = encode(crc64.to_bytes(DEFAULT_ALGORITHM.digest_bytes, "big"))
    if value is None:
        return None
    return Checksums({algorithm: value}, ChecksumType.FULL_OBJECT)
