"""What is said of a signature that does not match: the part that was changed on the way."""

import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth.canonical import Request
from s3gw.auth.mismatch import TRIED_MAX, explain
from s3gw.auth.signer import sign
from s3gw.auth.sigv4 import parse_credentials, verify
from s3gw.errors import SignatureDoesNotMatch
from s3gw.limits import REQUEST_HEAD_BYTES_MAX

NOW = 1779624000.0
HOST = "s3.example.com"
SECRET = "a secret key"
REGION = "us-east-1"


def signed(
    method: str = "GET",
    target: str = "/b/k",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Request:
    """A request as a client signs it; the path is taken as it is."""
    found = sign(
        method,
        target.encode(),
        {"host": HOST, **(headers or {})},
        body,
        access_key="AK",
        secret_key=SECRET,
        region=REGION,
        now=NOW,
    )
    return request(method, target, found)


def request(method: str, target: str, headers: Mapping[str, str]) -> Request:
    path, _, query = target.partition("?")
    pairs = [(name.encode(), text.encode()) for name, text in headers.items()]
    return Request(method, path.encode(), query.encode(), pairs, NOW)


def with_headers(found: Request, **headers: str | None) -> Request:
    changes = {name.replace("_", "-").encode(): text for name, text in headers.items()}
    kept = [pair for pair in found.headers if pair[0] not in changes]
    added = [(name, text.encode()) for name, text in changes.items() if text is not None]
    return Request(found.method, found.raw_path, found.raw_query, kept + added, NOW)


def at(found: Request, target: str, method: str | None = None) -> Request:
    path, _, query = target.partition("?")
    return Request(method or found.method, path.encode(), query.encode(), found.headers, NOW)


def explained(came: Request, secret: str = SECRET) -> str:
    credentials = parse_credentials(came, (REGION,))
    assert credentials is not None
    with pytest.raises(SignatureDoesNotMatch):
        verify(came, credentials, secret)
    return explain(came, credentials, secret)


PLAIN = signed()
TYPED = signed("PUT", headers={"content-type": "text/plain"}, body=b"x")

# what came, and what is said about it
CASES = [
    (with_headers(PLAIN, host="10.0.0.7:9000", x_forwarded_host=HOST), "the header host:"),
    (with_headers(PLAIN, host="10.0.0.7:9000", forwarded=f"for=1;host={HOST}"), f"'{HOST}'"),
    (with_headers(PLAIN, host=f"{HOST}:443"), f"what came is '{HOST}:443'"),
    (with_headers(PLAIN, host=HOST.upper()), "the header host:"),
    (
        with_headers(signed(headers={"host": f"{HOST}:8443"}), host=HOST, x_forwarded_port="8443"),
        HOST,
    ),
    (with_headers(signed(headers={"host": f"b.{HOST}"}), host=HOST), f"'b.{HOST}'"),
    (at(signed(target="/b/a%2520b"), "/b/a%20b"), "encoded twice, or decoded on the way"),
    (at(signed(target="/b/a%20b"), "/b/a%2520b"), "percent-encoded once more on the way"),
    (at(signed(target="/b/a%20b"), "/b/a+b"), "A plus in a path is a plus"),
    (at(signed(target="/b/a%2Bb"), "/b/a%20b"), "A plus in a path was made a space"),
    (at(signed(target="/b/a//c"), "/b/a/c"), "None of the"),
    (at(signed(target="/b/a/c"), "/b/a//c"), "dots and double slashes removed"),
    (at(signed(target="/b/k/"), "/b/k"), "A slash at the end"),
    (at(signed(target="/b/k"), "/b/k/"), "A slash at the end"),
    (at(signed(target="/k"), "/b/k"), "The bucket b was not in the path"),
    (with_headers(at(signed(target="/s3/k"), "/k"), accept="x"), "The bucket was in the path"),
    (at(signed(target="/b?prefix=a%2Bb"), "/b?prefix=a+b"), "A plus in a query is a space"),
    (at(signed(target="/b?prefix=a"), "/b?prefix=a&trace=7"), "trace was added after signing"),
    (at(signed(target="/b?prefix=a%2520b"), "/b?prefix=a%20b"), "encoded once, not twice"),
    (at(signed("GET"), "/b/k", "HEAD"), "A URL is presigned for one method"),
    (with_headers(TYPED, content_type="text/plain; charset=utf-8"), "'text/plain'"),
    (with_headers(TYPED, content_type="application/json"), "'text/plain'"),
    (
        with_headers(signed(headers={"accept-encoding": "identity"}), accept_encoding="gzip, br"),
        "'identity'",
    ),
    (with_headers(signed(headers={"x-amz-meta-a": "1"}), x_amz_meta_a="1,2"), "x-amz-meta-a"),
    (with_headers(PLAIN, x_amz_content_sha256="UNSIGNED-PAYLOAD"), "The payload hash"),
]


@pytest.mark.parametrize(("came", "said"), CASES)
def test_the_part_that_was_changed_is_named(came: Request, said: str) -> None:
    text = explained(came)
    assert said in text
    assert SECRET not in text


def test_another_secret_is_told_from_another_request() -> None:
    text = explained(PLAIN, "another secret")
    assert text.startswith("None of the ")
    assert "another secret" not in text


def test_a_signed_header_that_did_not_arrive_is_named() -> None:
    came = with_headers(signed(headers={"x-custom": "a value"}), x_custom=None)
    assert explained(came).endswith("are not in the request: x-custom.")


def test_secrets_of_the_request_are_not_repeated() -> None:
    token = signed(headers={"x-amz-security-token": "the-token,more"})
    text = explained(with_headers(token, x_amz_security_token="the-token"))
    assert "the-token" not in text
    moved = signed(target="/b/k?X-Amz-Security-Token=a%2Bsecret&x=1")
    text = explained(at(moved, "/b/k?X-Amz-Security-Token=a+secret&x=1"))
    assert "A plus in a query is a space" in text
    assert "secret" not in text.partition("what came")[2]


@given(
    st.binary(max_size=60).map(lambda raw: b"/" + raw.replace(b"%", b"")),
    st.binary(max_size=60).map(lambda raw: raw.replace(b"%", b"")),
    st.dictionaries(
        st.sampled_from(["x-forwarded-host", "forwarded", "accept", "content-type", "x-amz-a"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
    ),
)
def test_whatever_came_is_explained_in_bounded_tries(
    path: bytes, query: bytes, headers: dict[str, str]
) -> None:
    headers = {**headers, "x-amz-date": "20260524T120000Z"}
    names = sorted([*headers, "host", "x-gone"])
    scope = "20260524/us-east-1/s3/aws4_request"
    headers["host"] = HOST
    headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential=AK/{scope}, SignedHeaders={';'.join(names)}, Signature=0"
    )
    pairs = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
    came = Request("GET", path, query, pairs, NOW)
    credentials = parse_credentials(came, (REGION,))
    assert credentials is not None
    text = explain(came, credentials, SECRET)
    assert text.startswith("None of the ")
    assert int(text.split()[3]) <= TRIED_MAX


def test_a_query_as_long_as_a_request_may_be_is_explained_in_time() -> None:
    """As many parameters as fit, each of which is signed otherwise than it came."""
    came = at(signed(), "/b/k?" + "&".join(["a"] * (REQUEST_HEAD_BYTES_MAX // 2)))
    credentials = parse_credentials(came, (REGION,))
    assert credentials is not None
    before = time.process_time()
    assert explain(came, credentials, SECRET).startswith("None of the ")
    assert time.process_time() - before < 1.5
