"""Signatures made by botocore are accepted as they are, and by no other bytes."""

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SignerCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.auth.canonical import Request
from s3gw.auth.sigv4 import (
    PayloadMode,
    SignedRequest,
    anonymous_payload,
    parse_credentials,
    signing_key,
    verify,
)
from s3gw.errors import S3Error

SIGNER = SignerCredentials("AKIAEXAMPLE", "secret/key+with=signs")
TEMPORARY = SignerCredentials("ASIAEXAMPLE", "another secret", "session token==")
TIME = datetime(2026, 5, 24, 12, 0, 0, tzinfo=UTC)
NOW = TIME.timestamp()
HOST = "store.example.com:9000"
REGIONS = ("eu-central-1", "us-east-1")


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: TIME)


def received(signed: AWSRequest) -> Request:
    """The request as a server sees it after botocore prepared it."""
    prepared = signed.prepare()
    parts = urlsplit(prepared.url)
    headers = [(name.lower().encode(), _bytes(value)) for name, value in prepared.headers.items()]
    headers.append((b"host", parts.netloc.encode()))
    return Request(prepared.method, parts.path.encode(), parts.query.encode(), headers, NOW)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def header_signed(
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    signer: SignerCredentials = SIGNER,
    body: bytes = b"",
) -> Request:
    request = AWSRequest(method, f"http://{HOST}{target}", headers=headers or {}, data=body)
    S3SigV4Auth(signer, "s3", "us-east-1").add_auth(request)
    return received(request)


def presigned(
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    signer: SignerCredentials = SIGNER,
    expires: int = 600,
) -> Request:
    request = AWSRequest(method, f"http://{HOST}{target}", headers=headers or {})
    S3SigV4QueryAuth(signer, "s3", "us-east-1", expires).add_auth(request)
    return received(request)


def accept(request: Request, secret: str = SIGNER.secret_key) -> SignedRequest:
    credentials = parse_credentials(request, REGIONS)
    assert credentials is not None
    return verify(request, credentials, secret)


def refusal(request: Request, secret: str = SIGNER.secret_key, **options: object) -> S3Error:
    with pytest.raises(S3Error) as caught:
        credentials = parse_credentials(request, REGIONS, **options)  # type: ignore[arg-type]
        assert credentials is not None, "read as anonymous"
        verify(request, credentials, secret)
    return caught.value


def changed(request: Request, **changes: object) -> Request:
    fields = {
        name: getattr(request, name)
        for name in ("method", "raw_path", "raw_query", "headers", "now")
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def without(request: Request, name: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in request.headers if pair[0] != name]


KEYS = [
    "plain",
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ü/日本/😀",
    "a//b/../c/./",
    "*'();:@&=$,[]!?#",
    "~tilde-._",
    "\x01\n\t",
]


@pytest.mark.parametrize("sign", [header_signed, presigned])
@pytest.mark.parametrize("key", KEYS)
def test_any_key_signed_by_botocore_is_accepted(sign, key: str) -> None:
    target = "/bucket/" + quote(key, safe="/~")
    assert accept(sign("GET", target)).access_key == "AKIAEXAMPLE"


QUERIES = [
    "acl",
    "acl=",
    "list-type=2&prefix=a%20b&delimiter=%2F",
    "prefix=a%2Bb",
    "prefix=%25&marker=%3D%26",
    "b=2&a=1&B=0",
    "tag=%C3%BC&tag=a",
    "partNumber=1&uploadId=abc~def",
    "max-keys=0&encoding-type=url&x-id=ListObjects",
]


@pytest.mark.parametrize("query", QUERIES)
def test_any_query_signed_by_botocore_is_accepted(query: str) -> None:
    accept(header_signed("GET", "/bucket?" + query))


def test_a_plus_in_the_query_is_a_space_and_a_plus_in_the_path_is_a_plus() -> None:
    encoded = header_signed("GET", "/b/a%2Bb?prefix=a%20b")
    accept(changed(encoded, raw_query=b"prefix=a+b", raw_path=b"/b/a+b"))
    literal_plus = header_signed("GET", "/b?prefix=a%2Bb")
    assert refusal(changed(literal_plus, raw_query=b"prefix=a+b")).code == "SignatureDoesNotMatch"


def test_lower_case_escapes_and_a_bare_reserved_byte_mean_the_same() -> None:
    request = header_signed("GET", "/b/%C3%BC%28x%29?prefix=%2Fa")
    accept(changed(request, raw_path=b"/b/%c3%bc(x)", raw_query=b"prefix=/a"))


def test_a_path_is_decoded_once() -> None:
    request = header_signed("GET", "/b/a%2520b")
    assert refusal(changed(request, raw_path=b"/b/a%20b")).code == "SignatureDoesNotMatch"


def test_spaces_in_header_values_fold() -> None:
    accept(header_signed("PUT", "/b/k", {"x-amz-meta-a": "  two   words  "}))


def test_the_session_token_is_returned_from_header_and_query() -> None:
    for sign in (header_signed, presigned):
        result = accept(sign("GET", "/b/k", signer=TEMPORARY), TEMPORARY.secret_key)
        assert result.session_token == TEMPORARY.token


def test_a_date_header_may_stand_for_x_amz_date() -> None:
    request = header_signed("GET", "/b/k", {"Date": "x"})
    assert b"x-amz-date" not in request.header_values
    accept(request)


@pytest.mark.parametrize(
    ("value", "mode"),
    [(mode.value, mode) for mode in PayloadMode if mode is not PayloadMode.HASHED],
)
def test_payload_keywords_are_understood(value: str, mode: PayloadMode) -> None:
    request = AWSRequest("PUT", f"http://{HOST}/b/k", headers={"X-Amz-Content-SHA256": value})
    signer = S3SigV4Auth(SIGNER, "s3", "us-east-1")
    signer.payload = lambda _: value
    signer.add_auth(request)
    assert accept(received(request)).payload.mode is mode


def test_a_presigned_request_may_sign_its_payload_line() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    request = presigned("PUT", "/b/k")
    assert accept(request).payload.mode is PayloadMode.UNSIGNED
    headers = [*request.headers, (b"x-amz-content-sha256", digest.encode())]
    assert refusal(changed(request, headers=headers)).code == "SignatureDoesNotMatch"
    # The AWS SDKs for JavaScript and Go carry the line in the query.
    accept(presigned("PUT", "/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"))


def test_a_request_without_credentials_is_anonymous() -> None:
    request = Request("GET", b"/b/k", b"prefix=a", [(b"host", HOST.encode())], NOW)
    assert parse_credentials(request, REGIONS) is None
    assert anonymous_payload(request).mode is PayloadMode.UNSIGNED


def test_an_anonymous_body_cannot_claim_signed_chunks() -> None:
    headers = [(b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]
    with pytest.raises(S3Error) as caught:
        anonymous_payload(Request("PUT", b"/b/k", b"", headers, NOW))
    assert caught.value.code == "AccessDenied"


@pytest.mark.parametrize("sign", [header_signed, presigned])
@pytest.mark.parametrize("name", ["x-amz-copy-source", "x-amz-acl", "x-amz-meta-a", "content-md5"])
def test_an_unsigned_header_that_matters_is_refused(sign, name: str) -> None:
    request = sign("PUT", "/b/k")
    error = refusal(changed(request, headers=[*request.headers, (name.encode(), b"/b/secret")]))
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert error.message == "There were headers present in the request which were not signed"
    assert error.fields["HeadersNotSigned"] == name


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_host_must_be_signed_and_present(sign) -> None:
    request = sign("GET", "/b/k")
    assert refusal(changed(request, headers=without(request, b"host"))).code == "AccessDenied"


def test_a_signed_host_must_be_one_of_ours_when_a_list_is_given() -> None:
    request = header_signed("GET", "/b/k")
    assert parse_credentials(request, REGIONS, [HOST]) is not None
    assert parse_credentials(request, REGIONS, ["example.com:9000"]) is not None
    assert refusal(request, accepted_hosts=["other.example"]).code == "AccessDenied"


def with_authorization(value: str) -> Request:
    request = header_signed("GET", "/b/k")
    headers = [*without(request, b"authorization"), (b"authorization", value.encode())]
    return changed(request, headers=headers)


GOOD = "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + "0" * 64


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("AWS AKIA:sig", "InvalidRequest"),
        ("Bearer x", "InvalidArgument"),
        ("", "InvalidArgument"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a", "AuthorizationHeaderMalformed"),
        (f"AWS4-HMAC-SHA256 Credential=a/b, {GOOD}", "AuthorizationHeaderMalformed"),
        (
            f"AWS4-HMAC-SHA256 Credential=a/20260524/mars/s3/aws4_request, {GOOD}",
            "AuthorizationHeaderMalformed",
        ),
        (
            f"AWS4-HMAC-SHA256 Credential=a/20260524/us-east-1/ec2/aws4_request, {GOOD}",
            "AuthorizationHeaderMalformed",
        ),
        (
            f"AWS4-HMAC-SHA256 Credential=a/20260524/us-east-1/s3/aws5, {GOOD}",
            "AuthorizationHeaderMalformed",
        ),
        (
            f"AWS4-HMAC-SHA256 Credential=a/20260523/us-east-1/s3/aws4_request, {GOOD}",
            "AuthorizationHeaderMalformed",
        ),
        (
            f"AWS4-HMAC-SHA256 Credential=a/20260524/us-east-1/s3/aws4_request, {GOOD}",
            "SignatureDoesNotMatch",
        ),
    ],
)
def test_malformed_authorization_headers(value: str, code: str) -> None:
    assert refusal(with_authorization(value)).code == code


def with_query(old: bytes, new: bytes) -> Request:
    request = presigned("GET", "/b/k")
    assert old in request.raw_query
    return changed(request, raw_query=request.raw_query.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA512", "AuthorizationQueryParametersError"),
        (b"X-Amz-Expires=600", b"X-Amz-Expires=0", "AuthorizationQueryParametersError"),
        (b"X-Amz-Expires=600", b"X-Amz-Expires=-1", "AuthorizationQueryParametersError"),
        (b"X-Amz-Expires=600", b"X-Amz-Expires=604801", "AuthorizationQueryParametersError"),
        (b"X-Amz-Expires=600", b"X-Amz-Expires=1e2", "AuthorizationQueryParametersError"),
        (b"X-Amz-Expires=600", b"X-Amz-Expires=601", "SignatureDoesNotMatch"),
        (b"X-Amz-Expires=600", b"", "AuthorizationQueryParametersError"),
        (b"X-Amz-Date=2026", b"X-Amz-Date=x026", "AuthorizationQueryParametersError"),
        (b"us-east-1", b"mars", "AuthorizationQueryParametersError"),
        (b"&X-Amz-Expires", b"&X-Amz-Expires=1&X-Amz-Expires", "AuthorizationQueryParametersError"),
        (b"SignedHeaders=host", b"SignedHeaders=a%0Ahost", "AccessDenied"),
    ],
)
def test_malformed_presigned_queries(old: bytes, new: bytes, code: str) -> None:
    assert refusal(with_query(old, new)).code == code


def test_header_and_query_credentials_together_are_refused() -> None:
    request = header_signed("GET", "/b/k")
    query = presigned("GET", "/b/k").raw_query
    error = refusal(changed(request, raw_query=query))
    assert (error.code, error.status) == ("InvalidArgument", 400)


@pytest.mark.parametrize(
    ("shift", "allowed"), [(900, True), (-900, True), (901, False), (-901, False)]
)
def test_the_clock_may_differ_by_15_minutes(shift: int, allowed: bool) -> None:
    request = changed(header_signed("GET", "/b/k"), now=NOW + shift)
    if allowed:
        accept(request)
    else:
        assert refusal(request).code == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("shift", "message"),
    [(600, None), (601, "Request has expired"), (-900, None), (-901, "Request is not yet valid")],
)
def test_a_presigned_url_lives_from_its_date_to_its_expiry(shift: int, message: str | None) -> None:
    request = changed(presigned("GET", "/b/k"), now=NOW + shift)
    if message is None:
        accept(request)
    else:
        error = refusal(request)
        assert (error.code, error.message) == ("AccessDenied", message)


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "InvalidRequest"), (b"x", "InvalidArgument"), (b"g" * 64, "InvalidArgument")],
)
def test_header_authentication_needs_a_payload_hash(value: bytes | None, code: str) -> None:
    request = header_signed("GET", "/b/k")
    headers = without(request, b"x-amz-content-sha256")
    if value is not None:
        headers.append((b"x-amz-content-sha256", value))
    error = refusal(changed(request, headers=headers))
    assert (error.code, error.status) == (code, 400)


def test_the_mismatch_error_explains_without_the_secret() -> None:
    request = header_signed("GET", "/b/k?acl")
    error = refusal(request, "wrong secret")
    assert error.code == "SignatureDoesNotMatch"
    assert error.fields["AWSAccessKeyId"] == "AKIAEXAMPLE"
    assert error.fields["CanonicalRequest"].startswith("GET\n/b/k\nacl=\n")
    assert error.fields["StringToSign"].startswith("AWS4-HMAC-SHA256\n20260524T120000Z\n")
    assert bytes.fromhex(error.fields["StringToSignBytes"]).decode() == error.fields["StringToSign"]
    assert "wrong secret" not in str(error.fields)


def test_no_repr_shows_a_secret() -> None:
    result = accept(header_signed("GET", "/b/k"))
    assert result.signing_key == signing_key(SIGNER.secret_key, result.scope)
    assert result.signature.decode() not in repr(result)
    assert repr(result.signing_key) not in repr(result)


def test_a_changed_secret_is_not_answered_from_the_cache() -> None:
    request = header_signed("GET", "/b/k")
    accept(request)
    assert refusal(request, "rotated").code == "SignatureDoesNotMatch"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_any_changed_byte_of_what_is_signed_is_refused(sign, data: st.DataObject) -> None:
    request = sign("PUT", "/bucket/some%20key?uploadId=u1&partNumber=2", {"x-amz-meta-a": "b"})
    part = data.draw(st.sampled_from(["method", "raw_path", "raw_query", "header"]))
    if part == "method":
        method = data.draw(st.sampled_from(["GET", "DELETE", "POST", "put"]))
        mutated = changed(request, method=method)
    elif part == "header":
        signed = [
            n for n in range(len(request.headers)) if request.headers[n][0] != b"content-length"
        ]
        index = data.draw(st.sampled_from(signed))
        name, value = request.headers[index]
        headers = list(request.headers)
        headers[index] = (name, mutate(data, value))
        mutated = changed(request, headers=headers)
        if mutated.header_values == request.header_values:
            return
    else:
        mutated = changed(request, **{part: mutate(data, getattr(request, part))})
        if same_meaning(mutated, request):
            return
    try:
        credentials = parse_credentials(mutated, REGIONS)
        if credentials is None or credentials.access_key != SIGNER.access_key:
            return  # anonymous, or another key, whose secret would be another
        verify(mutated, credentials, SIGNER.secret_key)
    except S3Error:
        return
    pytest.fail("accepted")


def mutate(data: st.DataObject, value: bytes) -> bytes:
    index = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.integers(0x21, 0x7E).filter(lambda b: b != value[index]))
    return value[:index] + bytes([byte]) + value[index + 1 :]


def same_meaning(one: Request, two: Request) -> bool:
    """Whether two requests differ only in how the same path and parameters are escaped."""
    try:
        pairs = [sorted(p for _, p in r.query_pairs) for r in (one, two)]
    except S3Error:
        return False
    paths = [unquote_to_bytes(r.raw_path) for r in (one, two)]
    return pairs[0] == pairs[1] and paths[0] == paths[1]


HEADER_NAMES = [
    b"authorization",
    b"host",
    b"date",
    b"x-amz-date",
    b"x-amz-content-sha256",
    b"x-amz-meta-a",
    b"content-md5",
]
FRAGMENTS = [
    b"AWS4-HMAC-SHA256 ",
    b"Credential=a/20260524/us-east-1/s3/aws4_request",
    b", SignedHeaders=host",
    b", Signature=",
    b"20260524T120000Z",
    b"UNSIGNED-PAYLOAD",
    b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=",
    b"&X-Amz-Date=20260524T120000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0",
    b"&X-Amz-Credential=a/20260524/us-east-1/s3/aws4_request",
]
noise = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=12)), max_size=6).map(
    b"".join
)


@given(
    path=noise,
    query=noise,
    headers=st.lists(st.tuples(st.sampled_from(HEADER_NAMES), noise), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_s3_errors(
    path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    request = Request("GET", b"/" + path, query, headers, NOW)
    try:
        credentials = parse_credentials(request, REGIONS)
        if credentials is None:
            anonymous_payload(request)
        else:
            verify(request, credentials, "secret")
    except S3Error as error:
        status = error.status
    else:
        assert credentials is None, "noise was accepted as a signature"
        status = 200
    assert status in (200, 400, 403, 501)
