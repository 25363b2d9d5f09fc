"""Signers beside botocore: the AWS common runtime and minio-py."""

from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignatureType,
    AwsSignedBodyHeaderType,
    AwsSigningAlgorithm,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.http import HttpHeaders, HttpRequest
from minio.credentials import Credentials
from minio.signer import presign_v4, sign_v4_s3

from s3gw.auth.canonical import Request
from s3gw.auth.sigv4 import PayloadMode, SignedRequest, parse_credentials, verify

TIME = datetime(2026, 5, 24, 12, 0, 0, tzinfo=UTC)
HOST = "store.example.com:9000"
SECRET = "secret"
TARGETS = ["/b/k", "/b/a%20b/%C3%BC%2B(x)", "/b?list-type=2&prefix=a%20b%2Fc&delimiter=%2F&acl"]


def accept(method: str, target: str, headers: list[tuple[bytes, bytes]]) -> SignedRequest:
    path, _, query = target.partition("?")
    request = Request(method, path.encode(), query.encode(), headers, TIME.timestamp())
    credentials = parse_credentials(request, ("us-east-1",))
    assert credentials is not None
    return verify(request, credentials, SECRET)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("presigned", "payload"),
    [
        (False, None),
        (False, "UNSIGNED-PAYLOAD"),
        (False, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        (True, "UNSIGNED-PAYLOAD"),
    ],
)
def test_the_common_runtimes_signature_is_accepted(
    target: str, presigned: bool, payload: str | None
) -> None:
    config = AwsSigningConfig(
        algorithm=AwsSigningAlgorithm.V4,
        signature_type=AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS
        if presigned
        else AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=AwsCredentialsProvider.new_static("AKIA", SECRET, "token"),
        region="us-east-1",
        service="s3",
        date=TIME,
        use_double_uri_encode=False,
        should_normalize_uri_path=False,
        signed_body_value=payload,
        signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        expiration_in_seconds=60 if presigned else None,
    )
    unsigned = HttpRequest("PUT", target, HttpHeaders([("host", HOST)]))
    signed = aws_sign_request(unsigned, config).result(5)
    headers = [(name.lower().encode(), value.encode()) for name, value in signed.headers]
    result = accept("PUT", signed.path, headers)
    assert (result.presigned, result.session_token) == (presigned, "token")
    expected = PayloadMode.HASHED if payload is None else PayloadMode(payload)
    assert result.payload.mode is expected


@pytest.mark.parametrize("key", ["k", "a b/ü", "x+y=z&(1)!'*~"])
def test_minio_pys_signatures_are_accepted(key: str) -> None:
    url = urlsplit(f"http://{HOST}/b/{quote(key, safe='/~')}?partNumber=1&uploadId=a%2Fb")
    keys = Credentials("AKIA", SECRET)
    body = "UNSIGNED-PAYLOAD"
    sent = {"Host": HOST, "x-amz-date": "20260524T120000Z", "x-amz-content-sha256": body}
    signed = sign_v4_s3(
        method="PUT",
        url=url,
        region="us-east-1",
        headers=sent,
        credentials=keys,
        content_sha256=body,
        date=TIME,
    )
    headers = [(name.lower().encode(), value.encode()) for name, value in signed.items()]
    assert not accept("PUT", f"{url.path}?{url.query}", headers).presigned
    link = presign_v4(
        method="GET", url=url, region="us-east-1", credentials=keys, date=TIME, expires=60
    )
    assert accept("GET", f"{link.path}?{link.query}", [(b"host", HOST.encode())]).presigned
