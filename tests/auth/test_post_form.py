"""Signatures of forms. The vectors are those of Amazon's documentation."""

import base64
import hmac
from typing import Any

import pytest

from s3gw import errors
from s3gw.auth.post_form import authenticate_form
from s3gw.auth.sigv4 import basic_time, signing_key

# "Example: Browser-Based Upload using HTTP POST (Using AWS Signature Version 4)".
POLICY_4 = (
    "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7"
    "ImJ1Y2tldCI6ICJzaWd2NGV4YW1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91"
    "c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3Qi"
    "OiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2FkLmh0bWwi"
    "fSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRh"
    "LXV1aWQiOiAiMTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVT"
    "MjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNy"
    "ZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3czRfcmVxdWVzdCJ9"
    "LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAi"
    "MjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9"
)
SECRETS = {"AKIAIOSFODNN7EXAMPLE": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
NOW = basic_time(b"20151229T000000Z") or 0.0
VERSION_4 = {
    "policy": POLICY_4,
    "x-amz-algorithm": "AWS4-HMAC-SHA256",
    "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request",
    "x-amz-date": "20151229T000000Z",
    "x-amz-signature": "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e",
}
POLICY_2 = base64.b64encode(b'{"expiration": "2015-12-30T12:00:00Z", "conditions": []}').decode()
VERSION_2 = {
    "policy": POLICY_2,
    "awsaccesskeyid": "AKIAIOSFODNN7EXAMPLE",
    "signature": base64.b64encode(
        hmac.digest(SECRETS["AKIAIOSFODNN7EXAMPLE"].encode(), POLICY_2.encode(), "sha1")
    ).decode(),
}
DAY = 86_400


def secret_of(access_key: str, token: str | None) -> str:
    if access_key not in SECRETS:
        raise errors.InvalidAccessKeyId
    if token not in (None, "token"):
        raise errors.InvalidToken
    return SECRETS[access_key]


def signer(fields: dict[str, str], now: float = NOW) -> Any:
    return authenticate_form(fields, secret_of, regions=("us-east-1",), now=now)


def test_the_published_example_of_version_4() -> None:
    found = signer(VERSION_4)
    assert (found.access_key, found.session_token) == ("AKIAIOSFODNN7EXAMPLE", None)
    assert (found.algorithm, found.timestamp) == ("AWS4-HMAC-SHA256", b"20151229T000000Z")


def test_version_2() -> None:
    found = signer(VERSION_2)
    assert (found.access_key, found.algorithm, found.timestamp) == (
        "AKIAIOSFODNN7EXAMPLE",
        "AWS",
        b"",
    )


@pytest.mark.parametrize("fields", [VERSION_4, VERSION_2])
def test_the_session_token_goes_with_the_key(fields: dict[str, str]) -> None:
    assert signer({**fields, "x-amz-security-token": "token"}).session_token == "token"
    with pytest.raises(errors.InvalidToken):
        signer({**fields, "x-amz-security-token": "other"})


def test_a_form_without_signature_and_policy_is_anonymous() -> None:
    assert signer({"key": "a", "x-amz-meta-a": "b", "x-amz-security-token": "t"}) is None


@pytest.mark.parametrize("fields", [VERSION_4, VERSION_2])
@pytest.mark.parametrize("empty", [False, True])
def test_no_field_of_a_signature_may_be_missing(fields: dict[str, str], empty: bool) -> None:
    for name in fields:
        spoilt = {**fields, name: ""} if empty else {n: v for n, v in fields.items() if n != name}
        with pytest.raises(errors.InvalidArgument, match="Bucket POST must contain a field named"):
            signer(spoilt)


@pytest.mark.parametrize("fields", [VERSION_4, VERSION_2])
def test_another_policy_signature_secret_or_key_is_refused(fields: dict[str, str]) -> None:
    signature = "signature" if "signature" in fields else "x-amz-signature"
    wrong = fields[signature].swapcase()
    for spoilt in (
        {**fields, "policy": fields["policy"][:-4] + "fQ=="},
        {**fields, "policy": fields["policy"] + " "},
        {**fields, signature: wrong},
        {**fields, signature: "é"},
        {**fields, signature: fields[signature][:-1]},
    ):
        with pytest.raises(errors.SignatureDoesNotMatch):
            signer(spoilt)
    access_key = "awsaccesskeyid" if "signature" in fields else "x-amz-credential"
    with pytest.raises(errors.InvalidAccessKeyId):
        signer({**fields, access_key: fields[access_key].replace("AKIA", "AKIB")})


def test_both_versions_at_once_are_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="Only one auth mechanism"):
        signer({**VERSION_4, **VERSION_2})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-algorithm", "AWS4-HMAC-SHA1"),
        ("x-amz-date", "2015-12-29"),
        ("x-amz-date", "20151229T000000+"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151228/us-east-1/s3/aws4_request"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/eu-west-1/s3/aws4_request"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/iam/aws4_request"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws5_request"),
        ("x-amz-credential", "/20151229/us-east-1/s3/aws4_request"),
        ("x-amz-credential", "é/é/é/é/é"),
    ],
)
def test_what_makes_no_credential_is_refused(name: str, value: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        signer({**VERSION_4, name: value})


def test_a_signature_counts_for_a_week_and_not_before_it_was_made() -> None:
    assert signer(VERSION_4, NOW + 7 * DAY)
    assert signer(VERSION_4, NOW - 15 * 60)
    for now in (NOW + 7 * DAY + 1, NOW - 15 * 60 - 1):
        with pytest.raises(errors.AccessDenied):
            signer(VERSION_4, now)


def test_the_signing_key_is_that_of_the_day() -> None:
    key = signing_key(SECRETS["AKIAIOSFODNN7EXAMPLE"], b"20151229/us-east-1/s3/aws4_request")
    assert hmac.digest(key, POLICY_4.encode(), "sha256").hex() == VERSION_4["x-amz-signature"]
