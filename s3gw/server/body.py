"""A request's body: framing removed, and compared with what the client said of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.auth.chunks import ChunkSignatures
from s3gw.auth.sigv4 import Payload, PayloadMode, SignedRequest
from s3gw.metadata.records import Checksums
from s3gw.wire import checksums
from s3gw.wire.aws_chunked import AwsChunkedDecoder, parse_decoded_length, parse_trailer_names
from s3gw.wire.checksums import ChecksumType, Requested

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody:
    """The body of one request. Read once, either by iteration or by `read`.

    `algorithms` are the checksums computed while it is stored; SHA256 is among them when the
    signature covers the payload's hash. With `sums_of_object` the checksum headers speak of
    something else than this body (CompleteMultipartUpload) and are left alone.
    """

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[str, str],
        payload: Payload,
        signed: SignedRequest | None,
        *,
        sums_of_object: bool = False,
    ) -> None:
        self._receive = receive
        self._payload = payload
        self._decoder: AwsChunkedDecoder | None = None
        self._trailers: Mapping[str, str] = {}
        self._size = _content_length(headers)
        self._received = 0
        mode = payload.mode
        trailer_names = parse_trailer_names(headers.get("x-amz-trailer"))
        if trailer_names and not mode.trailing:
            raise errors.InvalidRequest(
                "x-amz-trailer is given, but x-amz-content-sha256 names no body with a trailer."
            )
        if mode.chunked:
            self._size = parse_decoded_length(headers.get("x-amz-decoded-content-length"))
            self._decoder = AwsChunkedDecoder(
                self._size,
                signatures=ChunkSignatures(signed) if signed and mode.chunks_signed else None,
                trailer_names=trailer_names if mode.trailing else None,
            )
        self.requested: Requested = checksums.NOTHING_REQUESTED
        if not sums_of_object:
            self.requested = checksums.requested(headers, trailer_names)
        self._stored: list[str] = []
        if self.requested.algorithm is not None:
            self._stored.append(self.requested.algorithm.name)

    @property
    def size(self) -> int | None:
        """The payload's length if announced, else None."""
        return self._size

    @property
    def algorithms(self) -> Collection[str]:
        """Digests to compute besides MD5."""
        if self._payload.mode is PayloadMode.HASHED and "SHA256" not in self._stored:
            return [*self._stored, "SHA256"]
        return self._stored

    def require(self, algorithm: str) -> None:
        """Compute and store this checksum too."""
        if algorithm not in self._stored:
            self._stored.append(algorithm)

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise errors.IncompleteBody()
            more = message.get("more_body", False)
            data = message.get("body", b"")
            if self._decoder is None:
                self._received += len(data)
                if data:
                    yield data
            elif data:
                for piece in self._decoder.feed(data):
                    self._received += len(piece)
                    yield piece
        if self._decoder is not None:
            self._trailers = self._decoder.finish()
        if self._size is not None and self._received != self._size:
            raise errors.IncompleteBody()

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        """See s3gw.objects.ingest.Payload."""
        sha256 = self._payload.sha256
        if self._payload.mode is PayloadMode.HASHED and digests["SHA256"].hex() != sha256:
            raise errors.XAmzContentSHA256Mismatch(
                ClientComputedContentSHA256=str(sha256),
                S3ComputedContentSHA256=digests["SHA256"].hex(),
            )
        self.requested.verify_md5(digests["MD5"])
        if self.requested.algorithm is not None:
            self.requested.verify(digests[self.requested.algorithm.name], self._trailers)
        values = {name: checksums.encode(digests[name]) for name in self._stored}
        return Checksums(values, ChecksumType.FULL_OBJECT if values else "")

    async def read(self, limit: int) -> bytes:
        """The whole body, verified. Raises MaxMessageLengthExceeded over `limit` bytes."""
        if self._size is not None and self._size > limit:
            raise errors.MaxMessageLengthExceeded(MaxMessageLengthBytes=str(limit))
        data = bytearray()
        async for piece in self:
            data += piece
            if len(data) > limit:
                raise errors.MaxMessageLengthExceeded(MaxMessageLengthBytes=str(limit))
        digests = {"MD5": hashlib.md5(data, usedforsecurity=False).digest()}
        for name in self.algorithms:
            hasher = checksums.ALGORITHMS[name].new()
            hasher.update(data)
            digests[name] = hasher.digest()
        self.verify(digests)
        return bytes(data)


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise errors.InvalidArgument(ArgumentName="Content-Length", ArgumentValue=text)
    return int(text)
