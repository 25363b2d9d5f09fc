"""The aws-chunked body framing, decoded incrementally. No I/O: bytes in, payload out.

    body    = *chunk last (CRLF | trailer)
    chunk   = size [";chunk-signature=" 64HEX] CRLF size*OCTET CRLF          size > 0
    last    = "0"  [";chunk-signature=" 64HEX] CRLF
    trailer = *(name ":" value CRLF) ["x-amz-trailer-signature:" 64HEX CRLF] CRLF

Source: Amazon S3 API Reference, "Transferring Payload in Multiple Chunks (Chunked Upload)" and
"Including Trailing Headers". Three forms exist: signed chunks, signed chunks with a signed
trailer, unsigned chunks with a trailer. minio-go ends a trailer line with LF and a CRLF alone, so
the trailer's lines may end with LF and empty lines between them are skipped; all else is strict.

**Payload flows before it is proven.** A chunk's signature covers the whole chunk, which may be as
long as the object; holding it back would need memory for it. So `feed` returns payload as it comes
and raises when the chunk turns out wrong. Nothing may be committed before `finish` has returned:
it alone says that every chunk, the end, the length and the trailer were there and right. A body
cut at any byte fails in `finish`.

The work is linear: payload is sliced, never copied; a chunk header and the trailer are gathered
in buffers with a limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from enum import Enum, auto
from typing import Protocol

from s3gw.errors import (
    IncompleteBody,
    InvalidArgument,
    InvalidChunkSizeError,
    InvalidRequest,
    MalformedTrailerError,
    MissingContentLength,
)
from s3gw.limits import (
    CHUNK_HEADER_BYTES_MAX,
    OBJECT_BYTES_MAX,
    SIGNED_CHUNK_BYTES_MIN,
    TRAILER_BYTES_MAX,
)

SIGNATURE_EXTENSION = b";chunk-signature="
TRAILER_SIGNATURE = "x-amz-trailer-signature"
HEX_DIGITS = b"0123456789abcdefABCDEF"
SIZE_DIGITS_MAX = 16
TRUNCATED = "The request body terminated unexpectedly"
WRONG_LENGTH = (
    "You did not provide the number of bytes specified by the x-amz-decoded-content-length header."
)

Buffer = bytes | bytearray | memoryview


class SignatureChain(Protocol):
    """Judges signatures in the order of the chunks (`s3gw.auth.chunks.ChunkSignatures`)."""

    def verify_chunk(self, signature: bytes, payload_sha256: bytes) -> None: ...
    def verify_trailer(self, signature: bytes, trailer_sha256: bytes) -> None: ...


class State(Enum):
    """What the next byte belongs to."""

    HEADER = auto()
    DATA = auto()
    DATA_END = auto()
    BODY_END = auto()
    TRAILER = auto()
    DONE = auto()
    FAILED = auto()


class AwsChunkedDecoder:
    """Decodes one body.

    `decoded_length` is `x-amz-decoded-content-length`. `signatures` is None for unsigned chunks.
    `trailer_names` is None when the mode has no trailer, else what `x-amz-trailer` announces.
    """

    def __init__(
        self,
        decoded_length: int,
        *,
        signatures: SignatureChain | None = None,
        trailer_names: Collection[str] | None = None,
    ) -> None:
        self._state = State.HEADER
        self._missing = decoded_length
        self._signatures = signatures
        self._trailer_names = trailer_names
        self._gathered = bytearray()
        self._chunk_left = 0
        self._chunk_signature = b""
        self._hash = hashlib.sha256()
        self._short_chunk_seen = False

    def feed(self, data: Buffer) -> list[memoryview]:
        """The payload in `data`, as views into it, in order; often one, possibly none.

        Raises IncompleteBody for broken framing, SignatureDoesNotMatch, InvalidChunkSizeError,
        MalformedTrailerError. After an error the decoder refuses everything.
        """
        state, self._state = self._state, State.FAILED
        payload: list[memoryview] = []
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end:
            if state is State.DATA:
                take = min(self._chunk_left, end - position)
                piece = view[position : position + take]
                position += take
                if self._signatures is not None:
                    self._hash.update(piece)
                payload.append(piece)
                self._chunk_left -= take
                if not self._chunk_left:
                    self._verify_chunk(self._hash)
                    state = State.DATA_END
            elif state is State.HEADER:
                position, line = self._gather_line(view, position)
                if line is not None:
                    state = self._open_chunk(line)
            elif state in (State.DATA_END, State.BODY_END):
                position, line = self._gather_line(view, position, 2)
                if line == b"":
                    state = State.HEADER if state is State.DATA_END else State.DONE
                elif line is not None:
                    raise IncompleteBody(TRUNCATED)
            elif state is State.TRAILER:
                self._gathered += view[position:end]
                position = end
                if len(self._gathered) > TRAILER_BYTES_MAX:
                    raise MalformedTrailerError
            else:
                raise IncompleteBody(TRUNCATED)
        self._state = state
        return payload

    def finish(self) -> dict[str, str]:
        """The body has ended: the trailers by name, all proven. Only now may the object be kept.

        Raises IncompleteBody when the body was cut, MalformedTrailerError, SignatureDoesNotMatch.
        """
        state, self._state = self._state, State.FAILED
        if state is State.DONE:
            trailers: dict[str, str] = {}
        elif state is State.TRAILER:
            trailers = self._parse_trailer()
        else:
            raise IncompleteBody(TRUNCATED)
        return trailers

    def _gather_line(
        self, view: memoryview, position: int, length_max: int = CHUNK_HEADER_BYTES_MAX
    ) -> tuple[int, bytes | None]:
        """Position after a line and the line without CRLF, or None while it is incomplete."""
        before = len(self._gathered)
        window = bytes(self._gathered) + bytes(view[position : position + length_max - before])
        line_end = window.find(b"\r\n")
        if line_end < 0:
            if len(window) >= length_max:
                raise IncompleteBody(TRUNCATED)
            self._gathered[:] = window
            return len(view), None
        self._gathered.clear()
        return position + line_end + 2 - before, window[:line_end]

    def _open_chunk(self, line: bytes) -> State:
        size_text, extension, signature = line.partition(SIGNATURE_EXTENSION)
        if (
            not 0 < len(size_text) <= SIZE_DIGITS_MAX
            or size_text.strip(HEX_DIGITS)
            or bool(extension) is (self._signatures is None)
        ):
            raise IncompleteBody(TRUNCATED)
        size = int(size_text, 16)
        if size > self._missing:
            raise IncompleteBody(WRONG_LENGTH)
        self._missing -= size
        self._chunk_left = size
        self._chunk_signature = signature
        if size:
            self._check_size(size)
            self._hash = hashlib.sha256()
            return State.DATA
        if self._missing:
            raise IncompleteBody(WRONG_LENGTH)
        self._verify_chunk(hashlib.sha256())
        return State.BODY_END if self._trailer_names is None else State.TRAILER

    def _check_size(self, size: int) -> None:
        # As on S3: each signed chunk costs a signature, so only the last may be small. Unsigned
        # chunks may: SDKs pass on what a pipe gives them.
        if self._signatures is None:
            return
        if self._short_chunk_seen:
            raise InvalidChunkSizeError
        self._short_chunk_seen = size < SIGNED_CHUNK_BYTES_MIN

    def _verify_chunk(self, digest: hashlib._Hash) -> None:
        if self._signatures is not None:
            self._signatures.verify_chunk(self._chunk_signature, digest.hexdigest().encode())

    def _parse_trailer(self) -> dict[str, str]:
        block = bytes(self._gathered)
        if block == b"\r\n":
            lines: list[bytes] = []
        elif block.endswith(b"\r\n\r\n"):
            lines = [line for line in block.replace(b"\r\n", b"\n").split(b"\n") if line]
        else:
            raise IncompleteBody(TRUNCATED)
        trailers: dict[str, str] = {}
        signature: bytes | None = None
        signed = hashlib.sha256()
        for line in lines:
            name_bytes, colon, value = line.partition(b":")
            name = name_bytes.decode("latin-1").lower()
            value = value.strip()
            if not colon or signature is not None or name in trailers or not value.isascii():
                raise MalformedTrailerError
            if name == TRAILER_SIGNATURE and self._signatures is not None:
                signature = value
            elif self._trailer_names and name in self._trailer_names:
                trailers[name] = value.decode()
                signed.update(b"%b:%b\n" % (name.encode(), value))
            else:
                raise MalformedTrailerError
        if self._signatures is not None and (signature is not None or trailers):
            self._signatures.verify_trailer(signature or b"", signed.hexdigest().encode())
        if len(trailers) != len(self._trailer_names or ()):
            raise MalformedTrailerError
        return trailers


def parse_trailer_names(value: str | None) -> frozenset[str]:
    """The names that `x-amz-trailer` announces, lower case; checksums alone, as on S3.

    Raises InvalidRequest.
    """
    if value is None:
        return frozenset()
    names = frozenset(name.strip().lower() for name in value.split(","))
    if not all(name.startswith("x-amz-checksum-") for name in names):
        raise InvalidRequest("The value specified in the x-amz-trailer header is not supported")
    return names


def parse_decoded_length(value: str | None) -> int:
    """`x-amz-decoded-content-length` in bytes. Raises MissingContentLength, InvalidArgument."""
    if value is None:
        raise MissingContentLength
    if not (value.isascii() and value.isdigit()) or len(value) > len(str(OBJECT_BYTES_MAX)):
        raise InvalidArgument(
            "The value of x-amz-decoded-content-length is not valid.",
            ArgumentName="x-amz-decoded-content-length",
        )
    return int(value)
