"""Signature Version 2 in the query: what boto3 presigns with unless told otherwise.

botocore chooses it for `us-east-1` with a custom endpoint, so unmodified programs depend on it.
Only the query form is accepted; `Authorization: AWS …` stays refused (s3gw.auth.sigv4).

    string to sign = METHOD \\n Content-MD5 \\n Content-Type \\n Expires \\n
                     canonical x-amz- headers, each `name:value\\n`
                     "/" bucket of a virtual host, path as sent, sub-resources sorted
    Signature      = Base64(HMAC-SHA1(secret, string to sign))

Source: Amazon S3 API Reference, "Signing and authenticating REST requests (AWS signature version
2)", with its "Query string request authentication alternative".

It binds less than Version 4: of the query only sub-resources and `response-*`. So that nobody who
holds a URL can turn it into another operation, everything that the route table discriminates by
counts as a sub-resource; botocore's list is a part of it. Headers beginning with `x-amz-`, whether
sent as headers or in the query, are all signed, as are Content-MD5 and Content-Type.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from s3gw.auth.canonical import Pair, Request, canonical_paths
from s3gw.errors import AccessDenied, SignatureDoesNotMatch
from s3gw.limits import PRESIGNED_SECONDS_MAX
from s3gw.wire.dates import iso8601_seconds

ACCESS_KEY = b"AWSAccessKeyId"
SIGNATURE = b"Signature"
EXPIRES = b"Expires"
# Either of these makes a query one of Version 2; with Expires it is complete.
PARAMETERS = frozenset({ACCESS_KEY, SIGNATURE})
SIGNED_HEADERS = frozenset({b"content-md5", b"content-type"})
EXPIRES_DIGITS_MAX = 19

REQUIRED = (
    "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
)
# The documentation's list and botocore's, beside what the route table adds.
SUBRESOURCES = frozenset(
    name.encode()
    for name in (
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory"),
        *("lifecycle", "location", "logging", "metrics", "notification", "object-lock"),
        *("partNumber", "policy", "replication", "requestPayment", "restore", "select"),
        *("select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads"),
        *("versionId", "versioning", "versions", "website"),
        *("response-cache-control", "response-content-disposition"),
        *("response-content-encoding", "response-content-language"),
        *("response-content-type", "response-expires"),
    )
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a presigned query says of its signer; nothing of it is proven yet."""

    access_key: str
    expires: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_credentials(request: Request) -> Credentials | None:
    """What the query says of its signer, or None when it carries no Version 2 signature.

    Raises AccessDenied for a query that
    is incomplete, ambiguous, expired, or valid for more than seven days.
    """
    found: dict[bytes, bytes] = {}
    repeated = False
    for _, (name, value) in request.query_pairs:
        if name in PARAMETERS or name == EXPIRES:
            repeated = repeated or name in found
            found[name] = value
    if PARAMETERS.isdisjoint(found):
        return None
    if repeated or len(found) != 3:
        raise AccessDenied(REQUIRED)
    _check_expiry(found[EXPIRES], request.now)
    return Credentials(_text(found[ACCESS_KEY]), found[EXPIRES], found[SIGNATURE])


def verify(
    request: Request,
    credentials: Credentials,
    secret_key: str,
    *,
    hosted_bucket: bytes | None,
    subresources: Collection[bytes],
) -> None:
    """Prove the signature with the signer's secret, or raise SignatureDoesNotMatch.

    `request` has the headers that it acts by (`s3gw.auth.authenticate.acting`).
    `hosted_bucket` is the bucket that the Host names, if any; `subresources` are the names that
    make another operation of a request, beside those of Version 2.
    """
    candidates = strings_to_sign(request, credentials.expires, hosted_bucket, subresources)
    if fits(candidates, credentials, secret_key):
        return
    raise SignatureDoesNotMatch(
        AWSAccessKeyId=credentials.access_key,
        StringToSign=_text(candidates[0]),
        SignatureProvided=_text(credentials.signature),
        StringToSignBytes=candidates[0].hex(" "),
    )


def strings_to_sign(
    request: Request, expires: bytes, hosted_bucket: bytes | None, subresources: Collection[bytes]
) -> list[bytes]:
    """What may have been signed, likeliest first. Raises InvalidURI, SignatureDoesNotMatch."""
    headers = request.header_values
    head = b"%b\n%b\n%b\n%b\n%b" % (
        request.method.encode("latin-1", "replace"),
        headers.get(b"content-md5", b""),
        headers.get(b"content-type", b""),
        expires,
        _canonical_headers(request.headers),
    )
    tail = _canonical_query(request, subresources)
    paths = _canonical_resources(request.raw_path, hosted_bucket)
    return [head + path + tail for path in paths]


def fits(candidates: Iterable[bytes], credentials: Credentials, secret_key: str) -> bool:
    """Whether the signature is that of one of the candidates."""
    try:
        sent = base64.b64decode(credentials.signature, validate=True)
    except binascii.Error:
        return False
    key = secret_key.encode()
    return any(hmac.compare_digest(hmac.digest(key, each, "sha1"), sent) for each in candidates)


def _canonical_headers(headers: Iterable[Pair]) -> bytes:
    """The `x-amz-` headers, sorted by name."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name.startswith(b"x-amz-"):
            values.setdefault(name, []).append(value.strip())
    return b"".join([b"%b:%b\n" % (name, b",".join(values[name])) for name in sorted(values)])


def _canonical_resources(raw_path: bytes, hosted_bucket: bytes | None) -> list[bytes]:
    """The paths that may have been signed. A bucket alone is signed with a slash at its end by
    most clients, whatever they send; both name the same bucket."""
    paths = canonical_paths(raw_path)
    if hosted_bucket is not None:
        return [b"/%b%b" % (hosted_bucket, path) for path in paths]
    if b"/" not in raw_path[1:] and len(raw_path) > 1:
        return [*[path + b"/" for path in paths], *paths]
    return paths


def _canonical_query(request: Request, subresources: Collection[bytes]) -> bytes:
    """The signed parameters, decoded, sorted by name; those without `=` as they are."""
    signed: list[Pair] = []
    pieces = request.raw_query.split(b"&") if request.raw_query else []
    for (_, (name, value)), piece in zip(request.query_pairs, pieces, strict=True):
        if name in SUBRESOURCES or name in subresources:
            if b"&" in value and not name.startswith(b"response-"):
                # Decoded, it would read like two parameters.
                raise SignatureDoesNotMatch
            signed.append((name, b"=" + value if b"=" in piece else b""))
    # By name alone: of a repeated parameter the first acts, so their order is bound too.
    signed.sort(key=lambda pair: pair[0])
    return b"?" + b"&".join([b"%b%b" % pair for pair in signed]) if signed else b""


def _check_expiry(expires: bytes, now: float) -> None:
    if not expires.isdigit() or len(expires) > EXPIRES_DIGITS_MAX:
        raise AccessDenied(f"Invalid date (should be seconds since epoch): {_text(expires)}")
    when = int(expires)
    if when < now:
        raise AccessDenied(
            "Request has expired", Expires=iso8601_seconds(when), ServerTime=iso8601_seconds(now)
        )
    if when - now > PRESIGNED_SECONDS_MAX:
        raise AccessDenied(
            f"Expires must be at most {PRESIGNED_SECONDS_MAX} seconds (a week) ahead",
            ServerTime=iso8601_seconds(now),
        )


def _text(value: bytes) -> str:
    """Bytes of a client for an error message or a name; never fails."""
    return value.decode("utf-8", "backslashreplace")
