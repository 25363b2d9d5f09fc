"""URLs that botocore presigns with Version 2 are accepted, and nothing else is."""

import base64
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import botocore.session
import pytest
from botocore.config import Config

from s3gw.auth.authenticate import Signer, acting, authenticate
from s3gw.auth.canonical import Request
from s3gw.auth.sigv4 import PayloadMode
from s3gw.errors import InvalidAccessKeyId, S3Error
from s3gw.limits import PRESIGNED_SECONDS_MAX
from s3gw.server.resolve import SUBRESOURCES, Domains

KEY, SECRET = "AKIAEXAMPLE", "secret/key+with=signs"
NOW = 1_790_000_000.0
DOMAINS = Domains(["s3.test"])
OBJECT: dict[str, Any] = {"Bucket": "bucket", "Key": "a b/ü+~(1)&=.txt"}


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def presigned(
    operation: str,
    parameters: dict[str, Any],
    *,
    style: str = "path",
    token: str | None = None,
    seconds: int = 3600,
) -> tuple[str, str]:
    """Method and URL, by a client as `boto3.client("s3", endpoint_url=…)` makes it."""
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url="http://s3.test:9000",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=token,
        config=Config(s3={"addressing_style": style}),
    )
    url: str = client.generate_presigned_url(operation, Params=parameters, ExpiresIn=seconds)
    assert "AWSAccessKeyId=" in url
    name = client.meta.method_to_api_mapping[operation]
    return client.meta.service_model.operation_model(name).http["method"], url


def received(method: str, url: str, *headers: tuple[bytes, bytes], now: float = NOW) -> Request:
    parts = urlsplit(url)
    sent = [(b"host", parts.netloc.encode()), *headers]
    return Request(method, parts.path.encode(), parts.query.encode(), sent, now)


def secret_of(access_key: str, _token: str | None) -> str:
    if access_key != KEY:
        raise InvalidAccessKeyId
    return SECRET


def judged(request: Request) -> Signer | None:
    return authenticate(
        request,
        secret_of,
        regions=("us-east-1",),
        hosted_bucket=DOMAINS.bucket(request.header_values[b"host"]),
        subresources=frozenset(name.encode() for name in SUBRESOURCES),
    )


def refusal(request: Request) -> S3Error:
    with pytest.raises(S3Error) as caught:
        judged(request)
    return caught.value


@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("get_object", OBJECT),
        ("get_object", {**OBJECT, "VersionId": "v/1+ =", "ResponseContentDisposition": "a; b=é"}),
        ("head_object", OBJECT),
        ("put_object", OBJECT),
        ("put_object", {**OBJECT, "ContentType": "text/plain; a=b", "ACL": "private"}),
        ("put_object", {**OBJECT, "Metadata": {"Color": "dark  green"}, "ContentMD5": "aa=="}),
        ("delete_object", OBJECT),
        ("create_multipart_upload", OBJECT),
        ("upload_part", {**OBJECT, "UploadId": "u+/=", "PartNumber": 7}),
        ("abort_multipart_upload", {**OBJECT, "UploadId": "u"}),
        ("list_objects_v2", {"Bucket": "bucket", "Prefix": "a b/", "MaxKeys": 5}),
        ("head_bucket", {"Bucket": "bucket"}),
        ("get_bucket_cors", {"Bucket": "bucket"}),
        ("get_object_tagging", OBJECT),
        ("copy_object", {**OBJECT, "CopySource": {"Bucket": "other", "Key": "k ü"}}),
    ],
)
def test_what_botocore_presigns_is_accepted(
    style: str, operation: str, parameters: dict[str, Any]
) -> None:
    signer = judged(received(*presigned(operation, parameters, style=style)))
    assert signer is not None
    assert (signer.access_key, signer.payload.mode, signer.seed) == (
        KEY,
        PayloadMode.UNSIGNED,
        None,
    )


def test_the_example_of_the_documentation() -> None:
    """The secret key and the query example of the API reference, with an expiry within a week."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    to_sign = f"GET\n\n\n{int(NOW) + 9}\n/awsexamplebucket1/photos/puppy.jpg"
    digest = hmac.digest(secret.encode(), to_sign.encode(), hashlib.sha1)
    signature = quote(base64.b64encode(digest).decode(), safe="")
    query = f"AWSAccessKeyId=AKIA&Signature={signature}&Expires={int(NOW) + 9}"
    host = [(b"host", b"awsexamplebucket1.s3.test")]
    signer = authenticate(
        Request("GET", b"/photos/puppy.jpg", query.encode(), host, NOW),
        lambda _key, _token: secret,
        regions=(),
        hosted_bucket=b"awsexamplebucket1",
        subresources=(),
    )
    assert signer is not None


def test_a_session_token_in_the_query_is_signed_and_found() -> None:
    method, url = presigned("get_object", OBJECT, token="token+/ =")
    signer = judged(received(method, url))
    assert signer is not None
    assert signer.session_token == "token+/ ="
    assert refusal(received(method, url.replace("token", "tokem"))).code == "SignatureDoesNotMatch"


def test_headers_in_the_query_act_as_headers() -> None:
    parameters = {**OBJECT, "ContentType": "text/plain", "Metadata": {"Color": "green"}}
    request = acting(received(*presigned("put_object", parameters)))
    assert request.header_values[b"content-type"] == b"text/plain"
    assert request.header_values[b"x-amz-meta-color"] == b"green"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/bucket/", "/bucket2/"),
        ("/a%20b/", "/a%20c/"),
        ("Signature=", "Signature=A"),
        ("Signature=", "Signature=%FF"),
        ("Expires=1790003600", "Expires=1790003601"),
        ("versionId=v1", "versionId=v2"),
        ("versionId=v1", "versionId=v1&versionId=v2"),
        ("versionId=v1", "versionId=v0&versionId=v1"),
        ("versionId=v1", "versionId=v1&acl"),
        ("versionId=v1", "versionId=v1&attributes"),
        ("versionId=v1", "versionId=v1&retention"),
        ("versionId=v1", "versionId=v1&uploadId=u"),
        ("versionId=v1", "versionId=v1&response-content-type=text%2Fhtml"),
        ("versionId=v1", "versionId=v1%26acl"),
        ("versionId=v1&", ""),
    ],
)
def test_a_changed_url_is_refused(old: str, new: str) -> None:
    method, url = presigned("get_object", {**OBJECT, "VersionId": "v1"})
    assert judged(received(method, url)) is not None
    assert old in url
    assert refusal(received(method, url.replace(old, new, 1))).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x-amz-meta-color=green", "x-amz-meta-color=red"),
        ("x-amz-meta-color=green", "x-amz-meta-color=green&x-amz-copy-source=%2Fb%2Fk"),
        ("x-amz-meta-color=green", "x-amz-meta-color=green&X-Amz-Acl=public-read"),
        ("x-amz-meta-color=green", "x-amz-meta-color=red&X-Amz-Meta-Color=green"),
        ("&x-amz-meta-color=green", ""),
        ("content-type=text%2Fplain", "content-type=text%2Fhtml"),
    ],
)
def test_a_changed_header_in_the_url_is_refused(old: str, new: str) -> None:
    parameters = {**OBJECT, "ContentType": "text/plain", "Metadata": {"color": "green"}}
    method, url = presigned("put_object", parameters)
    assert judged(received(method, url)) is not None
    assert old in url
    assert refusal(received(method, url.replace(old, new, 1))).code == "SignatureDoesNotMatch"


def test_an_unsigned_header_beside_the_url_is_refused() -> None:
    method, url = presigned("put_object", OBJECT)
    for name, value in [
        (b"x-amz-copy-source", b"/b/k"),
        (b"x-amz-acl", b"public-read"),
        (b"content-md5", b"aa=="),
        (b"content-type", b"text/html"),
    ]:
        assert refusal(received(method, url, (name, value))).code == "SignatureDoesNotMatch"


def test_another_method_is_refused() -> None:
    _, url = presigned("get_object", OBJECT)
    for method in ("PUT", "DELETE", "POST", "HEAD"):
        assert refusal(received(method, url)).code == "SignatureDoesNotMatch"


def test_a_url_of_one_virtual_host_is_refused_on_another() -> None:
    method, url = presigned("get_object", OBJECT, style="virtual")
    assert refusal(received(method, url.replace("//bucket.", "//other."))).status == 403


def test_time_limits() -> None:
    method, url = presigned("get_object", OBJECT)
    assert judged(received(method, url, now=NOW + 3600)) is not None
    late = refusal(received(method, url, now=NOW + 3601))
    assert (late.code, late.message) == ("AccessDenied", "Request has expired")
    week = presigned("get_object", OBJECT, seconds=PRESIGNED_SECONDS_MAX)
    assert judged(received(*week)) is not None
    longer = presigned("get_object", OBJECT, seconds=PRESIGNED_SECONDS_MAX + 1)
    assert refusal(received(*longer)).code == "AccessDenied"


@pytest.mark.parametrize("expires", ["", "-1", "x", "1.5", "9" * 30, "%D9%A1"])
def test_an_expiry_that_is_no_number_is_refused(expires: str) -> None:
    method, url = presigned("get_object", OBJECT)
    changed = received(method, url.replace("Expires=1790003600", f"Expires={expires}"))
    assert (refusal(changed).code, refusal(changed).status) == ("AccessDenied", 403)


@pytest.mark.parametrize("name", ["AWSAccessKeyId", "Signature", "Expires"])
def test_an_incomplete_or_ambiguous_query_is_refused(name: str) -> None:
    method, url = presigned("get_object", OBJECT)
    path, _, query = url.partition("?")
    rest = [part for part in query.split("&") if not part.startswith(name + "=")]
    assert refusal(received(method, f"{path}?{'&'.join(rest)}")).code == "AccessDenied"
    assert refusal(received(method, f"{url}&{name}=1")).code == "AccessDenied"


def test_an_unknown_key_is_named() -> None:
    method, url = presigned("get_object", OBJECT)
    assert refusal(received(method, url.replace(KEY, "AKIAOTHER"))).code == "InvalidAccessKeyId"


def test_two_mechanisms_at_once_are_refused() -> None:
    method, url = presigned("get_object", OBJECT)
    both = received(method, url + "&X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert refusal(both).code == "InvalidArgument"
    header = (b"authorization", b"AWS4-HMAC-SHA256 Credential=a")
    assert refusal(received(method, url, header)).code == "InvalidArgument"


def test_version_2_in_the_header_stays_refused() -> None:
    header = (b"authorization", b"AWS AKIAEXAMPLE:c2lnbmF0dXJl")
    assert refusal(received("GET", "http://s3.test/b/k", header)).code == "InvalidRequest"


def test_signed_chunks_cannot_begin_from_a_version_2_signature() -> None:
    name, mode = b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    method, url = presigned("put_object", OBJECT)
    assert refusal(received(method, url, (name, mode))).code == "AccessDenied"


@pytest.mark.parametrize("value", ["a%0Ax-amz-acl:public-read", "a%00", "a%7F", "a%0D"])
def test_a_header_in_the_query_cannot_carry_another(value: str) -> None:
    method, url = presigned("put_object", OBJECT)
    with pytest.raises(S3Error) as caught:
        acting(received(method, f"{url}&x-amz-meta-a={value}"))
    assert caught.value.code == "InvalidArgument"


def test_an_anonymous_query_moves_nothing() -> None:
    request = received("PUT", "http://s3.test/b/k?x-amz-copy-source=%2Fb%2Fother&Expires=1")
    assert acting(request) is request
    assert judged(request) is None
