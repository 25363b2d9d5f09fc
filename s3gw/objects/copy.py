"""CopyObject in terms of storage.

A copy within one profile shares the blob: a new reference, guarded by the source's record, and no
byte moves. Into another profile the content is read and written again, and so it is where it is to
be encrypted otherwise, or with another key. Compressed or not, bytes are shared as they lie.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from nodes.protocol import Buffer
from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Checksums,
    Data,
    Description,
    ManifestRef,
    ObjectRecord,
)
from s3gw.metadata.store import Transaction
from s3gw.objects import publish, references
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.encrypted import frame, framing_of_version, same_keys
from s3gw.objects.keyring.ring import Wanted
from s3gw.objects.profiles import known_profile
from s3gw.objects.publish import Check, Found, Target
from s3gw.objects.read import read_data
from s3gw.objects.storage import Storage
from s3gw.objects.write import refuse_if_old, store_version
from s3gw.wire.checksums import ChecksumType, encode

TOO_LARGE = (
    "The specified copy source is larger than the maximum allowable size for a copy source: "
    f"{limits.COPY_SOURCE_BYTES_MAX}"
)
TOO_OFTEN = "The key is written too often by others. Please try again."
SourceCheck = Callable[[Target], None]
"""Whether the source may be copied as it was read, by the caller and by the copy-source conditions;
raises AccessDenied, PreconditionFailed."""


@dataclass(frozen=True, slots=True)
class Copying:
    """What a copy makes: the new owner, the description, by the source as it is copied, the
    checksum to compute anew ("" to keep the source's), and the encryption that is `wanted`;
    `source_key` is the customer's key that opens the source."""

    owner: str
    describe: Callable[[ObjectRecord], Description]
    checksum_algorithm: str
    check: Check
    check_source: SourceCheck
    wanted: Wanted | None = None
    source_key: bytes = field(default=b"", repr=False)


class StoredPayload:
    """Bytes of a stored version, as the body of a new one."""

    def __init__(
        self,
        storage: Storage,
        data: Data | None,
        first: int,
        stop: int,
        algorithm: str = "",
        framing: Framing = PLAIN,
        size: int = 0,
    ) -> None:
        self._framing = framing
        self._size = size
        self._storage = storage
        self._data = data
        self._first = first
        self._stop = stop
        self._algorithm = algorithm
        self.algorithms: Collection[str] = [algorithm] if algorithm else []

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        pieces = read_data(
            self._storage, self._data, self._first, self._stop, self._framing, self._size
        )
        async for buffers in pieces:
            for buffer in buffers:
                yield buffer

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        if not self._algorithm:
            return Checksums()
        value = encode(digests[self._algorithm])
        return Checksums({self._algorithm: value}, ChecksumType.FULL_OBJECT)


class StoredBytes:
    """Bytes in memory, as the body of a blob."""

    algorithms: Collection[str] = ()

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        yield self._data

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        return Checksums()


def source_version(source: Target) -> Found:
    """The version to copy from: the one named, or the visible one. Raises NoSuchKey,
    NoSuchVersion, InvalidRequest for a delete marker."""
    found = source.found
    if found is None and source.asked is None:
        raise errors.NoSuchKey(Key=source.key)
    if found is None:
        raise errors.NoSuchVersion(Key=source.key)
    if found.record.marker:
        raise errors.InvalidRequest(
            "The source of a copy request may not specifically refer to a delete marker by "
            "version id."
        )
    return found


async def copy_object(
    storage: Storage, source: Target, target: Target, copying: Copying
) -> ObjectRecord:
    """Copy the version that `source` asks for to the target key. Raises S3Error, OutcomeUnknown."""
    started = storage.monotonic()
    same = (source.bucket_name, source.key) == (target.bucket_name, target.key)
    asked = source.asked
    if same and asked is not None:
        target = await publish.read_target(storage, target.bucket_name, target.key, asked)
    with storage.turns.of(keys.object_(target.bucket_name, target.key)) as turn:
        if await turn.behind_others():
            source = await publish.read_target(storage, source.bucket_name, source.key, asked)
            target = await publish.read_target(
                storage, target.bucket_name, target.key, asked if same else None
            )
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            if same:
                source = target  # as read at one revision: the commit's guard is then on both
            found = source_version(source)
            record = found.record
            description = copying.describe(record)
            copying.check(target)
            copying.check_source(source)
            if record.size > limits.COPY_SOURCE_BYTES_MAX:
                raise errors.InvalidRequest(TOO_LARGE)
            if copying.source_key:
                await framing_of_version(storage, record, copying.source_key)  # or AccessDenied
            if not _shares(storage, record, target, copying, description):
                break
            await storage.ring.require_usable(record.description.encryption)
            refuse_if_old(storage, started)
            tx = publish.guarded(target)
            if found.key != keys.object_(target.bucket_name, target.key):
                tx.expect(found.key, found.revision)
            copy = _shared_copy(storage, tx, record, target, copying.owner, description)
            copy = publish.replace(storage, tx, target, copy)
            try:
                await storage.store.apply(tx)
            except Conflict:
                await turn.wait()
                source = await publish.read_target(storage, source.bucket_name, source.key, asked)
                target = await publish.read_target(
                    storage, target.bucket_name, target.key, asked if same else None
                )
            else:
                return copy
        else:
            raise errors.OperationAborted(TOO_OFTEN)
    return await _rewrite(storage, record, target, copying, description)


def _shares(
    storage: Storage,
    record: ObjectRecord,
    target: Target,
    copying: Copying,
    description: Description,
) -> bool:
    """Whether the copy can refer to the source's blob."""
    algorithm = copying.checksum_algorithm
    if algorithm and not _knows(record, algorithm):
        return False
    held = record.description.encryption
    if not same_keys(storage, held, copying.wanted, copying.source_key):
        return False
    profile = known_profile(storage, target.bucket, description.storage_class)
    data = record.data
    home = data.blob.profile if isinstance(data, ManifestRef) else ""
    if isinstance(data, BlobRef):
        home = data.profile
    return home in (profile.name, profile.companion)


def _knows(record: ObjectRecord, algorithm: str) -> bool:
    """Whether a version's checksum of this kind is known; that of the stored bytes is what is shown
    where there is no other."""
    if algorithm in record.checksums.values:
        return True
    sealed = record.description.encryption is not None or _is_compressed(record)
    shown = isinstance(record.data, BlobRef) and not record.checksums.values and not sealed
    return shown and algorithm == "CRC64NVME"


def _shared_copy(
    storage: Storage,
    tx: Transaction,
    record: ObjectRecord,
    target: Target,
    owner: str,
    description: Description,
) -> ObjectRecord:
    sequence = publish.sequence_of(storage, target)
    holder = keys.object_holder(target.bucket_name, target.key, sequence)
    assert record.data is not None
    references.hold(storage, tx, target.bucket_name, record.data, holder)
    held = record.description
    description = msgspec.structs.replace(
        description, encryption=held.encryption, compression=held.compression
    )
    return ObjectRecord(
        sequence=sequence,
        modified_ms=storage.clock_ms(),
        owner=owner,
        size=record.size,
        etag=record.etag,
        data=record.data,
        description=description,
        checksums=record.checksums,
        content_id=record.content_id,
    )


async def _rewrite(
    storage: Storage,
    record: ObjectRecord,
    target: Target,
    copying: Copying,
    description: Description,
) -> ObjectRecord:
    """Write the content anew: another profile, other keys, or a checksum that is not known yet.
    It is the source's content for readers that go on only if its bytes are stored alike."""
    algorithm = copying.checksum_algorithm or next(iter(record.checksums.values), "")
    source = await framing_of_version(storage, record, copying.source_key)
    description, framing = await frame(storage, target.bucket, description, copying.wanted)
    alike = source is PLAIN and framing is PLAIN and not _is_compressed(record)
    return await store_version(
        storage,
        target,
        copying.owner,
        description,
        StoredPayload(storage, record.data, 0, record.size, algorithm, source, record.size),
        copying.check,
        content_id=record.content_id if alike else framing.content_id or os.urandom(16),
        most=record.size,
        framing=framing,
    )


def _is_compressed(record: ObjectRecord) -> bool:
    """Whether stored bytes of a version are, or may be, compressed."""
    return bool(record.description.compression)
