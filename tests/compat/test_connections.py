"""What happens on one connection: Expect: 100-continue, keep-alive, early refusals."""

import hashlib
import socket

import pytest

BODY = b"x" * 100_000
TIMEOUT_SECONDS = 20


class Wire:
    """One raw connection: exact bytes out, one reply at a time in."""

    def __init__(self, http):
        self._socket = socket.create_connection((http.host, http.port), timeout=TIMEOUT_SECONDS)
        self._file = self._socket.makefile("rb")

    def close(self):
        self._file.close()
        self._socket.close()

    def send(self, data):
        self._socket.sendall(data)

    def head(self):
        """(status line, headers) of the next reply; ("", {}) when the connection was closed."""
        try:
            status = self._file.readline().decode().rstrip("\r\n")
            headers = {}
            while line := self._file.readline().strip().decode():
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
        except ConnectionResetError:
            return "", {}
        return status, headers

    def body(self, headers):
        return self._file.read(int(headers.get("content-length", "0")))


@pytest.fixture
def wire(http):
    connection = Wire(http)
    yield connection
    connection.close()


def head_of(http, method, path, length=None, **headers):
    given = {"content-length": str(length)} if length is not None else {}
    signed, _ = http.signed_headers(method, path, "", {**given, **headers})
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def test_a_put_with_expect_gets_its_100_before_the_body_and_then_its_200(http, wire, bucket):
    wire.send(head_of(http, "PUT", f"/{bucket}/k", len(BODY), expect="100-continue"))
    status, headers = wire.head()
    assert (status, headers) == ("HTTP/1.1 100 Continue", {})
    wire.send(BODY)
    status, headers = wire.head()
    assert status == "HTTP/1.1 200 OK"
    assert headers["etag"] == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_a_client_that_does_not_wait_for_its_100_is_served(http, wire, bucket):
    wire.send(head_of(http, "PUT", f"/{bucket}/k", len(BODY), expect="100-continue") + BODY)
    status, _ = wire.head()
    if status == "HTTP/1.1 100 Continue":
        status, _ = wire.head()
    assert status == "HTTP/1.1 200 OK"
    wire.send(head_of(http, "HEAD", f"/{bucket}/k"))
    assert wire.head()[0] == "HTTP/1.1 200 OK"


def test_a_refusal_comes_instead_of_the_100_and_closes(http, wire, missing_bucket):
    wire.send(head_of(http, "PUT", f"/{missing_bucket}/k", len(BODY), expect="100-continue"))
    status, headers = wire.head()
    assert status == "HTTP/1.1 404 Not Found"
    assert b"<Code>NoSuchBucket</Code>" in wire.body(headers)
    assert headers["connection"].lower() == "close"
    assert wire.head()[0] == ""


def test_an_empty_body_gets_its_100_too_or_the_connection_closes(http, wire, bucket):
    """Of a final reply without a 100, botocore before 1.44 (and with it aws cli) remembers the
    status line, and misreads the next reply on that connection until it times out after 60 s."""
    wire.send(head_of(http, "PUT", f"/{bucket}/k", 0, expect="100-continue"))
    status, headers = wire.head()
    if status == "HTTP/1.1 100 Continue":
        assert wire.head()[0] == "HTTP/1.1 200 OK"
    else:
        assert (status, headers.get("connection", "").lower()) == ("HTTP/1.1 200 OK", "close")


def test_an_early_refusal_never_takes_the_body_for_the_next_request(http, wire, missing_bucket):
    smuggled = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2000
    wire.send(head_of(http, "PUT", f"/{missing_bucket}/k", len(smuggled)) + smuggled)
    status, headers = wire.head()
    assert status == "HTTP/1.1 404 Not Found"
    wire.body(headers)
    wire.send(head_of(http, "GET", f"/{missing_bucket}"))
    status, _ = wire.head()
    assert status in ("HTTP/1.1 404 Not Found", "")


def test_a_connection_serves_many_requests(http, wire, bucket):
    for number in range(20):
        body = f"body {number}".encode()
        wire.send(head_of(http, "PUT", f"/{bucket}/k", len(body)) + body)
        status, headers = wire.head()
        assert status == "HTTP/1.1 200 OK"
        wire.body(headers)
        wire.send(head_of(http, "GET", f"/{bucket}/k"))
        status, headers = wire.head()
        assert (status, wire.body(headers)) == ("HTTP/1.1 200 OK", body)
        wire.send(head_of(http, "GET", f"/{bucket}/missing"))
        status, headers = wire.head()
        assert status == "HTTP/1.1 404 Not Found"
        wire.body(headers)


def test_requests_may_be_pipelined(http, wire, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"hello")
    wire.send(head_of(http, "GET", f"/{bucket}/k") * 3)
    for _ in range(3):
        status, headers = wire.head()
        assert (status, wire.body(headers)) == ("HTTP/1.1 200 OK", b"hello")


def test_every_status_line_has_its_reason(http, bucket, missing_bucket):
    reasons = {
        http.request("GET", f"/{bucket}").reason,
        http.request("GET", f"/{missing_bucket}").reason,
        http.send("GET", f"/{bucket}").reason,
        http.request("DELETE", f"/{bucket}/k").reason,
    }
    assert reasons == {"OK", "Not Found", "Forbidden", "No Content"}


def test_a_client_that_goes_away_in_the_middle_leaves_no_object(http, bucket):
    for sent in (0, 1, 1000, len(BODY) - 1):
        connection = Wire(http)
        connection.send(head_of(http, "PUT", f"/{bucket}/k", len(BODY)) + BODY[:sent])
        connection.close()
    assert http.request("HEAD", f"/{bucket}/k").status == 404
    assert b"<KeyCount>0</KeyCount>" in http.request("GET", f"/{bucket}", "list-type=2").body


@pytest.mark.parametrize(
    "lines",
    [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: -5\r\n",
        "content-length: +5\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "x-folded: a\r\n b\r\n",
    ],
    ids=["both", "two lengths", "negative", "plus", "identity", "folded"],
)
def test_an_ambiguous_length_is_400_and_closes(http, wire, bucket, lines):
    signed, _ = http.signed_headers("PUT", f"/{bucket}/k")
    heads = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    wire.send(f"PUT /{bucket}/k HTTP/1.1\r\n{heads}{lines}\r\nhello".encode())
    status, headers = wire.head()
    assert status == "HTTP/1.1 400 Bad Request"
    wire.body(headers)
    wire.send(head_of(http, "HEAD", f"/{bucket}"))
    assert wire.head()[0] == ""


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", b"400", b"BadRequest"),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
            *(b"431", b"RequestHeaderSectionTooLarge"),
        ),
    ],
)
def test_broken_http_is_answered_with_an_s3_error_too(http, request_bytes, status, code):
    with socket.create_connection((http.host, http.port), timeout=TIMEOUT_SECONDS) as wire:
        wire.sendall(request_bytes)
        reply = b"".join(iter(lambda: wire.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 " + status)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"x-amz-request-id: " in head
    assert b"x-amz-id-2: " in head
    assert b"connection: close" in head
    assert b"<Code>" + code + b"</Code>" in body
