"""Page tokens: where a listing goes on, opaque to the client and safe from it.

    token = base64url, unpadded: version(1) revision(8, big-endian) position(n) mac(16)

`version` is 1. `revision` is the metadata revision to read at, 0 for none. The MAC is BLAKE2b
keyed with a secret of the store, over everything before it and over `context`, which names the
listing (bucket, operation), so that a token works for the listing that it came from and no other.
A MAC, not encryption: a token shows its holder only a key that the same listing showed him.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b

from s3gw.errors import InvalidArgument

VERSION = 1
REVISION_BYTES = 8
MAC_BYTES = 16
HEAD_BYTES = 1 + REVISION_BYTES
TOKEN_CHARACTERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: key bytes, and the revision that the listing reads at, if pinned."""

    key: bytes
    revision: int | None = None


def encode_token(secret: bytes, context: bytes, position: Position) -> str:
    """The token for the page after `position`. `secret` is at most 64 bytes."""
    revision = position.revision or 0
    body = bytes([VERSION]) + revision.to_bytes(REVISION_BYTES, "big") + position.key
    return urlsafe_b64encode(body + _mac(secret, context, body)).decode().rstrip("=")


def decode_token(secret: bytes, context: bytes, token: str, argument: str) -> Position:
    """The position in a token of this store and listing.

    `argument` is the parameter it came in, for the error. Raises InvalidArgument.
    """
    raw = _decoded(token)
    body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    if (
        len(body) < HEAD_BYTES
        or not hmac.compare_digest(mac, _mac(secret, context, body))
        or body[0] != VERSION
    ):
        raise InvalidArgument("The continuation token provided is incorrect", ArgumentName=argument)
    revision = int.from_bytes(body[1:HEAD_BYTES], "big")
    return Position(body[HEAD_BYTES:], revision or None)


def _mac(secret: bytes, context: bytes, body: bytes) -> bytes:
    # The length in front keeps (context, body) from being cut at another place.
    message = len(context).to_bytes(4, "big") + context + body
    return blake2b(message, key=secret, digest_size=MAC_BYTES, person=b"s3gw page token").digest()


def _decoded(token: str) -> bytes:
    """The bytes of a token in its one spelling, or none at all."""
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
        return b""
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return b""
    # Stray characters and unused low bits are ignored by the decoder; a token has one spelling.
    return raw if urlsafe_b64encode(raw).decode().rstrip("=") == token else b""
