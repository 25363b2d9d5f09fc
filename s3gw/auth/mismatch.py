"""Why a signature does not match, for the author of a client: which part was another one when it
was signed.

What proxies and clients are known to do to a request is undone, one thing at a time, and the
signature is tried again. A try that fits proves that whoever signed has the secret key, and names
the part that differs; what is said is made of the request alone, without what in it is secret. The
number of tries is bounded. Nothing can be learnt this way that sending the other request would not
tell: it would be accepted.

Who may ask is decided by the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3gw.auth import sigv4
from s3gw.auth.canonical import Request, canonical_headers, canonical_paths, canonical_queries
from s3gw.auth.sigv4 import Credentials

TRIED_MAX = 96
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest().encode()
METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE")
# Headers that proxies and HTTP libraries set, with what they were signed as where it is known.
USUAL_VALUES: Mapping[bytes, tuple[bytes, ...]] = {
    b"accept": (b"*/*",),
    b"accept-encoding": (b"identity", b"gzip", b"gzip, deflate", b"gzip, deflate, br"),
    b"connection": (b"keep-alive", b"close", b"Keep-Alive"),
    b"content-length": (b"0",),
    b"content-type": (
        b"application/octet-stream",
        b"binary/octet-stream",
        b"application/xml",
        b"text/plain",
        b"application/x-www-form-urlencoded; charset=utf-8",
    ),
    b"expect": (b"100-continue",),
}
# Their values are not said, and not guessed at.
SECRET_HEADERS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"x-amz-security-token",
        b"x-amz-server-side-encryption-customer-key",
        b"x-amz-copy-source-server-side-encryption-customer-key",
    }
)
SECRET_PARAMETERS = (b"X-Amz-Security-Token=",)
CHANGED = "The signature is right for {signed}; what came is {came}. {hint}"
UNKNOWN = (
    "None of the {tried} usual changes on the way explains the signature. Either the secret key is "
    "not the one of this access key, or another part was changed: compare CanonicalRequest and "
    "StringToSign with what the client signed."
)
ABSENT = " Headers that were signed and are not in the request: {names}."


@dataclass(frozen=True, slots=True)
class Parts:
    """What a signature is over, beside time and scope."""

    method: bytes
    path: bytes
    query: bytes
    values: Mapping[bytes, bytes]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A part as it may have been signed; `name` is how it is called, `hint` who changes it."""

    name: str
    signed: bytes
    came: bytes
    parts: Parts
    hint: str


def explain(request: Request, credentials: Credentials, secret_key: str) -> str:
    """A sentence or two. `credentials` are those that did not verify. Raises InvalidURI."""
    key = sigv4.signing_key(secret_key, credentials.scope)
    tried = 0
    absent = [n for n in credentials.signed_headers if n not in request.header_values]
    more = ABSENT.format(names=", ".join(map(_text, absent))) if absent else ""
    for change in islice(_changes(request, credentials), TRIED_MAX):
        tried += 1
        if _fits(change.parts, credentials, key):
            signed = f"{change.name} {_text(change.signed)!r}"
            return CHANGED.format(signed=signed, came=repr(_text(change.came)), hint=change.hint)
    return UNKNOWN.format(tried=tried) + more


def _fits(parts: Parts, credentials: Credentials, key: bytes) -> bool:
    names = credentials.signed_headers
    canonical = b"\n".join(
        (
            parts.method,
            parts.path,
            parts.query,
            canonical_headers(dict(parts.values), names),
            b";".join(names),
            parts.payload,
        )
    )
    to_sign = b"\n".join(
        (
            sigv4.ALGORITHM,
            credentials.timestamp,
            credentials.scope,
            hashlib.sha256(canonical).hexdigest().encode(),
        )
    )
    expected = hmac.digest(key, to_sign, "sha256").hex().encode()
    return hmac.compare_digest(expected, credentials.signature)


def _changes(request: Request, credentials: Credentials) -> Iterator[Change]:
    """Likely ones first."""
    omitted = b"X-Amz-Signature" if credentials.presigned else None
    parts = Parts(
        request.method.encode("latin-1", "replace"),
        canonical_paths(request.raw_path)[0],
        canonical_queries(request, omitted)[0],
        request.header_values,
        credentials.payload_line,
    )
    for host in _hosts(request):
        hint = "A proxy that rewrites Host must pass on the one that the client sent."
        yield _with_header(parts, b"host", host, hint)
    for path, hint in _paths(request.raw_path, parts.path, parts.values.get(b"host", b"")):
        if path != parts.path:
            yield Change("the path", path, parts.path, replace(parts, path=path), hint)
    for query, hint in _queries(request, omitted):
        if query != parts.query:
            signed, came = _difference(query, parts.query)
            yield Change("the query", signed, came, replace(parts, query=query), hint)
    for payload in (EMPTY_SHA256, *sigv4.KEYWORDS, parts.payload.upper(), parts.payload.lower()):
        if payload != parts.payload:
            hint = "The payload hash is the last line of what is signed."
            both = {**parts.values, b"x-amz-content-sha256": payload}
            changed = replace(parts, payload=payload, values=both)
            yield Change("the payload hash", payload, parts.payload, changed, hint)
    for method in METHODS:
        if method != parts.method:
            hint = "A URL is presigned for one method."
            changed = replace(parts, method=method)
            yield Change("the method", method, parts.method, changed, hint)
    yield from _headers(parts, credentials.signed_headers)


def _with_header(parts: Parts, name: bytes, value: bytes, hint: str) -> Change:
    changed = replace(parts, values={**parts.values, name: value})
    came = parts.values.get(name, b"")
    return Change(f"the header {_text(name)}:", value, came, changed, hint)


def _hosts(request: Request) -> Iterator[bytes]:
    """What the client may have sent as Host."""
    values = request.header_values
    host = values.get(b"host", b"")
    found = [
        piece.strip()
        for name in (b"x-forwarded-host", b"x-original-host")
        for piece in values.get(name, b"").split(b",")[:2]
    ]
    for piece in values.get(b"forwarded", b"").replace(b",", b";").split(b";")[:8]:
        name, _, value = piece.strip().partition(b"=")
        if name.lower() == b"host":
            found.append(value.strip(b'"'))
    bare, _, port = host.partition(b":")
    found += [bare, bare + b":80", bare + b":443", host.lower()]
    if forwarded := values.get(b"x-forwarded-port"):
        found.append(bare + b":" + forwarded)
    # Signed for the bucket as a host name and sent as a path, or the other way round.
    bucket = request.raw_path.lstrip(b"/").partition(b"/")[0]
    found += [bare.partition(b".")[2] + (b":" + port if port else b""), bucket + b"." + host]
    yield from dict.fromkeys(each for each in found if each and each != host)


def _paths(raw: bytes, canonical: bytes, host: bytes) -> Iterator[tuple[bytes, str]]:
    """The canonical URIs of what other clients sign, and of what proxies make of paths."""
    decoded = unquote_to_bytes(raw)
    yield (
        quote_from_bytes(canonical, safe="/~").encode(),
        ("S3 wants the path percent-encoded once; it was encoded twice, or decoded on the way."),
    )
    twice = quote_from_bytes(unquote_to_bytes(decoded), safe="/~").encode()
    yield twice, "The path was percent-encoded once more on the way."
    yield decoded, "S3 wants the path percent-encoded; it was signed as plain text."
    plus = quote_from_bytes(decoded.replace(b"+", b" "), safe="/~").encode()
    yield plus, "A plus in a path is a plus: a space must be sent as %20."
    yield canonical.replace(b"%20", b"%2B"), "A plus in a path was made a space on the way."
    yield canonical.replace(b"%20", b"+"), "A space in a path is signed as %20."
    yield (
        quote_from_bytes(decoded, safe="~").encode(),
        "Slashes of the path are signed as they are.",
    )
    other = canonical.removesuffix(b"/") if canonical.endswith(b"/") else canonical + b"/"
    yield other or b"/", "A slash at the end was added or removed."
    normal = posixpath.normpath(canonical.decode("latin-1")).encode("latin-1")
    yield (
        normal,
        ("The path was signed with its dots and double slashes removed; S3 signs it as it is."),
    )
    bucket, rest = canonical[1:].partition(b"/")[::2]
    yield b"/" + rest, f"The bucket {_text(bucket)} was not in the path when it was signed."
    label = host.partition(b".")[0]
    yield b"/" + label + canonical, "The bucket was in the path when it was signed."


def _queries(request: Request, omitted: bytes | None) -> Iterator[tuple[bytes, str]]:
    """The canonical queries of what other clients sign, and of what proxies make of queries."""
    kept = [pair for pair in request.query_pairs if pair[1][0] != omitted]
    encoded = [(_quoted(name), _quoted(value)) for _, (name, value) in kept]
    yield (
        _joined(sorted((n.replace(b"%20", b"%2B"), v.replace(b"%20", b"%2B")) for n, v in encoded)),
        ("A plus in a query is a space: a plus must be sent as %2B."),
    )
    yield (
        _joined(sorted((n.replace(b"%20", b"+"), v.replace(b"%20", b"+")) for n, v in encoded)),
        ("A space in a query is signed as %20, not as a plus."),
    )
    yield _joined(encoded), "The parameters are signed in the order of their names."
    bare = [n + b"=" + v if v else n for n, v in sorted(encoded)]
    yield b"&".join(bare), "A parameter without a value is signed with an equals sign behind it."
    again = sorted((_quoted(n), _quoted(v)) for n, v in encoded)
    yield _joined(again), "The query is signed percent-encoded once, not twice."
    once = sorted((unquote_to_bytes(n), unquote_to_bytes(v)) for n, v in encoded)
    yield _joined(once), "The query is signed percent-encoded."
    for index, (name, _) in enumerate(encoded[:8]):
        rest = sorted(encoded[:index] + encoded[index + 1 :])
        yield _joined(rest), f"The parameter {_text(name)} was added after signing."


def _headers(parts: Parts, names: tuple[bytes, ...]) -> Iterator[Change]:
    """Signed headers that something on the way sets, extends or removes."""
    for name in names:
        if name == b"host" or name in SECRET_HEADERS:
            continue
        value = parts.values.get(name, b"")
        guesses = [b"", *USUAL_VALUES.get(name, ())]
        guesses += [value.rpartition(b",")[0].rstrip(), value.partition(b";")[0].rstrip()]
        guesses.append(value.replace(b",", b", "))
        if name == b"content-length":
            guesses.append(parts.values.get(b"x-amz-decoded-content-length", b""))
        hint = "It was changed on the way, or set by the HTTP library after signing."
        for guess in dict.fromkeys(guesses):
            if guess != value:
                yield _with_header(parts, name, guess, hint)


def _difference(signed: bytes, came: bytes) -> tuple[bytes, bytes]:
    """What each of two queries has and the other has not, or both whole when only the order
    differs; without the values of secrets."""
    one, other = signed.split(b"&"), came.split(b"&")
    here, there = set(one), set(other)
    if here != there:
        one, other = (
            [piece for piece in one if piece not in there],
            [piece for piece in other if piece not in here],
        )
    return b"&".join(map(_without_secret, one)), b"&".join(map(_without_secret, other))


def _without_secret(piece: bytes) -> bytes:
    name = piece.partition(b"=")[0] + b"="
    return name + "…".encode() if name in SECRET_PARAMETERS else piece


def _quoted(text: bytes) -> bytes:
    return quote_from_bytes(text, safe="~").encode()


def _joined(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join([b"%b=%b" % pair for pair in pairs])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
