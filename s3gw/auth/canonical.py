"""The canonical request of Signature Version 4, as Amazon S3 builds it.

    METHOD \\n canonical URI \\n canonical query \\n canonical headers \\n signed names \\n payload

Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header". Everything
here is bytes: a signature is over bytes, and one decoding too many has opened other servers.

Two readings of a URL exist among clients. Most sign the path and query percent-encoded once, each
byte outside RFC 3986 "unreserved" as %XX, whatever form they then send. Some sign what they send.
The two are equal for every botocore request. Where they differ both are tried, which is safe:
under either reading the signed bytes decode to the same path and the same parameters that the
gateway acts on. That holds because one rule decodes: in a query `+` is a space, in a path it is a
plus, and nothing is decoded twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3gw.errors import InvalidURI
from s3gw.wire.percent import BAD_ESCAPE

UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
PATH_PLAIN = UNRESERVED + b"/"

Pair = tuple[bytes, bytes]


@dataclass(frozen=True)
class Request:
    """What a signature is over, exactly as it came, and the time it is judged at.

    `raw_path` is the path before decoding; `raw_query` follows the `?`. Header names are lower
    case. `now` is Unix time in seconds.
    """

    method: str
    raw_path: bytes
    raw_query: bytes
    headers: list[tuple[bytes, bytes]]
    now: float

    @cached_property
    def header_values(self) -> dict[bytes, bytes]:
        """Trimmed values by name; the values of a repeated header joined with commas."""
        values: dict[bytes, bytes] = {}
        for name, value in self.headers:
            # bytes.split() also folds runs of white space: the specification's Trimall.
            trimmed = b" ".join(value.split())
            values[name] = values[name] + b"," + trimmed if name in values else trimmed
        return values

    @cached_property
    def query_pairs(self) -> list[tuple[Pair, Pair]]:
        """Each parameter as sent and as decoded, in the order sent. Raises InvalidURI."""
        raw_query = self.raw_query
        if not raw_query:
            return []
        if BAD_ESCAPE.search(raw_query):
            raise InvalidURI
        pairs: list[tuple[Pair, Pair]] = []
        for piece in raw_query.split(b"&"):
            name, _, value = piece.partition(b"=")
            pairs.append(((name, value), (_decoded(name), _decoded(value))))
        return pairs

    def with_same_query(self, **changes: Any) -> Request:
        """The request with other parts than the query, which is not read once more."""
        changed = replace(self, **changes)
        changed.__dict__["query_pairs"] = self.query_pairs
        return changed


def canonical_paths(raw_path: bytes) -> list[bytes]:
    """The canonical URIs that `raw_path` may have been signed under, likeliest first.

    >>> canonical_paths(b"/b/a%20b")
    [b'/b/a%20b']
    >>> canonical_paths(b"/b/a+b")
    [b'/b/a%2Bb', b'/b/a+b']
    """
    if not raw_path.translate(None, PATH_PLAIN):
        return [raw_path or b"/"]
    if BAD_ESCAPE.search(raw_path):
        raise InvalidURI
    encoded = quote_from_bytes(unquote_to_bytes(raw_path), safe="/~").encode()
    return [encoded] if encoded == raw_path else [encoded, raw_path]


def canonical_queries(request: Request, omit: bytes | None = None) -> list[bytes]:
    """The canonical query strings possible, likeliest first, without the parameter `omit`."""
    if not request.raw_query:
        return [b""]
    kept = [pair for pair in request.query_pairs if pair[1][0] != omit]
    encoded = _joined([(_encoded(n), _encoded(v)) for (n, v), _ in kept if n or v])
    sent = _joined([pair for pair, _ in kept])
    return [encoded] if encoded == sent else [encoded, sent]


def canonical_headers(values: dict[bytes, bytes], signed: Collection[bytes]) -> bytes:
    """The lines of the signed headers, each ended by a newline. `signed` is in order."""
    return b"".join([b"%b:%b\n" % (name, values.get(name, b"")) for name in signed])


def _joined(pairs: list[Pair]) -> bytes:
    return b"&".join([b"%b=%b" % pair for pair in sorted(pairs)])


def _decoded(text: bytes) -> bytes:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text) if b"%" in text else text


def _encoded(text: bytes) -> bytes:
    """One name or value of a query as sent, percent-encoded once."""
    if not text.translate(None, UNRESERVED):
        return text
    return quote_from_bytes(_decoded(text), safe="~").encode()
