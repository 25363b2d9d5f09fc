"""The chain of signatures over an aws-chunked body.

Each chunk's signature covers the one before it, the first the request's own ("seed"), so chunks
cannot be dropped, repeated, reordered or moved to another request. Source: Amazon S3 API Reference,
"Transferring Payload in Multiple Chunks" and "Including Trailing Headers".
"""

from __future__ import annotations

import hashlib
import hmac

from s3gw.auth.sigv4 import SignedRequest
from s3gw.errors import SignatureDoesNotMatch

EMPTY_SHA256 = hashlib.sha256().hexdigest().encode()


class ChunkSignatures:
    """Verifies the chunks of one body, in order; `s3gw.wire.aws_chunked` calls it."""

    __slots__ = ("_key", "_previous", "_stamp")

    def __init__(self, signed: SignedRequest) -> None:
        self._key = signed.signing_key
        self._stamp = b"%b\n%b\n" % (signed.timestamp, signed.scope)
        self._previous = signed.signature

    def verify_chunk(self, signature: bytes, payload_sha256: bytes) -> None:
        """Check one chunk's signature; `payload_sha256` is lower-case hex."""
        self._verify(
            b"AWS4-HMAC-SHA256-PAYLOAD\n%b%b\n%b\n%b"
            % (self._stamp, self._previous, EMPTY_SHA256, payload_sha256),
            signature,
        )

    def verify_trailer(self, signature: bytes, trailer_sha256: bytes) -> None:
        """Check the trailer's signature, over the hash of its `name:value\\n` lines."""
        self._verify(
            b"AWS4-HMAC-SHA256-TRAILER\n%b%b\n%b" % (self._stamp, self._previous, trailer_sha256),
            signature,
        )

    def _verify(self, to_sign: bytes, signature: bytes) -> None:
        expected = hmac.digest(self._key, to_sign, "sha256").hex().encode()
        if not hmac.compare_digest(expected, signature):
            raise SignatureDoesNotMatch
        self._previous = expected
