"""Who signed a form upload: the signature is over the text of its policy, and over nothing else.

x-amz-algorithm, -credential, -date, -signature     Signature Version 4
AWSAccessKeyId, signature                           Signature Version 2
none of these, and no policy                        anonymous
both                                                refused

All else that the form says is bound by the policy's conditions (`s3gw.auth.post_policy`): those of
Version 4 must name the algorithm, the credential and the date too.

Sources: Amazon S3 API Reference, "Authenticating Requests in Browser-Based Uploads Using POST",
"Browser-Based Uploads Using POST (AWS Signature Version 2)".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from s3gw.auth.sigv4 import (
    ALGORITHM,
    ONE_MECHANISM,
    S3_SERVICE,
    basic_time,
    credential_scope,
    signing_key,
)
from s3gw.errors import AccessDenied, InvalidArgument, SignatureDoesNotMatch
from s3gw.limits import CLOCK_SKEW_SECONDS_MAX, PRESIGNED_SECONDS_MAX
from s3gw.wire.dates import iso8601_seconds

POLICY = "policy"
TOKEN = "x-amz-security-token"  # noqa: S105 (the name of a field)
VERSION_4 = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
VERSION_2 = ("AWSAccessKeyId", "signature")


@dataclass(frozen=True, slots=True)
class FormSigner:
    """Who signed the policy. `algorithm` is "AWS4-HMAC-SHA256", or "AWS" of Version 2, which has no
    `timestamp`."""

    access_key: str
    session_token: str | None = field(repr=False)
    algorithm: str
    timestamp: bytes = b""


def authenticate_form(
    fields: Mapping[str, str],
    secret_of: Callable[[str, str | None], str],
    *,
    regions: Collection[str],
    now: float,
) -> FormSigner | None:
    """Who signed the form, proven; None when nobody did. `fields` by lower-case name, `secret_of`
    as of `s3gw.auth.authenticate.authenticate`. Raises InvalidArgument, AccessDenied,
    SignatureDoesNotMatch."""
    version_4 = any(name in fields for name in VERSION_4)
    version_2 = any(name.lower() in fields for name in VERSION_2)
    if version_4 and version_2:
        raise InvalidArgument(ONE_MECHANISM, ArgumentName="Authorization")
    if not version_4 and not version_2 and POLICY not in fields:
        return None
    _require(fields, (POLICY, *(VERSION_4 if version_4 else VERSION_2)))
    return (_version_4 if version_4 else _version_2)(fields, secret_of, regions, now)


def _require(fields: Mapping[str, str], names: Collection[str]) -> None:
    for name in names:
        if not fields.get(name.lower()):
            raise InvalidArgument(
                f"Bucket POST must contain a field named '{name}'.  If it is specified, please "
                "check the order of the fields.",
                ArgumentName=name,
                ArgumentValue="",
            )


def _version_4(
    fields: Mapping[str, str],
    secret_of: Callable[[str, str | None], str],
    regions: Collection[str],
    now: float,
) -> FormSigner:
    if fields["x-amz-algorithm"] != ALGORITHM.decode():
        raise InvalidArgument(
            f"x-amz-algorithm only supports {ALGORITHM.decode()}",
            ArgumentName="x-amz-algorithm",
            ArgumentValue=fields["x-amz-algorithm"],
        )
    timestamp = fields["x-amz-date"].encode()
    when = basic_time(timestamp)
    if when is None:
        raise InvalidArgument(
            "x-amz-date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
            ArgumentName="x-amz-date",
            ArgumentValue=fields["x-amz-date"],
        )
    if when - now > CLOCK_SKEW_SECONDS_MAX:
        raise AccessDenied("Request is not yet valid", ServerTime=iso8601_seconds(now))
    if now - when > PRESIGNED_SECONDS_MAX:
        raise AccessDenied("Request has expired", ServerTime=iso8601_seconds(now))
    access_key, scope = credential_scope(
        fields["x-amz-credential"].encode(),
        timestamp,
        regions,
        S3_SERVICE,
        (InvalidArgument, "Error parsing the x-amz-credential field; "),
    )
    token = fields.get(TOKEN)
    key = signing_key(secret_of(access_key, token), scope)
    policy = fields[POLICY].encode()
    expected = hmac.digest(key, policy, "sha256").hex().encode()
    if not hmac.compare_digest(expected, fields["x-amz-signature"].encode()):
        raise _mismatch(access_key, fields, "x-amz-signature")
    return FormSigner(access_key, token, ALGORITHM.decode(), timestamp)


def _version_2(
    fields: Mapping[str, str],
    secret_of: Callable[[str, str | None], str],
    _regions: Collection[str],
    _now: float,
) -> FormSigner:
    access_key, token = fields["awsaccesskeyid"], fields.get(TOKEN)
    secret = secret_of(access_key, token).encode()
    expected = hmac.digest(secret, fields[POLICY].encode(), "sha1")
    try:
        sent = base64.b64decode(fields["signature"], validate=True)
    except (binascii.Error, ValueError):
        sent = b""
    if not hmac.compare_digest(expected, sent):
        raise _mismatch(access_key, fields, "signature")
    return FormSigner(access_key, token, "AWS")


def _mismatch(access_key: str, fields: Mapping[str, str], signature: str) -> SignatureDoesNotMatch:
    return SignatureDoesNotMatch(
        AWSAccessKeyId=access_key,
        StringToSign=fields[POLICY],
        SignatureProvided=fields[signature],
        StringToSignBytes=fields[POLICY].encode().hex(" "),
    )
