"""Who signed a request: the one place that chooses between the mechanisms.

Authorization header, or X-Amz-Algorithm in the query     Signature Version 4 (sigv4)
AWSAccessKeyId and Signature in the query                  Signature Version 2 (sigv2)
neither                                                    anonymous
two of them                                                refused
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from s3gw.auth import sigv2, sigv4
from s3gw.auth.canonical import Request
from s3gw.errors import InvalidArgument
from s3gw.wire.checksums import BY_HEADER

# Of a presigned query these say how it is signed; everything else named x-amz- acts as a header.
SIGNATURE_PARAMETERS = frozenset(
    {
        b"x-amz-algorithm",
        b"x-amz-content-sha256",
        b"x-amz-credential",
        b"x-amz-date",
        b"x-amz-expires",
        b"x-amz-signature",
        b"x-amz-signedheaders",
    }
)
# Sums of content in a query of Version 4 are signed and have no effect, as on S3: whoever makes a
# URL for an upload does not know the content, and the JavaScript SDK puts the sum of nothing there.
WITHOUT_EFFECT = SIGNATURE_PARAMETERS | frozenset(
    name.encode() for name in (*BY_HEADER, "x-amz-sdk-checksum-algorithm")
)
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
PRESIGNED = sigv2.PARAMETERS | {b"X-Amz-Algorithm"}


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, and what the signature says of the body. `seed` starts the chain of chunk
    signatures; Version 2 has none."""

    access_key: str
    session_token: str | None = field(repr=False)
    payload: sigv4.Payload
    seed: sigv4.SignedRequest | None = None


def acting(request: Request) -> Request:
    """The request with the headers that it acts by: those sent and, of a presigned query, the
    `x-amz-…` parameters that were not sent as headers too, but for sums of the content.

    Signers that make URLs for browsers (the JavaScript SDK, botocore with Version 2) move headers
    into the query, as S3 allows; Version 2 moves Content-MD5 and Content-Type too. Such a parameter
    is always signed: Version 4 signs the whole query, Version 2 every header named here.
    Raises InvalidURI, and InvalidArgument for what no header could carry.
    """
    if not request.raw_query:
        return request
    pairs = [pair for _, pair in request.query_pairs]
    names = {name for name, _ in pairs}
    if PRESIGNED.isdisjoint(names):
        return request
    version_4 = sigv2.PARAMETERS.isdisjoint(names)
    movable = () if version_4 else sigv2.SIGNED_HEADERS
    immovable = WITHOUT_EFFECT if version_4 else SIGNATURE_PARAMETERS
    moved: dict[bytes, bytes] = {}
    for name, value in pairs:
        header = name.lower()
        amz = header.startswith(b"x-amz-") and header not in immovable
        if (amz or header in movable) and header not in request.header_values:
            if CONTROLS.search(value):
                raise InvalidArgument(
                    "A header in the query must not contain control characters.",
                    ArgumentName=header.decode("latin-1"),
                )
            moved.setdefault(header, value)
    return replace(request, headers=[*request.headers, *moved.items()]) if moved else request


def authenticate(
    request: Request,
    secret_of: Callable[[str, str | None], str],
    *,
    regions: Collection[str],
    hosted_bucket: bytes | None,
    subresources: Collection[bytes],
) -> Signer | None:
    """Who signed the request, as sent, proven; None when nobody did.

    `secret_of` gives the secret of an access key, used with a session token or None, or raises
    InvalidAccessKeyId, InvalidToken or ExpiredToken; `hosted_bucket` and `subresources` are those
    of `sigv2.verify`. Raises the 400 and 403 errors of signatures.
    """
    old = sigv2.parse_credentials(request) if request.raw_query else None
    if old is None:
        credentials = sigv4.parse_credentials(request, regions)
        if credentials is None:
            return None
        secret = secret_of(credentials.access_key, credentials.session_token)
        signed = sigv4.verify(request, credentials, secret)
        return Signer(signed.access_key, signed.session_token, signed.payload, signed)
    moved = acting(request)
    if b"authorization" in moved.header_values or _is_version_4(request):
        raise InvalidArgument(sigv4.ONE_MECHANISM, ArgumentName="Authorization")
    payload = sigv4.anonymous_payload(moved)
    raw_token = moved.header_values.get(b"x-amz-security-token")
    token = None if raw_token is None else raw_token.decode("latin-1")
    secret = secret_of(old.access_key, token)
    sigv2.verify(moved, old, secret, hosted_bucket=hosted_bucket, subresources=subresources)
    return Signer(old.access_key, token, payload)


def _is_version_4(request: Request) -> bool:
    return any(name == b"X-Amz-Algorithm" for _, (name, _) in request.query_pairs)
