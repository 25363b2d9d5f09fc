"""S3 over a plain socket: sign a request, frame its body, send exactly these bytes, read the reply.

An SDK hides what goes over the wire and repairs what it can. Here nothing is added, repaired or
followed, so that the tests can send what no SDK would, and the benchmark's client costs little.
This is a second, independent implementation of Signature Version 4 ("Authenticating Requests:
Using the Authorization Header", "… Using Query Parameters", "… Chunked Upload", S3 API Reference).

Paths and queries are given as they go over the wire, percent-encoded (`quote_key` encodes a key).
"""

import hashlib
import hmac
import http.client
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
TIMEOUT_SECONDS = 30


def quote_key(key: str | bytes) -> str:
    """Percent-encode a key for a path: everything but unreserved characters and `/`."""
    return urllib.parse.quote(key, safe="/~")


def quote_query(parameters: Mapping[str, str]) -> str:
    return urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote, safe="~")


def canonical_query(query: str) -> str:
    """The query sorted by name and value; a parameter without `=` gets an empty value."""
    pairs = (item.partition("=") for item in query.split("&") if item)
    return "&".join(f"{name}={value}" for name, value in sorted((n, v) for n, _, v in pairs))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


@dataclass(frozen=True)
class Signature:
    """A made signature, and what the signatures of chunks continue from."""

    value: str
    scope: str
    timestamp: str
    key: bytes

    def chain(self, kind: str, *hashes: str) -> "Signature":
        """The next signature of a chain; `kind` is AWS4-HMAC-SHA256-PAYLOAD or -TRAILER."""
        text = "\n".join([kind, self.timestamp, self.scope, self.value, *hashes])
        value = _hmac(self.key, text).hex()
        return Signature(value, self.scope, self.timestamp, self.key)


@dataclass(frozen=True)
class Signer:
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "s3"

    def _begin(self, when: datetime | None) -> tuple[str, str, bytes]:
        timestamp = (when or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        day = timestamp[:8]
        key = _hmac(b"AWS4" + self.secret_key.encode(), day)
        for part in (self.region, self.service, "aws4_request"):
            key = _hmac(key, part)
        return timestamp, f"{day}/{self.region}/{self.service}/aws4_request", key

    def _sign(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        begun: tuple[str, str, bytes],
    ) -> Signature:
        timestamp, scope, key = begun
        lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
        canonical = "\n".join(
            [
                *(method, path, canonical_query(query), *lines, ""),
                *(";".join(sorted(headers)), payload_hash),
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", timestamp, scope, digest])
        return Signature(_hmac(key, text).hex(), scope, timestamp, key)

    def headers(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        *,
        when: datetime | None = None,
    ) -> tuple[dict[str, str], Signature]:
        """`headers` (host among them, names in lower case), signed, with Authorization added."""
        begun = self._begin(when)
        signed = {**headers, "x-amz-date": begun[0], "x-amz-content-sha256": payload_hash}
        signature = self._sign(method, path, query, signed, payload_hash, begun)
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{signature.scope}, "
            f"SignedHeaders={';'.join(sorted(signed))}, Signature={signature.value}"
        )
        return {**signed, "authorization": authorization}, signature

    def presigned(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        *,
        expires_seconds: int,
        when: datetime | None = None,
        payload_hash: str = UNSIGNED_PAYLOAD,
    ) -> str:
        """The query of a presigned URL; `headers` (host among them) must be sent with it."""
        begun = self._begin(when)
        extra = quote_query(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{self.access_key}/{begun[1]}",
                "X-Amz-Date": begun[0],
                "X-Amz-Expires": str(expires_seconds),
                "X-Amz-SignedHeaders": ";".join(sorted(headers)),
            }
        )
        full = f"{query}&{extra}" if query else extra
        signature = self._sign(method, path, full, headers, payload_hash, begun)
        return f"{full}&X-Amz-Signature={signature.value}"


@dataclass(frozen=True)
class Reply:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The value of a header; KeyError when the reply has none of that name."""
        value = self.headers[name]
        if value is None:
            raise KeyError(name)
        return str(value)

    @property
    def code(self) -> str:
        """The S3 error code in the body, or an empty string."""
        _, _, rest = self.body.partition(b"<Code>")
        return rest.partition(b"</Code>")[0].decode()


class S3Http:
    """Requests to one endpoint. Each goes over a connection of its own."""

    def __init__(self, endpoint: str, signer: Signer, tls: ssl.SSLContext | None = None) -> None:
        """`tls` is what an endpoint at https is connected to with."""
        parts = urllib.parse.urlsplit(endpoint)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port or 80
        self.netloc = parts.netloc
        self.signer = signer
        self.tls = tls

    def connect(self) -> http.client.HTTPConnection:
        """A connection of one's own."""
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=TIMEOUT_SECONDS, context=self.tls
        )

    def signed_headers(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        payload_hash: str = UNSIGNED_PAYLOAD,
        *,
        when: datetime | None = None,
    ) -> tuple[dict[str, str], Signature]:
        given = {"host": self.netloc, **(headers or {})}
        return self.signer.headers(method, path, query, given, payload_hash, when=when)

    def request(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        payload_hash: str | None = None,
        when: datetime | None = None,
    ) -> Reply:
        """Send a request signed in its headers, by default with the hash of its body."""
        chosen = hashlib.sha256(body).hexdigest() if payload_hash is None else payload_hash
        signed, _ = self.signed_headers(method, path, query, headers, chosen, when=when)
        return self.send(method, path, query, headers=signed, body=body)

    def send(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] = b"",
    ) -> Reply:
        """Send a request as it is, without signing; Host and Content-Length only when missing."""
        given = {"host": self.netloc, **(headers or {})}
        connection = self.connect()
        try:
            target = f"{path}?{query}" if query else path
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            framed = {"content-length", "transfer-encoding"} & {name.lower() for name in given}
            if isinstance(body, bytes) and (body or method in ("PUT", "POST")) and not framed:
                given["content-length"] = str(len(body))
            for name, value in given.items():
                connection.putheader(name, value.encode())
            connection.endheaders()
            for piece in [body] if isinstance(body, bytes) else body:
                try:
                    connection.send(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break  # refused early: the reply is already there
            reply = connection.getresponse()
            return Reply(reply.status, reply.reason, reply.headers, reply.read())
        finally:
            connection.close()


def chunked_signed(
    chunks: Iterable[bytes], seed: Signature, trailers: Mapping[str, str] | None = None
) -> bytes:
    """An aws-chunked body whose chunks, and trailers when given, continue the signature `seed`."""
    framed = bytearray()
    signature = seed
    for chunk in (*chunks, b""):
        digest = hashlib.sha256(chunk).hexdigest()
        signature = signature.chain("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, digest)
        framed += f"{len(chunk):x};chunk-signature={signature.value}\r\n".encode()
        framed += chunk + b"\r\n" if chunk else b""
    if trailers is None:
        return bytes(framed + b"\r\n")
    canonical = "".join(f"{name}:{value}\n" for name, value in trailers.items())
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = signature.chain("AWS4-HMAC-SHA256-TRAILER", digest)
    lines = "".join(f"{name}:{value}\r\n" for name, value in trailers.items())
    return bytes(framed) + f"{lines}x-amz-trailer-signature:{signature.value}\r\n\r\n".encode()


def chunked_unsigned(chunks: Iterable[bytes], trailers: Mapping[str, str]) -> bytes:
    """An aws-chunked body of STREAMING-UNSIGNED-PAYLOAD-TRAILER."""
    framed = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    lines = "".join(f"{name}:{value}\r\n" for name, value in trailers.items())
    return framed + f"0\r\n{lines}\r\n".encode()
