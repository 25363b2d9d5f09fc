"""How a node gets its certificate: a token that works once, and a server that signs for it.

    s3gw ca token   ──▶  <id>.<secret>.<fingerprint of the CA>
    joiner          ──▶  GET /v1/ca      the CA's certificates, not trusted yet
    joiner checks the fingerprint, and from here on the server's certificate, role and host
    joiner          ──▶  POST /v1/join   {"token": "<id>.<secret>", "request": PEM}
    authority       ──▶  {"certificate": PEM, "ca": PEM, "crl": PEM}

The private key never leaves the joiner, and the secret is sent to nobody but the holder of the CA
that the token names. The authority keeps a token as one file, `tokens/<id>`, with the secret's
SHA-256 (128 random bits need no slower one) and when it expires. A token is spent by renaming that
file, durably, before anything is signed: of two that bring it at once one wins, and a crash in
between costs a token, never two certificates. A node can get a certificate of the role `node` only.

A token may be bound to the hosts of its node. One that is not is good for any host but those that
`s3gw ca issue` has certified in another role: whoever has a stray token must not become, in the
eyes of a client that looks at names alone, etcd or a gateway.

What is wrong with a token is not told: unknown, spent, expired and mistaken look alike. That it is
not for these hosts is told to who has its secret, and does not spend it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from nodes import tls
from s3gw import pki
from s3gw.files import replace_file, sync_directory
from s3gw.pki import Authority, PkiError

TOKEN_SECONDS = 3600
TOKEN_SECONDS_MAX = 30 * 24 * 3600
REQUEST_BYTES_MAX = 16 * 1024
ANSWER_BYTES_MAX = 256 * 1024
ATTEMPTS_PER_MINUTE = 10
ADDRESSES_MAX = 4096
CALL_SECONDS = 15.0
_TOKEN = re.compile(r"([0-9a-f]{16})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")
_SENT = re.compile(r"([0-9a-f]{16})\.([A-Za-z0-9_-]{22})")

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class JoinError(Exception):
    """The node cannot join; one line for the operator."""


class TokenRefused(Exception):
    """Unknown, spent, expired or mistaken: which one is not told."""


class HostsRefused(Exception):
    """The token is right, but not for these hosts."""


class _Kept(msgspec.Struct):
    """A token as the authority keeps it; `expires` in Unix seconds. `hosts`: for no others; empty:
    not bound."""

    secret_sha256: str
    expires: float
    hosts: tuple[str, ...] = ()


class _Joining(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a join."""

    token: str
    request: str


class Tokens:
    """The tokens of an authority, in its directory. Safe between processes."""

    def __init__(self, directory: Path) -> None:
        self._open = directory / "tokens"
        self._spent = directory / "tokens-spent"

    def make(self, fingerprint: str, seconds: float, now: float, hosts: Sequence[str] = ()) -> str:
        """A new token, for nodes at these hosts only, if any are given. Raises PkiError."""
        if hosts:
            pki.check_hosts(hosts)
        if not 1 <= seconds <= TOKEN_SECONDS_MAX:
            raise PkiError(f"a token lasts 1 to {TOKEN_SECONDS_MAX} seconds")
        identifier, secret = secrets.token_hex(8), secrets.token_urlsafe(16)
        kept = msgspec.json.encode(_Kept(_sha256(secret), now + seconds, tuple(hosts)))
        try:
            for directory in (self._open, self._spent):
                directory.mkdir(mode=0o700, exist_ok=True)
            self._forget(now)
            replace_file(self._open / identifier, kept, 0o600)
        except OSError as error:
            raise PkiError(f"{self._open} cannot be written: {error.strerror}") from error
        return f"{identifier}.{secret}.{fingerprint}"

    def spend(
        self, token: str, now: float, hosts: Sequence[str] = (), taken: Sequence[str] = ()
    ) -> None:
        """Use a token up for a node at `hosts`, durably; `taken` are those of them that only a
        token bound to them may have. Raises TokenRefused, HostsRefused, OSError."""
        match = _SENT.fullmatch(token)
        identifier, secret = match.groups() if match else ("", "")
        try:
            kept = msgspec.json.decode((self._open / identifier).read_bytes(), type=_Kept)
        except (FileNotFoundError, IsADirectoryError):
            kept = _Kept(_sha256(""), 0.0)  # compare all the same: the time tells nothing
        except msgspec.MsgspecError as error:
            raise TokenRefused from error
        right = hmac.compare_digest(_sha256(secret), kept.secret_sha256)
        if not match or not right or now >= kept.expires:
            raise TokenRefused
        _check_bound(kept.hosts, hosts, taken)
        try:
            os.rename(self._open / identifier, self._spent / identifier)
        except FileNotFoundError as error:
            raise TokenRefused from error
        sync_directory(self._spent)
        sync_directory(self._open)

    def _forget(self, now: float) -> None:
        """Remove tokens that can no longer be used."""
        for directory in (self._open, self._spent):
            for path in directory.iterdir():
                try:
                    kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
                except (FileNotFoundError, msgspec.MsgspecError):
                    continue  # spent this moment, or not written by us
                if now >= kept.expires:
                    path.unlink(missing_ok=True)


def _check_bound(bound: Sequence[str], hosts: Sequence[str], taken: Sequence[str]) -> None:
    """Raises HostsRefused."""
    allowed = {pki.plain_host(host) for host in bound}
    if bound:
        for host in hosts:
            if pki.plain_host(host) not in allowed:
                raise HostsRefused(f"the token is not for {host}")
    elif taken:
        raise HostsRefused(
            f"{taken[0]} has a certificate in another role: make a token with --host {taken[0]}"
        )


class Attempts:
    """At most `ATTEMPTS_PER_MINUTE` per address, in bounded memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def allow(self, address: str) -> bool:
        """Count an attempt; whether it is within the limit."""
        now = self._clock()
        started, count = self._since.pop(address, (now, 0))
        if now - started >= 60:
            started, count = now, 0
        self._since[address] = (started, count + 1)
        if len(self._since) > ADDRESSES_MAX:
            self._since.popitem(last=False)
        return count < ATTEMPTS_PER_MINUTE


class _Answer(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JoinApp:
    """The ASGI application of `s3gw ca serve`. `clock` gives Unix seconds."""

    def __init__(
        self,
        authority: Authority,
        tokens: Tokens,
        clock: Callable[[], float],
        said: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`said` gets a line for every certificate signed."""
        self._authority = authority
        self._tokens = tokens
        self._clock = clock
        self._said = said
        self._attempts = Attempts(clock)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            status, document = 200, await self._answer(scope, receive)
        except _Answer as error:
            status, document = error.status, {"error": str(error)}
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> dict[str, str]:
        route = (scope["method"], scope["path"])
        if route == ("GET", "/v1/ca"):
            return {"ca": self._authority.bundle.decode()}
        if route == ("GET", "/v1/crl"):
            try:
                return {"crl": self._authority.revocations.decode()}
            except PkiError as error:
                raise _Answer(503, "the list of the revoked cannot be read") from error
        if route != ("POST", "/v1/join"):
            raise _Answer(404, "no such path")
        client = scope.get("client")
        address = client[0] if client else ""
        if not self._attempts.allow(address):
            raise _Answer(429, "too many attempts, wait a minute")
        joining = _parse(await _body(receive))
        try:
            request = pki.Request.parse(joining.request.encode())
        except PkiError as error:
            raise _Answer(400, str(error)) from error
        now = self._clock()
        try:
            taken = self._authority.issued_to_others(tls.NODE, request.hosts)
            await asyncio.to_thread(self._tokens.spend, joining.token, now, request.hosts, taken)
        except HostsRefused as error:
            raise _Answer(403, str(error)) from error
        except PkiError as error:
            raise _Answer(503, "the authority's directory cannot be read") from error
        except TokenRefused as error:
            raise _Answer(403, "the token is not valid") from error
        except OSError as error:
            raise _Answer(503, "the authority's directory cannot be written") from error
        try:
            sign = self._authority.sign_request
            certificate = await asyncio.to_thread(sign, request, tls.NODE, now)
            revocations = self._authority.revocations
        except PkiError as error:
            raise _Answer(503, "the authority's directory cannot be used") from error
        self._said(f"signed a certificate for the node at {', '.join(request.hosts)} ({address})")
        return {
            "certificate": certificate.decode(),
            "ca": self._authority.bundle.decode(),
            "crl": revocations.decode(),
        }


def join(url: str, token: str, hosts: Sequence[str], directory: Path) -> None:
    """Get a certificate for a node that answers at `hosts`, and keep it with its key and the CA in
    `directory`. Blocks. Raises JoinError."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise JoinError("the token is incomplete: give it as `s3gw ca token` printed it")
    identifier, secret, fingerprint = match.groups()
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise JoinError(f"{url} is not https://HOST:PORT: {error}") from error
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise JoinError(f"{url} is not https://HOST:PORT")
    try:
        request = pki.make_request(directory, hosts)
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        offered = _call(unverified, parts.hostname, port, "GET", "/v1/ca", None)["ca"]
        trusted = ssl.create_default_context(
            cadata=pki.pinned(offered.encode(), fingerprint).decode()
        )
        answer = _call(
            trusted,
            *(parts.hostname, port, "POST", "/v1/join"),
            {"token": f"{identifier}.{secret}", "request": request.decode()},
        )
        pki.store_certificate(
            directory,
            answer["certificate"].encode(),
            answer["ca"].encode(),
            answer.get("crl", "").encode(),
        )
    except PkiError as error:
        raise JoinError(f"cannot join at {url}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise JoinError(f"cannot join at {url}: {error}") from error


def _call(
    context: ssl.SSLContext,
    host: str,
    port: int,
    method: str,
    path: str,
    document: dict[str, str] | None,
) -> dict[str, str]:
    """One request; the answer's document. Raises JoinError, OSError, HTTPException."""
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=CALL_SECONDS)
    try:
        connection.connect()
        if context.verify_mode is ssl.CERT_REQUIRED:
            certificate = connection.sock.getpeercert()
            if tls.roles_of(certificate) != {tls.CA}:
                raise JoinError(f"{host}:{port} is not the certificate authority")
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body)
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES_MAX)
    finally:
        connection.close()
    try:
        answer = msgspec.json.decode(data, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise JoinError(f"{host}:{port} does not answer like `s3gw ca serve`") from error
    if response.status != 200:
        raise JoinError(f"{host}:{port}: {answer.get('error', response.status)}")
    if not answer.keys() >= ({"ca"} if document is None else {"ca", "certificate"}):
        raise JoinError(f"{host}:{port} does not answer like `s3gw ca serve`")
    return answer


def _parse(body: bytes) -> _Joining:
    try:
        return msgspec.json.decode(body, type=_Joining)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _Answer(400, "the body must be JSON with token and request") from error


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Answer(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > REQUEST_BYTES_MAX:
            raise _Answer(413, f"the body is larger than {REQUEST_BYTES_MAX} bytes")
        more = message.get("more_body", False)
    return body


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
