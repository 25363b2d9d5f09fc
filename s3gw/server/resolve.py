"""From a request line to the row of the route table, the bucket and the key.

Everything is read from the raw bytes that the signature is over, and decoded once: in a path `+` is
a plus, in a query a space. `%2F` in a key is a slash, `.` and `..` are plain names, `//` is kept.
A broken escape, a NUL, or bytes that are not UTF-8 are 400 InvalidURI.

Which row: the rows of a (method, scope) are looked at only when the request has one of the query
keys or headers that they discriminate by, so the plain GET, PUT, HEAD and DELETE are one dictionary
lookup. A key that names a sub-resource, of S3 or of a server that clients mistake this one for, and
that the row does not explain is refused: `PUT /b/k?uploadId=x` without a part number must not
replace the object. Any other unknown parameter is ignored, as S3 does (`x-id`, for one).

    name in SUBRESOURCES, or a discriminator of this method and scope, unexplained by the best row
        beside a sub-resource that is explained        400 InvalidArgument (conflicting parameters)
        uploads or versions, read of a key             400 InvalidRequest
        an upload that this method does nothing with   405 MethodNotAllowed
        an S3 sub-resource without this method         405 MethodNotAllowed
        its companion parameter is missing or wrong    400 InvalidArgument
        another server's sub-resource                  501 NotImplemented

A copy source beside a request that copies nothing is refused as well: 400 InvalidArgument.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from s3gw import limits
from s3gw.buckets.names import is_well_formed
from s3gw.errors import (
    InvalidArgument,
    InvalidBucketName,
    InvalidRequest,
    InvalidURI,
    KeyTooLongError,
    MethodNotAllowed,
    NotImplementedS3,
    S3Error,
)
from s3gw.server.routes import (
    BUCKET,
    DELETE,
    GET,
    HEAD,
    OBJECT,
    OPTIONS,
    POST,
    ROWS,
    SERVICE,
    Row,
    Scope,
)

# Query keys that only qualify another one; alone they mean nothing and are ignored.
QUALIFIERS = frozenset({"id", "select-type", "max-directory-buckets"})

# Sub-resources of other S3-compatible servers (MinIO, Ceph, Alibaba, Google): to ignore `append`
# would be to replace an object.
FOREIGN_SUBRESOURCES = frozenset(
    {
        "append",
        "appendobj",
        "bucketInfo",
        "compose",
        "events",
        "mdsearch",
        "quota",
        "replication-check",
        "replication-metrics",
        "replication-reset",
        "replication-reset-status",
        "sync",
        "symlink",
        "usage",
        "websiteConfig",
    }
)

# Where a parameter of one method discriminates for another (GET ?partNumber=1 reads a part), the
# name counts for the methods that have it in a row, and is no sub-resource of the others.
PARAMETERS = frozenset({"list-type", "partNumber"})

S3_SUBRESOURCES = (
    frozenset(key for row in ROWS for key, _ in row.required) - QUALIFIERS - PARAMETERS
)
SUBRESOURCES = S3_SUBRESOURCES | FOREIGN_SUBRESOURCES

# Listings of a bucket that a key does not have: what Amazon S3 says of them.
_ONLY_OF_BUCKETS = {
    "uploads": "Key is not expected for the GET method ?uploads subresource",
    "versions": "There is no such thing as the ?versions sub-resource for a key",
}
_COPY_SOURCE = b"x-amz-copy-source"
_COPIES_NOTHING = frozenset({GET, HEAD, DELETE})

_OBJECT_LAMBDA_PATH = b"/WriteGetObjectResponse"
_BYTE_OF_HEX = {
    high + low: bytes((int(high + low, 16),))
    for high in (b"%c" % digit for digit in b"0123456789abcdefABCDEF")
    for low in (b"%c" % digit for digit in b"0123456789abcdefABCDEF")
}


class Resolved(NamedTuple):
    """What a request addresses. `query` has each parameter's first value; without `=`, ""."""

    row: Row
    bucket: str
    key: str
    query: dict[str, str]

    @property
    def action(self) -> str:
        """The IAM action: the row's, or its variant for a version when one is named."""
        if self.row.version_action is not None and "versionId" in self.query:
            return self.row.version_action
        return self.row.action


class _Choice(NamedTuple):
    """A row as it is matched."""

    row: Row
    required: tuple[tuple[str, str | None], ...]
    headers: tuple[bytes, ...]

    def matches(self, query: dict[str, str], headers: Container[bytes]) -> bool:
        for key, value in self.required:
            found = query.get(key)
            if found is None or (value is not None and found != value):
                return False
        return all(name in headers for name in self.headers)


class _Group(NamedTuple):
    """The rows of one method and scope, those with the most discriminators first."""

    plain: Row | None
    choices: tuple[_Choice, ...]
    keys: frozenset[str]
    headers: tuple[bytes, ...]


def _group(rows: Iterable[Row]) -> _Group:
    choices = sorted(
        (_Choice(row, row.required, tuple(h.encode() for h in row.headers)) for row in rows),
        key=lambda choice: (len(choice.required), len(choice.headers)),
        reverse=True,
    )
    return _Group(
        plain=next((c.row for c in choices if not c.required and not c.headers), None),
        choices=tuple(choices),
        keys=frozenset(key for c in choices for key, _ in c.required) | SUBRESOURCES,
        headers=tuple({name: None for c in choices for name in c.headers}),
    )


def _groups() -> dict[tuple[str, Scope], _Group]:
    rows_of: dict[tuple[str, Scope], list[Row]] = {}
    for row in ROWS:
        rows_of.setdefault((row.method, row.scope), []).append(row)
    return {place: _group(rows) for place, rows in rows_of.items()}


_GROUPS = _groups()
_ALLOWED = {scope: ", ".join(m for m, s in _GROUPS if s is scope) for scope in Scope}


class Domains:
    """The domains under which `bucket.domain` addresses a bucket; any other host is path style."""

    def __init__(self, domains: Iterable[str] = ()) -> None:
        self._exact = frozenset(domain.lower().strip(".").encode() for domain in domains)
        # The longest first: with `s3.test` and `eu.s3.test`, `b.eu.s3.test` is bucket `b`.
        self._suffixes = sorted((b"." + domain for domain in self._exact), key=len, reverse=True)

    def bucket(self, host: bytes) -> bytes | None:
        """The bucket that a Host header's value names, or None for path style."""
        if not self._suffixes:
            return None
        name = host.partition(b":")[0].rstrip(b".").lower()
        if name in self._exact:
            return None
        for suffix in self._suffixes:
            if name.endswith(suffix):
                return name[: -len(suffix)]
        return None


PATH_STYLE = Domains()


def resolve(
    method: str,
    raw_path: bytes,
    raw_query: bytes,
    *,
    host: bytes = b"",
    headers: Container[bytes] = (),
    domains: Domains = PATH_STYLE,
) -> Resolved:
    """The row, bucket and key that a request addresses; "" where there is no bucket or key.

    `raw_path` is the path as sent, `raw_query` what follows its `?`, `headers` the lower-case names
    of the request's headers. Raises InvalidURI, InvalidBucketName, KeyTooLongError,
    MethodNotAllowed, InvalidArgument or NotImplementedS3.
    """
    if raw_path[:1] != b"/":
        raise InvalidURI
    hosted = domains.bucket(host)
    if hosted is not None:
        raw_bucket, raw_key = hosted, raw_path[1:]
    else:
        raw_bucket, _, raw_key = raw_path[1:].partition(b"/")
    query = parse_query(raw_query) if raw_query else {}
    if method == POST and raw_path == _OBJECT_LAMBDA_PATH and b"x-amz-request-route" in headers:
        return Resolved(_row(method, SERVICE, query, headers), "", "", query)
    if not raw_bucket and not raw_key:
        return Resolved(_row(method, SERVICE, query, headers), "", "", query)
    name = percent_decode(raw_bucket) if b"%" in raw_bucket else raw_bucket
    if not is_well_formed(name):
        raise InvalidBucketName(BucketName=name.decode("utf-8", "replace"))
    bucket = name.decode("ascii")
    if not raw_key:
        return Resolved(_row(method, BUCKET, query, headers), bucket, "", query)
    key = decode_key(raw_key)
    return Resolved(_row(method, OBJECT, query, headers), bucket, key, query)


def percent_decode(raw: bytes) -> bytes:
    """`raw` with each %XX replaced by its byte, once; a `%` without two digits is InvalidURI."""
    head, *rest = raw.split(b"%")
    pieces = [head]
    try:
        for piece in rest:
            pieces.append(_BYTE_OF_HEX[piece[:2]])
            pieces.append(piece[2:])
    except KeyError:
        raise InvalidURI from None
    return b"".join(pieces)


def parse_query(raw_query: bytes) -> dict[str, str]:
    """The decoded parameters; of a repeated one the first."""
    query: dict[str, str] = {}
    for term in raw_query.split(b"&"):
        if term:
            name, _, value = term.partition(b"=")
            query.setdefault(_query_text(name), _query_text(value))
    return query


def decode_key(raw: bytes) -> str:
    """The key that a path names behind its slash. Raises InvalidURI, KeyTooLongError."""
    encoded = percent_decode(raw) if b"%" in raw else raw
    if len(encoded) > limits.KEY_BYTES_MAX:
        raise KeyTooLongError(Size=str(len(encoded)), MaxSizeAllowed=str(limits.KEY_BYTES_MAX))
    return _decode(encoded)


def _query_text(raw: bytes) -> str:
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    return _decode(percent_decode(raw) if b"%" in raw else raw)


def _decode(encoded: bytes) -> str:
    if b"\0" in encoded:
        raise InvalidURI
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidURI from None


def _row(method: str, scope: Scope, query: dict[str, str], headers: Container[bytes]) -> Row:
    group = _GROUPS.get((method, scope))
    if group is None:
        raise _method_refused(method, scope)
    if _COPY_SOURCE in headers and (
        method in _COPIES_NOTHING or (method == POST and "uploadId" in query)
    ):
        raise InvalidArgument(
            "You can only specify a copy source header for copy requests.",
            ArgumentName=_COPY_SOURCE.decode(),
        )
    if group.plain is not None and (not query or method == OPTIONS or group.keys.isdisjoint(query)):
        for name in group.headers:
            if name in headers:
                break
        else:
            return group.plain
    choice = next((c for c in group.choices if c.matches(query, headers)), None)
    explained = [key for key, _ in choice.required] if choice else []
    for key in query:
        if key in group.keys and key not in QUALIFIERS and key not in explained:
            raise _unexplained(key, query[key], explained, group, method, scope)
    if choice is None:
        raise _method_refused(method, scope)
    return choice.row


def _unexplained(
    key: str, value: str, explained: list[str], group: _Group, method: str, scope: Scope
) -> S3Error:
    """Why a sub-resource that the chosen row (if any) is not about cannot be served."""
    if explained:
        conflict = ", ".join([*explained, key])
        return InvalidArgument(
            f"Conflicting query string parameters: {conflict}",
            ArgumentName=key,
            ArgumentValue=value,
        )
    if key in FOREIGN_SUBRESOURCES:
        return NotImplementedS3()
    if scope is OBJECT and method == GET and key in _ONLY_OF_BUCKETS:
        return InvalidRequest(_ONLY_OF_BUCKETS[key])
    if scope is OBJECT and key == "uploadId":
        return MethodNotAllowed(
            headers={"Allow": "DELETE, POST, GET"}, Method=method, ResourceType="UPLOAD"
        )
    if any(name == key for choice in group.choices for name, _ in choice.required):
        if key == "partNumber":
            message = "This operation does not accept partNumber without uploadId"
            return InvalidArgument(message, ArgumentName=key, ArgumentValue=value)
        return InvalidArgument(
            "A query string parameter that belongs to this one is missing, or its value is invalid",
            ArgumentName=key,
            ArgumentValue=value,
        )
    return _method_refused(method, scope)


def _method_refused(method: str, scope: Scope) -> MethodNotAllowed:
    return MethodNotAllowed(
        headers={"Allow": _ALLOWED[scope]}, Method=method, ResourceType=scope.name
    )
