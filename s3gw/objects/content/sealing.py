"""Sealing content and keys with AES-256-GCM: the home of the cipher.

**Content.** Each chunk (`s3gw.objects.content.chunks`) is sealed under a key of its own content:

    content key      HKDF-SHA256(data key, salt: content id, info: "s3gw content 1")
    nonce            chunk number, 12 bytes
    associated data  content id (16), chunk number (8), 1 for the last chunk, else 0

A content id is 16 random bytes and names one sequence of bytes, so a content key seals each chunk
number once and no nonce repeats. A chunk opens only as what it is: another content's, one in
another place, or a last one that is not the last (the content was cut or lengthened) fails. Object
keys, blobs and stripes are not part of it, so that bytes are copied, renamed and re-encoded without
any key.

**Keys.** A key is wrapped under another one with a random nonce: nonce (12), sealed key. What it is
for, the context, is associated data.

Source: NIST SP 800-38D; RFC 5869.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nodes.protocol import Buffer
from s3gw.objects.content.chunks import CHUNK_BYTES, SEALED_CHUNK_BYTES, TAG_BYTES, chunk_count

KEY_BYTES = 32
NONCE_BYTES = 12
CONTENT_ID_BYTES = 16
WRAPPED_KEY_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES


class NotAuthentic(Exception):
    """What was to be opened is not what was sealed under this key, in this place."""


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key for one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt, purpose).derive(key)


def wrap(key: bytes, data: bytes, context: bytes) -> bytes:
    """`data` (a key) sealed under `key`."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, context)


def unwrap(key: bytes, wrapped: bytes, context: bytes) -> bytes:
    """What `wrap` sealed. Raises NotAuthentic."""
    if len(wrapped) < NONCE_BYTES + TAG_BYTES:
        raise NotAuthentic("a wrapped key is too short")
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
    except InvalidTag:
        raise NotAuthentic("the key or its context is another one") from None


class ContentCipher:
    """Seals and opens the chunks of one content."""

    __slots__ = ("_cipher", "_content_id")

    def __init__(self, data_key: bytes, content_id: bytes) -> None:
        self._cipher = AESGCM(derive(data_key, content_id, b"s3gw content 1"))
        self._content_id = content_id

    def seal(self, number: int, data: Buffer, *, last: bool) -> bytes:
        return self._cipher.encrypt(*self._place(number, data, last=last))

    def open(self, number: int, data: Buffer, *, last: bool) -> bytes:
        """Raises NotAuthentic."""
        try:
            return self._cipher.decrypt(*self._place(number, data, last=last))
        except InvalidTag:
            raise NotAuthentic(f"chunk {number} is not what was stored") from None

    def _place(self, number: int, data: Buffer, *, last: bool) -> tuple[bytes, Buffer, bytes]:
        associated = self._content_id + number.to_bytes(8, "big") + bytes((last,))
        return number.to_bytes(NONCE_BYTES, "big"), data, associated


class _Cutter:
    """Cuts what comes in buffers of any length into pieces of one length."""

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._rest = b""

    def take(self, data: Buffer, *, keep_last: bool) -> list[Buffer]:
        """The whole pieces; with `keep_last` one that ends with `data` is kept back, as it may be
        the last of all."""
        pieces: list[Buffer] = []
        view = memoryview(data)
        size = self._piece_bytes
        if self._rest:
            need = size - len(self._rest)
            self._rest += bytes(view[:need])
            view = view[need:]
            if len(self._rest) == size and (len(view) or not keep_last):
                pieces.append(self._rest)
                self._rest = b""
        at = 0
        while len(view) - at > size or (not keep_last and len(view) - at == size):
            pieces.append(view[at : at + size])
            at += size
        if at < len(view):
            self._rest += bytes(view[at:])
        return pieces

    def rest(self) -> bytes:
        return self._rest


class Sealer:
    """Content in, sealed chunks out; for one content, once."""

    def __init__(self, cipher: ContentCipher) -> None:
        self._cipher = cipher
        self._cutter = _Cutter(CHUNK_BYTES)
        self._number = 0

    def feed(self, data: Buffer) -> list[Buffer]:
        """The chunks that are full, and not the last."""
        return [self._seal(piece, last=False) for piece in self._cutter.take(data, keep_last=True)]

    def finish(self) -> list[Buffer]:
        """The last chunk."""
        return [self._seal(self._cutter.rest(), last=True)]

    def _seal(self, piece: Buffer, *, last: bool) -> bytes:
        sealed = self._cipher.seal(self._number, piece, last=last)
        self._number += 1
        return sealed


class Opener:
    """Sealed chunks in, content out: those from `first_chunk` of a content of `size` bytes, whole,
    up to the end of some chunk."""

    def __init__(self, cipher: ContentCipher, size: int, first_chunk: int = 0) -> None:
        self._cipher = cipher
        self._cutter = _Cutter(SEALED_CHUNK_BYTES)
        self._number = first_chunk
        self._last = chunk_count(size) - 1

    def feed(self, buffers: Iterable[Buffer]) -> list[Buffer]:
        """The content of the chunks that are complete. Raises NotAuthentic."""
        return [
            self._open(piece)
            for data in buffers
            for piece in self._cutter.take(data, keep_last=False)
        ]

    def finish(self) -> list[Buffer]:
        """The content of the last chunk if it is a short one. Raises NotAuthentic."""
        rest = self._cutter.rest()
        return [self._open(rest)] if rest else []

    def _open(self, piece: Buffer) -> bytes:
        number, self._number = self._number, self._number + 1
        return self._cipher.open(number, piece, last=number == self._last)


def trimmed(buffers: Sequence[Buffer], skip: int, most: int) -> list[Buffer]:
    """What is left of the buffers without the first `skip` bytes, at most `most`."""
    kept: list[Buffer] = []
    for data in buffers:
        if skip >= len(data):
            skip -= len(data)
            continue
        if most <= 0:
            break
        view = memoryview(data)[skip : skip + most]
        skip = 0
        most -= len(view)
        kept.append(view)
    return kept
