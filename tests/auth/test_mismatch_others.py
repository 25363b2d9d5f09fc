"""What is said of a signature of Version 2, or of a form's, that does not match."""

import base64
import hmac
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth import sigv2
from s3gw.auth.canonical import Request
from s3gw.auth.mismatch_others import explain_form, explain_version_2
from s3gw.auth.post_form import authenticate_form
from s3gw.auth.sigv4 import signing_key
from s3gw.errors import SignatureDoesNotMatch

NOW = 1779624000.0
EXPIRES = b"1779624060"
SECRET = "a secret key"


def request(method: str, target: str, headers: Mapping[str, str] | None = None) -> Request:
    path, _, query = target.partition("?")
    pairs = [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
    return Request(method, path.encode(), query.encode(), pairs, NOW)


def told(
    signed: Request, came: Request, bucket: bytes | None = None, came_bucket: bytes | None = None
) -> str:
    """What is said of `came`, which has the signature of `signed`."""
    text = sigv2.strings_to_sign(signed, EXPIRES, bucket, ())[0]
    signature = base64.b64encode(hmac.digest(SECRET.encode(), text, "sha1"))
    credentials = sigv2.Credentials("AK", EXPIRES, signature)
    sigv2.verify(signed, credentials, SECRET, hosted_bucket=bucket, subresources=())
    with pytest.raises(SignatureDoesNotMatch):
        sigv2.verify(came, credentials, SECRET, hosted_bucket=came_bucket, subresources=())
    said = explain_version_2(came, credentials, SECRET, hosted_bucket=came_bucket, subresources=())
    assert signature.decode() not in said
    assert SECRET not in said
    return said


GET, PUT = request("GET", "/b/k"), request("PUT", "/b/k")
FORM_TYPE = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("signed", "came", "part"),
    [
        (PUT, request("PUT", "/b/k", {"content-type": FORM_TYPE}), "header content-type: ''"),
        (
            request("PUT", "/b/k", {"content-type": "text/plain"}),
            request("PUT", "/b/k", {"content-type": "text/plain; charset=utf-8"}),
            "header content-type: 'text/plain'",
        ),
        (
            request("PUT", "/b/k", {"content-type": "application/octet-stream"}),
            PUT,
            "content-type: 'application/octet-stream'",
        ),
        (PUT, request("PUT", "/b/k", {"content-md5": "AAAA"}), "header content-md5: ''"),
        (GET, PUT, "the method 'GET'"),
        (GET, request("GET", "/b/k", {"x-amz-acl": "private"}), "no header x-amz-acl"),
        (GET, request("GET", "/b/k?versionId=1"), "no parameter"),
        (GET, request("GET", "/b/k?" + "x=1&" * 20 + "uploads"), "what came is 'uploads'"),
        (request("GET", "/b/k/"), GET, "the path '/b/k/'"),
        (request("GET", "/b/a%20b"), request("GET", "/b/a%2520b"), "the path"),
        (request("GET", "/k"), GET, "was not in the path"),
    ],
)
def test_the_part_that_was_changed_is_named(signed: Request, came: Request, part: str) -> None:
    said = told(signed, came)
    assert said.startswith("The signature is right for ")
    assert part in said


def test_a_bucket_in_the_host_name_is_signed_in_front_of_the_path() -> None:
    came = request("GET", "/k")
    assert "in front of the path" in told(came, came, came_bucket=b"b")


def test_several_changes_are_not_guessed_at() -> None:
    said = told(GET, request("PUT", "/b/other", {"x-amz-acl": "private"}))
    assert said.startswith("None of the ")


def test_secrets_are_not_said() -> None:
    said = told(GET, request("GET", "/b/k", {"x-amz-security-token": "the token"}))
    assert "no header x-amz-security-token" in said
    assert "the token" not in said


@given(
    st.binary(max_size=30),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"%", b"")),
    st.binary(max_size=30),
)
def test_whatever_came_something_is_said(path: bytes, query: bytes, signature: bytes) -> None:
    came = Request("GET", b"/" + path, query, [(b"x-amz-a", path), (b"content-type", query)], NOW)
    credentials = sigv2.Credentials("AK", EXPIRES, signature)
    assert explain_version_2(came, credentials, SECRET, hosted_bucket=None, subresources=())


def test_a_long_query_is_read_once_for_all_that_leaves_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = Request("GET", b"/b/k", b"x=1&" * 50 + b"uploads", [(b"x-amz-a", b"1")], NOW)
    read = 0

    def counted(text: bytes) -> bytes:
        nonlocal read
        read += text == b"x"
        return text

    monkeypatch.setattr("s3gw.auth.canonical._decoded", counted)
    credentials = sigv2.Credentials("AK", EXPIRES, b"")
    said = explain_version_2(came, credentials, SECRET, hosted_bucket=b"b", subresources=())
    assert int(said.split()[3]) > 10
    assert read == 2 * 50  # as it came, and without the parameter that is signed


POLICY = base64.b64encode(b'{"expiration": "2030-01-01T00:00:00Z", "conditions": [">>>?~~~"]}')
SCOPE = "20260524/us-east-1/s3/aws4_request"
HEX_4 = hmac.digest(signing_key(SECRET, SCOPE.encode()), POLICY, "sha256")
RAW_2 = hmac.digest(SECRET.encode(), POLICY, "sha1")
TEXT = POLICY.decode()


def form_4(policy: str, signature: str) -> dict[str, str]:
    return {
        "policy": policy,
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"AK/{SCOPE}",
        "x-amz-date": "20260524T120000Z",
        "x-amz-signature": signature,
    }


def form_2(policy: str, signature: str) -> dict[str, str]:
    return {"policy": policy, "awsaccesskeyid": "AK", "signature": signature}


BASE64_2 = base64.b64encode(RAW_2).decode()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        (form_4(TEXT.replace("+", " "), HEX_4.hex()), "lost its plus signs"),
        (form_4(TEXT[:20] + "\r\n" + TEXT[20:], HEX_4.hex()), "white space that was not signed"),
        (form_4(TEXT, base64.b64encode(HEX_4).decode()), "it is in Base64"),
        (form_4(TEXT, HEX_4.hex().upper()), "it is in capitals"),
        (form_4(TEXT, HEX_4.hex() + "\n"), "white space is around it"),
        (
            form_4(TEXT, hmac.digest(SECRET.encode(), POLICY, "sha256").hex()),
            "not with the signing key",
        ),
        (
            form_4(
                TEXT,
                hmac.digest(signing_key(SECRET, SCOPE.encode()), POLICY + b"\n", "sha256").hex(),
            ),
            "a line feed at its end",
        ),
        (form_2(TEXT.replace("+", " "), BASE64_2), "lost its plus signs"),
        (form_2(TEXT, RAW_2.hex()), "it is in hex"),
        (
            form_2(TEXT, base64.b64encode(hmac.digest(SECRET.encode(), POLICY, "sha256")).decode()),
            "made with HMAC-SHA256",
        ),
        (form_4(TEXT, "0" * 64), "None of the "),
        (form_2(TEXT, "ü"), "None of the "),
        (form_2("no Base64 at all!", BASE64_2), "None of the "),
    ],
)
def test_the_mistake_of_a_form_is_named(fields: dict[str, str], what: str) -> None:
    assert b"+" in POLICY
    with pytest.raises(SignatureDoesNotMatch):
        authenticate_form(fields, lambda _key, _token: SECRET, regions=("us-east-1",), now=NOW)
    said = explain_form(fields, SECRET)
    assert what in said
    for signature in (HEX_4.hex(), BASE64_2):
        assert signature not in said
