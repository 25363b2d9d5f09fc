"""From a request's body to a durable blob that nothing refers to yet.

Bytes are cut into stripes. While one stripe is hashed, encoded and sent to the nodes, the next
is received; hashing and encoding run side by side off the event loop. A body of at most
SMALL_BLOB_BYTES_MAX becomes a blob of the companion profile, written in one call per node.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from nodes.protocol import Buffer
from s3gw import errors, limits
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.topology import Group, Profile
from s3gw.cluster.writer import BlobWriter, NotWritten, Written
from s3gw.metadata import keys
from s3gw.metadata.records import Checksums
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import ALGORITHMS, Hasher

RETRY_AFTER = {"Retry-After": "1"}
HASH_INLINE_BYTES_MAX = 16 * limits.KIB


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
    """A durable blob and what was learned of its content. `md5` is hexadecimal."""

    written: Written
    size: int
    md5: str
    checksums: Checksums


Footer = Callable[["Learned"], bytes]
Place = Callable[[Profile], tuple[bytes, Group]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What the footer of the shards says of the content."""

    size: int
    md5: str
    checksums: Checksums


class Digests:
    """MD5 for the ETag and whatever else was asked for, over one body."""

    def __init__(self, algorithms: Collection[str]) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._others: dict[str, Hasher] = {name: ALGORITHMS[name].new() for name in algorithms}

    def update(self, data: Buffer) -> None:
        self.size += len(data)
        self._md5.update(data)
        for digest in self._others.values():
            digest.update(data)

    def finish(self, payload: Payload) -> Learned:
        values = {name: digest.digest() for name, digest in self._others.items()}
        values["MD5"] = self._md5.digest()
        return Learned(self.size, self._md5.hexdigest(), payload.verify(values))


async def ingest(
    storage: Storage,
    profile: Profile,
    bucket: str,
    payload: Payload,
    footer: Footer,
    *,
    most: int,
    placement: str = "",
) -> Ingested:
    """Store a body of at most `most` bytes as a blob of `profile`, or of its companion, where the
    bucket's `placement` policy would have it.

    Raises S3Error of the body; EntityTooLarge; SlowDown when too few nodes take shards. Nothing
    is left behind in that case.
    """
    digests = Digests(payload.algorithms)
    place = partial(draw, storage, bucket=bucket, placement=placement)
    stripes = cut(payload, profile.stripe_bytes, most)
    first = await anext(stripes, b"")
    try:
        if len(first) <= limits.SMALL_BLOB_BYTES_MAX:
            await _hash(storage, digests, first)
            if await anext(stripes, None) is not None:
                raise AssertionError("a stripe follows a short one")
            learned = digests.finish(payload)
            companion = storage.blobs.topology.companion(profile)
            written = await _write_small(storage, place, companion, first, footer(learned))
        else:
            learned, written = await _write_large(
                storage, place, profile, payload, digests, first, stripes, footer
            )
    except (NotWritten, TooFewNodes) as error:
        if storage.blobs.directory.any_full():
            raise errors.InsufficientStorage(str(error)) from error
        raise errors.SlowDown(str(error), headers=RETRY_AFTER) from error
    return Ingested(written, learned.size, learned.md5, learned.checksums)


async def cut(payload: Payload, stripe_bytes: int, most: int) -> AsyncIterator[bytes]:
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


async def _hash(storage: Storage, digests: Digests, data: bytes) -> None:
    if len(data) <= HASH_INLINE_BYTES_MAX:
        digests.update(data)
    else:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(storage.executor, digests.update, data)


async def _write_small(
    storage: Storage, place: Place, profile: Profile, data: bytes, footer_map: bytes
) -> Written:
    blob, group = place(profile)
    writer = storage.blobs.open_writer(blob, group)
    return await storage.blobs.complete(await writer.write_whole(data, footer_map), footer_map)


async def _write_large(
    storage: Storage,
    place: Place,
    profile: Profile,
    payload: Payload,
    digests: Digests,
    first: bytes,
    stripes: AsyncIterator[bytes],
    footer: Footer,
) -> tuple[Learned, Written]:
    blob, group = place(profile)
    writer = storage.blobs.open_writer(blob, group)
    pending: asyncio.Task[None] | None = None
    try:
        stripe: bytes | None = first
        while stripe is not None:
            if pending is not None:
                await pending
            pending = asyncio.create_task(_process(storage, digests, writer, stripe))
            stripe = await anext(stripes, None)
        if pending is not None:
            await pending
        learned = digests.finish(payload)
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


async def _process(storage: Storage, digests: Digests, writer: BlobWriter, stripe: bytes) -> None:
    """Hash and write one stripe, side by side."""
    loop = asyncio.get_running_loop()
    hashing = loop.run_in_executor(storage.executor, digests.update, stripe)
    try:
        await writer.write(stripe)
    finally:
        await hashing
