"""From a request's body to a durable blob that nothing refers to yet.

Bytes are cut into stripes. While one stripe is hashed, encoded and sent to the nodes, the next
is received; hashing and encoding run side by side off the event loop. A body of at most
SMALL_BLOB_BYTES_MAX, as it is stored, becomes a blob of the companion profile, written in one call
per node. What is to be compressed or encrypted (`s3gw.objects.content`) is hashed first, and the
stripes are cut from what it becomes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from nodes.protocol import Buffer
from s3gw import errors, limits
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.topology import Group, Profile
from s3gw.cluster.writer import BlobWriter, NotWritten, Written
from s3gw.metadata import keys
from s3gw.metadata.records import Checksums
from s3gw.objects.content.framing import PLAIN, Encoder, Framing
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import ALGORITHMS, Hasher

RETRY_AFTER = {"Retry-After": "1"}
HASH_INLINE_BYTES_MAX = 16 * limits.KIB
WHOLE = "CRC64NVME"
# Of what framing makes of a body whose own length was bounded.
WHATEVER_COMES = 2**63
R = TypeVar("R")


class Payload(Protocol):
    """A body as the storage layer sees it: framing removed."""

    @property
    def algorithms(self) -> Collection[str]:
        """Names of the digests to compute besides MD5 ("SHA256" for a signed payload)."""
        ...

    def __aiter__(self) -> AsyncIterator[Buffer]: ...

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        """Compare with what the client announced, in headers or trailer; return the checksums to
        store. Raises BadDigest, XAmzContentSHA256Mismatch, IncompleteBody."""
        ...


@dataclass(frozen=True, slots=True)
class Ingested:
    """A durable blob and what was learned of its content. `etag` is the MD5 in hexadecimal, or what
    hides it; `crc64` the CRC64NVME of the content, -1 where that of the stored bytes says it."""

    written: Written
    size: int
    etag: str
    checksums: Checksums
    compression: str = ""
    crc64: int = -1


Footer = Callable[["Learned"], bytes]
Place = Callable[[Profile], tuple[bytes, Group]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What the footer of the shards says of the content."""

    size: int
    etag: str
    checksums: Checksums
    compression: str = ""
    crc64: int = -1


class Digests:
    """MD5 for the ETag and whatever else was asked for, over one body. Where the stored bytes are
    others than the content, their CRC64NVME does not speak for it: it is computed, too."""

    def __init__(self, algorithms: Collection[str], framing: Framing = PLAIN) -> None:
        self.size = 0
        self._framing = framing
        if framing is not PLAIN:
            algorithms = {*algorithms, WHOLE}
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._others: dict[str, Hasher] = {name: ALGORITHMS[name].new() for name in algorithms}

    def update(self, data: Buffer) -> None:
        self.size += len(data)
        self._md5.update(data)
        for digest in self._others.values():
            digest.update(data)

    def finish(self, payload: Payload, compression: str = "") -> Learned:
        values = {name: digest.digest() for name, digest in self._others.items()}
        values["MD5"] = self._md5.digest()
        checksums = payload.verify(values)
        etag = self._framing.etag(self._md5.hexdigest())
        if self._framing is PLAIN:
            return Learned(self.size, etag, checksums)
        crc64 = int.from_bytes(values[WHOLE], "big")
        return Learned(self.size, etag, checksums, compression, crc64)


async def ingest(
    storage: Storage,
    profile: Profile,
    bucket: str,
    payload: Payload,
    footer: Footer,
    *,
    most: int,
    placement: str = "",
    framing: Framing = PLAIN,
) -> Ingested:
    """Store a body of at most `most` bytes as a blob of `profile`, or of its companion, where the
    bucket's `placement` policy would have it, framed as `framing` says.

    Raises S3Error of the body; EntityTooLarge; SlowDown when too few nodes take shards. Nothing
    is left behind in that case.
    """
    digests = Digests(payload.algorithms, framing)
    place = partial(draw, storage, bucket=bucket, placement=placement)
    stripes = cut(payload, profile.stripe_bytes, most)
    body = _Body(storage, payload, digests)
    if framing is not PLAIN:
        body.encoder = Encoder(framing)
        stripes = cut(body.framed(stripes), profile.stripe_bytes, WHATEVER_COMES)
    first = await anext(stripes, b"")
    try:
        small = len(first) <= limits.SMALL_BLOB_BYTES_MAX
        if small and len(first) == profile.stripe_bytes:
            # A full stripe of the smallest size that a profile may have: more may follow.
            second = await anext(stripes, None)
            small = second is None
            stripes = _preceded(second, stripes)
        if small:
            if body.encoder is None:
                await _offload(storage, len(first), digests.update, first)
            if await anext(stripes, None) is not None:
                raise AssertionError("a stripe follows a short one")
            learned = body.finish()
            companion = storage.blobs.topology.companion(profile)
            written = await _write_small(storage, place, companion, first, footer(learned))
        else:
            learned, written = await _write_large(body, place, profile, first, stripes, footer)
    except (NotWritten, TooFewNodes) as error:
        if storage.blobs.directory.any_full():
            raise errors.InsufficientStorage(str(error)) from error
        raise errors.SlowDown(str(error), headers=RETRY_AFTER) from error
    return Ingested(
        written,
        learned.size,
        learned.etag,
        learned.checksums,
        learned.compression,
        learned.crc64,
    )


@dataclass(slots=True)
class _Body:
    """A body on its way. With an `encoder` its stripes are of what that makes of it."""

    storage: Storage
    payload: Payload
    digests: Digests
    encoder: Encoder | None = None

    def finish(self) -> Learned:
        """What was learned, once all of it came."""
        compression = self.encoder.compression if self.encoder is not None else ""
        return self.digests.finish(self.payload, compression)

    async def framed(self, content: AsyncIterator[bytes]) -> AsyncIterator[Buffer]:
        """What the encoder makes of the content, which is hashed as well."""
        encoder = self.encoder
        assert encoder is not None

        def work(piece: bytes) -> list[Buffer]:
            self.digests.update(piece)
            return encoder.feed(piece)

        async for piece in content:
            for data in await _offload(self.storage, len(piece), work, piece):
                yield data
        for data in await _offload(
            self.storage, self.digests.size, lambda _: encoder.finish(), b""
        ):
            yield data


async def _preceded(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Stripes behind one that was taken from them already; None: they had ended."""
    if first is not None:
        yield first
        async for stripe in rest:
            yield stripe


async def cut(payload: AsyncIterable[Buffer], stripe_bytes: int, most: int) -> AsyncIterator[bytes]:
    """The body in stripes: all of `stripe_bytes` but the last, which is not empty.

    Raises EntityTooLarge as soon as more than `most` bytes came.
    """
    pieces: list[Buffer] = []
    held = total = 0
    async for data in payload:
        total += len(data)
        if total > most:
            raise errors.EntityTooLarge(ProposedSize=str(total), MaxSizeAllowed=str(most))
        view = memoryview(data)
        while held + len(view) >= stripe_bytes:
            pieces.append(view[: stripe_bytes - held])
            view = view[stripe_bytes - held :]
            yield b"".join(pieces)
            pieces, held = [], 0
        if len(view):
            pieces.append(view)
            held += len(view)
    if held:
        yield b"".join(pieces)


def draw(storage: Storage, profile: Profile, bucket: str, placement: str) -> tuple[bytes, Group]:
    """A blob id whose placement group's counter no commit of this process has in flight, and that
    suits the bucket's placement policy."""
    counters = storage.store.counters
    return storage.blobs.draw(
        profile,
        lambda group: counters.busy(keys.count(profile.name, group.number, bucket)),
        placement=placement,
    )


async def _offload(storage: Storage, size: int, work: Callable[[bytes], R], data: bytes) -> R:
    """Work on `size` bytes, off the event loop unless they are few."""
    if size <= HASH_INLINE_BYTES_MAX:
        return work(data)
    return await asyncio.get_running_loop().run_in_executor(storage.executor, work, data)


async def _write_small(
    storage: Storage, place: Place, profile: Profile, data: bytes, footer_map: bytes
) -> Written:
    blob, group = place(profile)
    writer = storage.blobs.open_writer(blob, group)
    return await storage.blobs.complete(await writer.write_whole(data, footer_map), footer_map)


async def _write_large(
    body: _Body,
    place: Place,
    profile: Profile,
    first: bytes,
    stripes: AsyncIterator[bytes],
    footer: Footer,
) -> tuple[Learned, Written]:
    storage = body.storage
    blob, group = place(profile)
    writer = storage.blobs.open_writer(blob, group)
    pending: asyncio.Task[None] | None = None
    try:
        stripe: bytes | None = first
        while stripe is not None:
            if pending is not None:
                await pending
            pending = asyncio.create_task(_process(body, writer, stripe))
            stripe = await anext(stripes, None)
        if pending is not None:
            await pending
        learned = body.finish()
        footer_map = footer(learned)
        written = await writer.finish(footer_map)
        return learned, await storage.blobs.complete(written, footer_map)
    except BaseException:
        await storage.store.shielded(_abandon(pending, writer))
        raise


async def _abandon(pending: asyncio.Task[None] | None, writer: BlobWriter) -> None:
    """Leave nothing of a blob behind, after the stripe under way."""
    if pending is not None:
        await asyncio.gather(pending, return_exceptions=True)
    await writer.abort()


async def _process(body: _Body, writer: BlobWriter, stripe: bytes) -> None:
    """Write one stripe, and hash it beside that unless it was hashed before it was framed."""
    if body.encoder is not None:
        await writer.write(stripe)
        return
    loop = asyncio.get_running_loop()
    hashing = loop.run_in_executor(body.storage.executor, body.digests.update, stripe)
    try:
        await writer.write(stripe)
    finally:
        await hashing
