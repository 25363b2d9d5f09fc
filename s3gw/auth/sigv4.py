"""Signature Version 4 (AWS4-HMAC-SHA256), in the Authorization header and in the query.

Two steps, because the key is looked up between them:

    credentials = parse_credentials(request, regions)     # None: the request is anonymous
    secret = ... the secret of credentials.access_key, or InvalidAccessKeyId ...
    signed = verify(request, credentials, secret)         # raises SignatureDoesNotMatch

Every part that changes what a request does is bound by the signature: method, path, query, Host,
Content-MD5 and all `x-amz-*` headers. An unsigned one is refused before the key is looked up, in
both forms: an unsigned `x-amz-copy-source` beside a presigned PUT must not copy anything.
`x-amz-content-sha256` alone need not be listed, as on S3: it is the last line of what is signed.

Order of the checks and their messages are those of Amazon S3 (API Reference, "Authenticating
Requests"; "Error responses"), where a later one cannot be seen before an earlier one has passed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache

from s3gw.auth.canonical import (
    Request,
    canonical_headers,
    canonical_paths,
    canonical_queries,
)
from s3gw.errors import (
    AccessDenied,
    AuthorizationHeaderMalformed,
    AuthorizationQueryParametersError,
    InvalidArgument,
    InvalidRequest,
    NotImplementedS3,
    RequestTimeTooSkewed,
    S3Error,
    SignatureDoesNotMatch,
)
from s3gw.limits import CLOCK_SKEW_SECONDS_MAX, PRESIGNED_SECONDS_MAX
from s3gw.wire.dates import iso8601_seconds, parse_http_date

ALGORITHM = b"AWS4-HMAC-SHA256"
TERMINATOR = b"aws4_request"
S3_SERVICE = b"s3"
SIGNING_KEYS_CACHED_MAX = 1024

TOKEN_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
QUERY_PARAMETERS = (
    b"X-Amz-Algorithm",
    b"X-Amz-Credential",
    b"X-Amz-Signature",
    b"X-Amz-Date",
    b"X-Amz-SignedHeaders",
    b"X-Amz-Expires",
)

VERSION_2 = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
ONE_MECHANISM = (
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
    "Signature query string parameter or the Authorization header should be specified"
)
NOT_SIGNED = "There were headers present in the request which were not signed"
HEADER_MALFORMED = "The authorization header is malformed; "
THREE_COMPONENTS = (
    "the authorization header requires three components: Credential, SignedHeaders, and Signature."
)
CREDENTIAL_MALFORMED = "Error parsing the X-Amz-Credential parameter; "
CREDENTIAL_FORM = (
    'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
)
SIX_PARAMETERS = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
    "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)
BAD_PAYLOAD_HASH = (
    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or "
    "a valid sha256 value."
)


class PayloadMode(Enum):
    """How the body is framed and what the signature says about it."""

    HASHED = "hashed"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def chunked(self) -> bool:
        """The body is in aws-chunked framing."""
        return self not in (PayloadMode.HASHED, PayloadMode.UNSIGNED)

    @property
    def chunks_signed(self) -> bool:
        """Each chunk carries a signature."""
        return self in (PayloadMode.STREAMING, PayloadMode.STREAMING_TRAILER)

    @property
    def trailing(self) -> bool:
        """Trailers follow the last chunk."""
        return self in (PayloadMode.STREAMING_TRAILER, PayloadMode.STREAMING_UNSIGNED_TRAILER)


@dataclass(frozen=True, slots=True)
class Payload:
    """`x-amz-content-sha256` understood. `sha256` (lower-case hex) is set for HASHED alone."""

    mode: PayloadMode
    sha256: str | None = None


UNSIGNED = Payload(PayloadMode.UNSIGNED)
KEYWORDS = {
    mode.value.encode(): Payload(mode) for mode in PayloadMode if mode is not PayloadMode.HASHED
}
ASYMMETRIC = (
    b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
    b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says about its signature; nothing of it is proven yet."""

    access_key: str
    region: str
    presigned: bool
    session_token: str | None = field(repr=False)
    payload: Payload
    payload_line: bytes = field(repr=False)
    timestamp: bytes = field(repr=False)
    scope: bytes = field(repr=False)
    signed_headers: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request whose signature was right.

    `signature` is the seed of the chunk signatures, made with `signing_key` over `timestamp` and
    `scope` (see s3gw.auth.chunks).
    """

    access_key: str
    region: str
    presigned: bool
    session_token: str | None = field(repr=False)
    payload: Payload
    timestamp: bytes = field(repr=False)
    scope: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    signing_key: bytes = field(repr=False)


def parse_credentials(
    request: Request,
    regions: Collection[str],
    accepted_hosts: Collection[str] = (),
    service: bytes = S3_SERVICE,
) -> Credentials | None:
    """What the request says of its signer, or None when it is anonymous.

    `regions` are those this store answers for. `accepted_hosts`, when not empty, are the public
    names (with port, if any) that a signed Host must equal or be a subdomain of. `service` is what
    the scope must name: it keeps signatures of one interface from being used on another.

    Raises the 400 and 403 errors of everything that can be judged without the secret key.
    """
    headers = request.header_values
    authorization = headers.get(b"authorization")
    query = _authentication_query(request)
    if query is None:
        if authorization is None:
            return None
        credentials = _from_header(request, authorization, regions, service)
    elif authorization is not None:
        raise InvalidArgument(ONE_MECHANISM, ArgumentName="Authorization")
    else:
        credentials = _from_query(request, query, regions, service)
    _require_signed(headers, credentials.signed_headers)
    if accepted_hosts:
        _require_host(headers[b"host"], accepted_hosts)
    return credentials


def verify(request: Request, credentials: Credentials, secret_key: str) -> SignedRequest:
    """Prove the signature with the signer's secret, or raise SignatureDoesNotMatch."""
    key = signing_key(secret_key, credentials.scope)
    head = b"%b\n%b\n%b\n" % (ALGORITHM, credentials.timestamp, credentials.scope)
    names = credentials.signed_headers
    tail = b"%b\n%b\n%b" % (
        canonical_headers(request.header_values, names),
        b";".join(names),
        credentials.payload_line,
    )
    method = request.method.encode("latin-1", "replace")
    omitted = b"X-Amz-Signature" if credentials.presigned else None
    queries = canonical_queries(request, omitted)
    for path in canonical_paths(request.raw_path):
        for query in queries:
            canonical = b"%b\n%b\n%b\n%b" % (method, path, query, tail)
            to_sign = head + hashlib.sha256(canonical).hexdigest().encode()
            expected = hmac.digest(key, to_sign, "sha256").hex().encode()
            if hmac.compare_digest(expected, credentials.signature):
                return SignedRequest(
                    access_key=credentials.access_key,
                    region=credentials.region,
                    presigned=credentials.presigned,
                    session_token=credentials.session_token,
                    payload=credentials.payload,
                    timestamp=credentials.timestamp,
                    scope=credentials.scope,
                    signature=expected,
                    signing_key=key,
                )
    raise _mismatch(request, credentials, canonical_queries(request, omitted)[0], head, tail)


def anonymous_payload(request: Request) -> Payload:
    """The body framing of a request without credentials; AccessDenied if it claims signed chunks.

    An anonymous body may be plain, hashed, or unsigned chunks with trailers.
    """
    line = request.header_values.get(b"x-amz-content-sha256")
    payload = UNSIGNED if line is None else parse_payload(line)
    if payload.mode.chunks_signed:
        raise AccessDenied
    return payload


def parse_payload(line: bytes) -> Payload:
    """Understand a value of `x-amz-content-sha256`. Raises InvalidArgument."""
    payload = KEYWORDS.get(line)
    if payload is not None:
        return payload
    if len(line) == 64 and not line.strip(b"0123456789abcdefABCDEF"):
        return Payload(PayloadMode.HASHED, line.decode().lower())
    if line in ASYMMETRIC:
        raise NotImplementedS3("Signature Version 4A is not implemented.")
    raise InvalidArgument(
        BAD_PAYLOAD_HASH, ArgumentName="x-amz-content-sha256", ArgumentValue=_text(line)
    )


def signing_key(secret_key: str, scope: bytes) -> bytes:
    """The key of one day, region and service. `scope` is `date/region/service/aws4_request`."""
    return _signing_key(secret_key.encode(), scope)


@lru_cache(maxsize=SIGNING_KEYS_CACHED_MAX)
def _signing_key(secret: bytes, scope: bytes) -> bytes:
    # Cached by the secret itself, so that a changed secret can never meet the old key; an
    # lru_cache shows its keys in no repr.
    key = b"AWS4" + secret
    for part in scope.split(b"/"):
        key = hmac.digest(key, part, "sha256")
    return key


def _authentication_query(request: Request) -> dict[bytes, bytes] | None:
    """The X-Amz-* parameters when the query carries a signature, else None."""
    if not request.raw_query:
        return None
    found: dict[bytes, bytes] = {}
    repeated = False
    for _, (name, value) in request.query_pairs:
        if name.startswith(b"X-Amz-"):
            repeated = repeated or name in found
            found[name] = value
    if b"X-Amz-Algorithm" not in found:
        return None
    if repeated:
        raise AuthorizationQueryParametersError("X-Amz query parameters must not be repeated.")
    return found


def _from_header(
    request: Request, authorization: bytes, regions: Collection[str], service: bytes
) -> Credentials:
    headers = request.header_values
    scheme, _, rest = authorization.partition(b" ")
    if scheme != ALGORITHM:
        if scheme in (b"AWS", b"AWS4-ECDSA-P256-SHA256"):
            raise InvalidRequest(VERSION_2)
        raise InvalidArgument("Unsupported Authorization Type", ArgumentName="Authorization")
    line = headers.get(b"x-amz-content-sha256")
    if line is None:
        raise InvalidRequest("Missing required header for this request: x-amz-content-sha256")
    payload = parse_payload(line)
    components = _components(rest)
    timestamp, when = _header_time(headers)
    if abs(request.now - when) > CLOCK_SKEW_SECONDS_MAX:
        raise RequestTimeTooSkewed(
            RequestTime=_text(timestamp),
            ServerTime=iso8601_seconds(request.now),
            MaxAllowedSkewMilliseconds=str(CLOCK_SKEW_SECONDS_MAX * 1000),
        )
    access_key, scope = credential_scope(
        components[b"Credential"],
        timestamp,
        regions,
        service,
        (AuthorizationHeaderMalformed, HEADER_MALFORMED),
    )
    token = headers.get(b"x-amz-security-token")
    return Credentials(
        access_key=access_key,
        region=scope.split(b"/")[1].decode(),
        presigned=False,
        session_token=None if token is None else _text(token),
        payload=payload,
        payload_line=line,
        timestamp=timestamp,
        scope=scope,
        signed_headers=_signed_names(components[b"SignedHeaders"]),
        signature=components[b"Signature"],
    )


def _from_query(
    request: Request, query: dict[bytes, bytes], regions: Collection[str], service: bytes
) -> Credentials:
    if query[b"X-Amz-Algorithm"] != ALGORITHM:
        raise AuthorizationQueryParametersError('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    if any(name not in query for name in QUERY_PARAMETERS):
        raise AuthorizationQueryParametersError(SIX_PARAMETERS)
    timestamp = query[b"X-Amz-Date"]
    when = basic_time(timestamp)
    if when is None:
        raise AuthorizationQueryParametersError(
            "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
        )
    _check_expiry(when, query[b"X-Amz-Expires"], request.now)
    access_key, scope = credential_scope(
        query[b"X-Amz-Credential"],
        timestamp,
        regions,
        service,
        (AuthorizationQueryParametersError, CREDENTIAL_MALFORMED),
    )
    line = request.header_values.get(b"x-amz-content-sha256")
    if line is None:
        line = query.get(b"X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD")
    token = query.get(b"X-Amz-Security-Token")
    return Credentials(
        access_key=access_key,
        region=scope.split(b"/")[1].decode(),
        presigned=True,
        session_token=None if token is None else _text(token),
        payload=parse_payload(line),
        payload_line=line,
        timestamp=timestamp,
        scope=scope,
        signed_headers=_signed_names(query[b"X-Amz-SignedHeaders"]),
        signature=query[b"X-Amz-Signature"],
    )


def _components(rest: bytes) -> dict[bytes, bytes]:
    """`Credential=…, SignedHeaders=…, Signature=…` in any order, each exactly once."""
    components: dict[bytes, bytes] = {}
    for piece in rest.split(b","):
        name, equals, value = piece.strip().partition(b"=")
        if not equals or name in components:
            raise AuthorizationHeaderMalformed(HEADER_MALFORMED + THREE_COMPONENTS)
        components[name] = value
    if components.keys() != {b"Credential", b"SignedHeaders", b"Signature"}:
        raise AuthorizationHeaderMalformed(HEADER_MALFORMED + THREE_COMPONENTS)
    return components


def credential_scope(
    credential: bytes,
    timestamp: bytes,
    regions: Collection[str],
    expected_service: bytes,
    malformed: tuple[type[S3Error], str],
) -> tuple[str, bytes]:
    """Access key and scope of `AKID/date/region/service/aws4_request`, each part checked."""
    error, prefix = malformed
    parts = credential.rsplit(b"/", 4)
    if len(parts) != 5 or not parts[0]:
        raise error(prefix + CREDENTIAL_FORM)
    key, date, region, service, terminator = parts
    if len(date) != 8 or not date.isdigit():
        raise error(
            f'{prefix}incorrect date format "{_text(date)}". This date in the credential must be '
            'in the format "yyyyMMdd".'
        )
    if _text(region) not in regions:
        expected = next(iter(regions), "")
        raise error(
            f"{prefix}the region '{_text(region)}' is wrong; expecting '{expected}'",
            headers={"x-amz-bucket-region": expected},
            Region=expected,
        )
    if service != expected_service:
        raise error(
            f'{prefix}incorrect service "{_text(service)}". This endpoint belongs to '
            f'"{expected_service.decode()}".'
        )
    if terminator != TERMINATOR:
        raise error(
            f'{prefix}incorrect terminal "{_text(terminator)}". This endpoint uses "aws4_request".'
        )
    if date != timestamp[:8]:
        raise error(prefix + "Invalid credential date. Date is not the same as X-Amz-Date.")
    return _text(key), credential[len(key) + 1 :]


def _signed_names(names: bytes) -> tuple[bytes, ...]:
    """The signed header names in order. A name is a lower-case token (RFC 9110 §5.6.2)."""
    if names.translate(None, TOKEN_CHARACTERS + b";"):
        raise AccessDenied(NOT_SIGNED)
    return tuple(sorted(names.split(b";")))


def _require_signed(headers: dict[bytes, bytes], signed: tuple[bytes, ...]) -> None:
    missing = [
        name
        for name in headers
        if name not in signed
        and (
            (name.startswith(b"x-amz-") and name != b"x-amz-content-sha256")
            or name in (b"host", b"content-md5")
        )
    ]
    if b"host" not in headers and b"host" not in missing:
        missing.append(b"host")
    if missing:
        raise AccessDenied(NOT_SIGNED, HeadersNotSigned=", ".join(map(_text, sorted(missing))))


def _require_host(host: bytes, accepted_hosts: Collection[str]) -> None:
    sent = _text(host).lower()
    if not any(sent == known or sent.endswith("." + known) for known in accepted_hosts):
        raise AccessDenied("The Host of the request is not one that this endpoint answers for.")


def _header_time(headers: dict[bytes, bytes]) -> tuple[bytes, float]:
    """The request's time, as the string to sign spells it and in Unix seconds."""
    text = headers.get(b"x-amz-date")
    if text is None:
        text = headers.get(b"date", b"")
    when = basic_time(text)
    if when is None:
        seconds = parse_http_date(_text(text))
        if seconds is None or not 0 <= seconds < 1 << 36:
            raise AccessDenied("AWS authentication requires a valid Date or x-amz-date header")
        moment = datetime.fromtimestamp(seconds, UTC)
        return moment.strftime("%Y%m%dT%H%M%SZ").encode(), seconds
    return text, when


def basic_time(text: bytes) -> float | None:
    """Unix seconds of `yyyyMMdd'T'HHmmss'Z'`, or None."""
    if len(text) != 16 or text[8:9] != b"T" or text[15:] != b"Z":
        return None
    date, time = text[:8], text[9:15]
    if not (date.isdigit() and time.isdigit()):
        return None
    try:
        return datetime(
            int(date[:4]),
            int(date[4:6]),
            int(date[6:]),
            int(time[:2]),
            int(time[2:4]),
            int(time[4:]),
            tzinfo=UTC,
        ).timestamp()
    except ValueError:
        return None


def _check_expiry(when: float, expires: bytes, now: float) -> None:
    if not expires.isdigit() or len(expires) > 19:
        negative = expires[:1] == b"-" and expires[1:].isdigit()
        message = "must be non-negative" if negative else "should be a number"
        raise AuthorizationQueryParametersError(f"X-Amz-Expires {message}")
    seconds = int(expires)
    if seconds < 1:
        raise AuthorizationQueryParametersError("X-Amz-Expires must be at least 1 second")
    if seconds > PRESIGNED_SECONDS_MAX:
        raise AuthorizationQueryParametersError(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            f"X-Amz-Expires must be less than {PRESIGNED_SECONDS_MAX} seconds"
        )
    if when - now > CLOCK_SKEW_SECONDS_MAX:
        raise AccessDenied("Request is not yet valid", ServerTime=iso8601_seconds(now))
    if math.floor(now - when) > seconds:
        error = AccessDenied(
            "Request has expired",
            Expires=iso8601_seconds(when + seconds),
            ServerTime=iso8601_seconds(now),
        )
        error.fields["X-Amz-Expires"] = str(seconds)
        raise error


def _mismatch(
    request: Request, credentials: Credentials, query: bytes, head: bytes, tail: bytes
) -> SignatureDoesNotMatch:
    """The error with what was signed here, so that the author of a client can compare."""
    path = canonical_paths(request.raw_path)[0]
    method = request.method.encode("latin-1", "replace")
    canonical = b"%b\n%b\n%b\n%b" % (method, path, query, tail)
    to_sign = head + hashlib.sha256(canonical).hexdigest().encode()
    return SignatureDoesNotMatch(
        AWSAccessKeyId=credentials.access_key,
        StringToSign=_text(to_sign),
        SignatureProvided=_text(credentials.signature),
        StringToSignBytes=to_sign.hex(" "),
        CanonicalRequest=_text(canonical),
        CanonicalRequestBytes=canonical.hex(" "),
    )


def _text(value: bytes) -> str:
    """Bytes of a client for an error message or a name; never fails."""
    return value.decode("utf-8", "backslashreplace")
