"""How content becomes stored bytes: compressed, then sealed, either or neither.

The stored bytes are what everything below knows: they are cut into stripes, checksummed, coded,
moved and re-encoded without a look inside. Content is what clients know: its size, its MD5 and
checksums, its ranges.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from nodes.protocol import Buffer
from s3gw.metadata.key_records import KeyCopy
from s3gw.metadata.records import Content
from s3gw.objects.content import chunks, compression
from s3gw.objects.content.compression import Compressor, Decompressor
from s3gw.objects.content.sealing import (
    CONTENT_ID_BYTES,
    ContentCipher,
    NotAuthentic,
    Opener,
    Sealer,
    derive,
    unwrap,
    wrap,
)

ETAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Framing:
    """The framing of one content. Without a `data_key` it is not sealed; `compression` is that of
    stored content, or the one wanted. With `hides_md5` the ETag tells nothing of the content, as
    that of SSE-C and SSE-KMS. `key_copy` is of the named key of a new content, for the footers of
    its shards."""

    content_id: bytes = b""
    data_key: bytes = field(default=b"", repr=False)
    compression: str = ""
    hides_md5: bool = False
    key_copy: KeyCopy | None = field(default=None, repr=False)

    def etag(self, md5: str) -> str:
        """The ETag of a content with this MD5, both in hexadecimal."""
        if not self.hides_md5:
            return md5
        key = derive(self.data_key, self.content_id, b"s3gw etag 1")
        return hmac.digest(key, bytes.fromhex(md5), sha256)[:ETAG_BYTES].hex()

    def new_part(self) -> Framing:
        """That of a new part, where this is an upload's: an id of its own, and so a key."""
        return Framing(
            os.urandom(CONTENT_ID_BYTES), self.data_key, self.compression, self.hides_md5
        )

    def of_part(self, content: Content | None) -> Framing:
        """That of a stored part. Raises NotAuthentic."""
        if content is None:
            return PLAIN
        key = self.data_key
        if content.wrapped_key:
            key = unwrap(self._part_wrapping, content.wrapped_key, content.content_id)
        return Framing(content.content_id, key, content.compression, self.hides_md5)

    def wrap_key(self, data_key: bytes, content_id: bytes) -> bytes:
        """A part's own data key, as it is kept in the part's record: what was sealed elsewhere
        becomes a part without being sealed anew."""
        return wrap(self._part_wrapping, data_key, content_id)

    @property
    def _part_wrapping(self) -> bytes:
        return derive(self.data_key, b"", b"s3gw part keys 1")

    def stored_size(self, size: int) -> int:
        """Stored bytes of `size` bytes that are not compressed any more, or not at all."""
        return chunks.sealed_size(size) if self.data_key else size

    def unsealed_size(self, stored: int) -> int:
        """The inverse. Raises ContentDamaged."""
        if not self.data_key:
            return stored
        try:
            return chunks.content_size(stored)
        except ValueError as error:
            raise ContentDamaged(str(error)) from error


PLAIN = Framing()


class ContentDamaged(Exception):
    """The stored bytes can be read, but are not what was written."""


class Encoder:
    """Content in, stored bytes out; once."""

    def __init__(self, framing: Framing) -> None:
        self._compressor = Compressor() if framing.compression else None
        self._sealer: Sealer | None = None
        if framing.data_key:
            self._sealer = Sealer(ContentCipher(framing.data_key, framing.content_id))

    @property
    def compression(self) -> str:
        """What was done, at the end."""
        used = self._compressor is not None and self._compressor.used
        return compression.NAME if used else ""

    def feed(self, data: Buffer) -> list[Buffer]:
        """Stored bytes that are complete."""
        pieces = [data] if self._compressor is None else self._compressor.feed(data)
        return self._sealed(pieces)

    def finish(self) -> list[Buffer]:
        """The rest."""
        pieces = [] if self._compressor is None else self._compressor.finish()
        out = self._sealed(pieces)
        return out if self._sealer is None else [*out, *self._sealer.finish()]

    def _sealed(self, pieces: list[Buffer]) -> list[Buffer]:
        if self._sealer is None:
            return pieces
        return [sealed for piece in pieces for sealed in self._sealer.feed(piece)]


def decoded(
    framing: Framing, size: int, stored: int, buffers: Iterable[Buffer]
) -> Iterator[Buffer]:
    """A whole content of `size` bytes from its `stored` bytes, in order: for who reads without an
    event loop. Raises ContentDamaged."""
    inner = framing.unsealed_size(stored)
    try:
        pieces = iter(buffers)
        if framing.data_key:
            pieces = _opened(framing, inner, pieces)
        if framing.compression:
            frames = Decompressor(size)
            for piece in pieces:
                yield from _decompressed(frames, piece)
        else:
            yield from pieces
    except (NotAuthentic, compression.NotDecompressible) as error:
        raise ContentDamaged(str(error)) from error


def _decompressed(frames: Decompressor, piece: Buffer) -> Iterator[Buffer]:
    content = frames.feed([piece])
    while content:
        yield from content
        content = frames.feed(())


def _opened(framing: Framing, inner: int, buffers: Iterator[Buffer]) -> Iterator[Buffer]:
    opener = Opener(ContentCipher(framing.data_key, framing.content_id), inner)
    for buffer in buffers:
        yield from opener.feed([buffer])
    yield from opener.finish()
