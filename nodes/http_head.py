"""HTTP/1.1 messages as bytes (RFC 9112): strict parsing of request heads and chunked bodies, and
the writing of response heads. Pure: bytes in, values out; no sockets, no clock of its own.

Strict means that no two parsers in a chain of proxies can read a message differently: every line
ends in CRLF, nothing is folded, a body has one length and one only. What RFC 9112 allows a server
to repair, this refuses with 400, and the connection is closed, because the place where the next
request would start is no longer certain.

A result never depends on how the bytes were cut into segments: `find_head` and `ChunkedBody` may
be fed one byte at a time, and refuse a line as soon as no continuation could make it legal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

HeaderList = list[tuple[bytes, bytes]]

# Bounds of a request head (s3gw.limits has the same values; this package imports nothing of it).
HEAD_BYTES_MAX = 32 * 1024
HEADERS_MAX = 200
CHUNK_LINE_BYTES_MAX = 1024
TRAILER_BYTES_MAX = 8 * 1024

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHOD = re.compile(_TOKEN + rb"{1,32}")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_TARGET = re.compile(rb"/[!-~]*+")
# A field line anchored behind a newline. Possessive quantifiers: it never backtracks, so that its
# cost is linear in hostile input too.
_FIELD = re.compile(
    rb"(?<=\n)(" + _TOKEN + rb"++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n",
)
_CHUNK_EXTENSION: Final = rb"(?:;[\t\x20-\x7e\x80-\xff]*+)?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})" + _CHUNK_EXTENSION + rb"\r\n")
_CHUNK_LINE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}" + _CHUNK_EXTENSION + rb"\r?")
_FRAMING = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"),
)
_CONTENT_LENGTH_DIGITS_MAX = 19
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


class ProtocolError(Exception):
    """The peer broke HTTP. `status` is what to answer before closing; `reason` is for humans."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class RequestHead:
    """A request line and its headers (names in lower case, values without surrounding blanks).

    `target` is the exact bytes of the request line. `content_length` is 0 without a body, and
    meaningless when `chunked`.
    """

    method: str
    target: bytes
    version: str
    headers: HeaderList
    content_length: int = 0
    chunked: bool = False
    keep_alive: bool = True
    expects_continue: bool = False


def find_head(data: bytes | bytearray, scanned: int, limit: int) -> int:
    """The length of the head at the start of `data` (its empty line included), or 0 when it is
    not complete. `scanned` bytes were looked at before. Raises ProtocolError: 431 above `limit`
    bytes, 400 for what cannot become a head."""
    end = data.find(b"\r\n\r\n", max(0, scanned - 3), limit)
    if end >= 0:
        return end + 4
    # Without this a client that ends its lines with LF would wait for the deadline.
    start = max(0, scanned - 1)
    pairs = data.count(b"\r\n", start, limit)
    lines = data.count(b"\n", start if start == 0 else start + 1, limit)
    if lines > pairs or (data and not _METHOD.match(data)):
        raise ProtocolError(400, "this is not HTTP 1.1")
    if len(data) >= limit:
        raise ProtocolError(431, f"the request head is longer than {limit} bytes")
    return 0


def parse_head(head: bytes, headers_max: int = HEADERS_MAX) -> RequestHead:
    """Parse a head as delimited by `find_head`. Raises ProtocolError (400, 417, 431, 505)."""
    line_end = head.find(b"\r\n")
    request_line = head[:line_end].split(b" ")
    if len(request_line) != 3:
        raise ProtocolError(400, "malformed request line")
    method, target, version_bytes = request_line
    version = _VERSIONS.get(version_bytes)
    if version is None:
        if _VERSION.fullmatch(version_bytes) and method != b"PRI":
            raise ProtocolError(505, "only HTTP/1.1 and HTTP/1.0 are served")
        raise ProtocolError(400, "this is not HTTP 1.1")
    if not _METHOD.fullmatch(method):
        raise ProtocolError(400, "malformed method")
    # Absolute and authority form are for proxies: two places could name the host.
    if not _TARGET.fullmatch(target) and not (target == b"*" and method == b"OPTIONS"):
        raise ProtocolError(400, "the request target must be a path")

    request = RequestHead(method.decode("ascii"), target, version, [], keep_alive=version == "1.1")
    lines = head.count(b"\n", line_end) - 2
    if lines > headers_max:
        raise ProtocolError(431, f"more than {headers_max} headers")
    request.headers = headers = parse_fields(head, line_end, lines)
    _frame(request, [field for field in headers if field[0] in _FRAMING])
    return request


def parse_fields(block: bytes, start: int, lines: int) -> HeaderList:
    """The `lines` header lines that follow the newline at or after `start`. One match per line,
    each ending at its own newline, proves that every line was legal: no folding, no bare CR or
    LF, no control byte, no blank before the colon."""
    fields = _FIELD.findall(block, start)
    if len(fields) != lines:
        raise ProtocolError(400, "malformed header")
    return [(name.lower(), value.rstrip(b" \t")) for name, value in fields]


def _frame(request: RequestHead, fields: HeaderList) -> None:
    """Decide where the request ends (RFC 9112, section 6) and whether another may follow."""
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in values:
            if name != b"connection":
                raise ProtocolError(400, f"more than one {name.decode()} header")
            value = values[name] + b"," + value
        values[name] = value
    if request.version == "1.1" and b"host" not in values:
        raise ProtocolError(400, "a Host header is needed")

    length = values.get(b"content-length")
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise ProtocolError(400, "both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked" or request.version == "1.0":
            raise ProtocolError(400, "Transfer-Encoding may only be chunked")
        request.chunked = True
    elif length is not None:
        # bytes.isdigit() knows ASCII digits only: no sign, blank, underscore or list passes.
        if not length.isdigit() or len(length) > _CONTENT_LENGTH_DIGITS_MAX:
            raise ProtocolError(400, "malformed Content-Length")
        request.content_length = int(length)

    if b"connection" in values:
        tokens = [token.strip(b" \t") for token in values[b"connection"].lower().split(b",")]
        if b"close" in tokens:
            request.keep_alive = False
    expectation = values.get(b"expect")
    if expectation is not None and request.version == "1.1":
        if expectation.lower() != b"100-continue":
            raise ProtocolError(417, "the only expectation served is 100-continue")
        request.expects_continue = coding is not None or length is not None


class ChunkedBody:
    """Decodes the chunked transfer coding (RFC 9112, section 7.1). Trailer fields must be legal
    and are dropped. `done` once the last chunk was seen; `rest` then holds what followed it."""

    __slots__ = ("_at_chunk_end", "_in_trailer", "_left", "_line", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._left = 0
        self._line = b""
        self._at_chunk_end = False
        self._in_trailer = False
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The body bytes that `data` carries. Raises ProtocolError."""
        if self._line:
            data, self._line = self._line + data, b""
        view = memoryview(data)
        pieces: list[memoryview] = []
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                piece = view[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                self._at_chunk_end = not self._left
            elif self._at_chunk_end:
                at = self._chunk_end(data, at)
            elif self._in_trailer:
                at = self._trailer_line(data, at)
            else:
                at = self._size_line(data, at)
        if self.done:
            self.rest = data[at:]
        return b"".join(pieces)

    def _chunk_end(self, data: bytes, at: int) -> int:
        ending = data[at : at + 2]
        if not b"\r\n".startswith(ending):
            raise ProtocolError(400, "a chunk does not end in CRLF")
        if len(ending) == 2:
            self._at_chunk_end = False
        else:
            self._line = ending
        return at + 2

    def _size_line(self, data: bytes, at: int) -> int:
        line = _line_at(data, at, CHUNK_LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            if not _CHUNK_LINE_BEGUN.fullmatch(line):
                raise ProtocolError(400, "malformed chunk size")
            self._line = line
            return len(data)
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(400, "malformed chunk size")
        self._left = int(match[1], 16)
        if not self._left:
            self._in_trailer = True
        return at + len(line)

    def _trailer_line(self, data: bytes, at: int) -> int:
        line = _line_at(data, at, TRAILER_BYTES_MAX)
        if not line.endswith(b"\n"):
            self._line = line
            return len(data)
        self._trailer_bytes += len(line)
        if line == b"\r\n":
            self.done = True
        elif self._trailer_bytes > TRAILER_BYTES_MAX:
            raise ProtocolError(431, f"trailers are longer than {TRAILER_BYTES_MAX} bytes")
        else:
            parse_fields(b"\n" + line, 0, 1)
        return at + len(line)


def _line_at(data: bytes, at: int, limit: int) -> bytes:
    """The line that starts at `at`, its newline included if it is there."""
    end = data.find(b"\n", at, at + limit)
    if end < 0:
        if len(data) - at >= limit:
            raise ProtocolError(400, f"a line of a chunked body is longer than {limit} bytes")
        return data[at:]
    return data[at : end + 1]


STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE: Final = STATUS_LINES[100] + b"\r\n"


def status_line(status: int) -> bytes:
    """A status line with a reason phrase: botocore takes `HTTP/1.1 403 ` for a broken answer."""
    known = STATUS_LINES.get(status)
    return known if known is not None else b"HTTP/1.1 %d Unknown\r\n" % status


@dataclass(slots=True)
class ResponseFraming:
    """The header lines of a response, and what they say about its end."""

    block: bytes = b""
    content_length: int | None = None
    close: bool = False
    dated: bool = False


def write_fields(headers: Iterable[tuple[bytes, bytes]], *, lengthless: bool) -> ResponseFraming:
    """Header lines of a response. Connection and Transfer-Encoding are the server's to say and
    are taken out, as is Content-Length where the response may not have one (`lengthless`: 1xx and
    204). Raises ValueError for a value that would start a line of its own."""
    framing = ResponseFraming()
    lines: list[bytes] = []
    for name, value in headers:
        key = name.lower()
        if key == b"content-length":
            framing.content_length = int(value)
            if lengthless:
                continue
        elif key == b"connection":
            framing.close = framing.close or b"close" in value.lower()
            continue
        elif key == b"transfer-encoding":
            continue
        elif key == b"date":
            framing.dated = True
        lines.append(name + b": " + value + b"\r\n")
    block = b"".join(lines)
    breaks = len(lines)
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks or b"\0" in block:
        raise ValueError("a response header holds a line break or NUL")
    framing.block = block
    return framing


class DateLine:
    """The `Date` line, formatted once per second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def at(self, seconds: float) -> bytes:
        """The line for a time in seconds since the epoch."""
        second = int(seconds)
        if second != self._second:
            self._second = second
            self._line = b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
        return self._line
