"""Requests between gateways, workers and nodes, signed with the cluster's secret.

    Authorization: S3GW-HMAC-SHA256 ts=<unix seconds>,nonce=<client>-<number>,mac=<hex>

The MAC covers method, raw path with query, time, nonce and content length ("-" when 0 or chunked);
the body is covered by the shard format's own checksums. A time outside of ± 60 s is refused, and so
is a nonce used before. A client (one per process and drive) draws 16 hex digits at its start and
numbers its requests; the node keeps, per client, the highest number and which of the 8,192 before
it were used, as IPsec does (RFC 4303, 3.4.3): memory grows with clients, not with requests. Only
holders of the secret can make entries. Each process of a node keeps its own memory, so a captured
request could be replayed to another process within its 60 s; every request of this protocol is
idempotent. Those checksums are no proof of origin: in the clear, whoever sits on the wire could
hold a PUT back and send another whole shard of the same name and length in its place. Mutual TLS
(nodes.tls) is the answer to both, in addition to the signature; without it a node does not leave
loopback unless told to.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable

SCHEME = "S3GW-HMAC-SHA256"
SECRET_BYTES_MIN = 16
WINDOW_SECONDS = 60
NONCES_OUT_OF_ORDER_MAX = 8192
CLIENTS_MAX = 65_536
HEADER_BYTES_MAX = 160
_HEADER = re.compile(
    rb"S3GW-HMAC-SHA256 ts=([0-9]{1,12}),nonce=([0-9a-f]{16})-([0-9]{1,15}),mac=([0-9a-f]{64})"
)
_WINDOW_MASK = (1 << NONCES_OUT_OF_ORDER_MAX) - 1


class Unauthenticated(Exception):
    """A request without valid credentials; the message may be shown to the caller."""


class Replayed(Unauthenticated):
    """A valid request whose nonce was used before: replayed, or sent again on a new connection by
    an HTTP library."""


def check_secret(secret: bytes) -> bytes:
    """The secret itself. Raises ValueError when it is too short to be one."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"the cluster secret must have at least {SECRET_BYTES_MIN} bytes")
    return secret


def _mac(secret: bytes, message: str) -> str:
    return hmac.digest(secret, message.encode("latin-1"), "sha256").hex()


class Signer:
    """Signs the requests of one client. `clock` gives Unix seconds."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError for a short secret."""
        self._secret = check_secret(secret)
        self._clock = clock
        self._client = secrets.token_hex(8)
        self._number = 0

    def sign(self, method: str, target: str, content_length: int | None) -> str:
        """The Authorization header. `target` is the raw path with its query, as sent."""
        self._number += 1
        at = f"{int(self._clock())}"
        nonce = f"{self._client}-{self._number}"
        length = content_length or "-"
        mac = _mac(self._secret, f"{method}\n{target}\n{at}\n{nonce}\n{length}")
        return f"{SCHEME} ts={at},nonce={nonce},mac={mac}"


class _Client:
    __slots__ = ("highest", "last_at", "used")

    def __init__(self) -> None:
        self.highest = 0
        self.used = 0
        self.last_at = 0.0


class Authenticator:
    """Checks requests. `clock` gives Unix seconds."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError for a short secret."""
        self._secret = check_secret(secret)
        self._clock = clock
        self._clients: dict[bytes, _Client] = {}

    def check(self, method: str, target: str, content_length: bytes | None, header: bytes) -> None:
        """Raises Unauthenticated. `target` and `content_length` are as received, latin-1."""
        match = _HEADER.fullmatch(header) if len(header) <= HEADER_BYTES_MAX else None
        if match is None:
            raise Unauthenticated("credentials are missing or malformed")
        at, client, number, mac = match.groups()
        length = "-" if content_length in (None, b"0") else content_length.decode("latin-1")
        message = (
            f"{method}\n{target}\n{at.decode()}\n{client.decode()}-{number.decode()}\n{length}"
        )
        if not hmac.compare_digest(_mac(self._secret, message), mac.decode()):
            raise Unauthenticated("credentials are wrong")
        now = self._clock()
        if abs(now - int(at)) > WINDOW_SECONDS:
            raise Unauthenticated("the clocks differ by more than a minute")
        self._use(client, int(number), now)

    def _use(self, name: bytes, number: int, now: float) -> None:
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self._make_room(now)
        client.last_at = now
        ahead = number - client.highest
        if ahead > 0:
            shifted = client.used << ahead if ahead < NONCES_OUT_OF_ORDER_MAX else 0
            client.used = shifted & _WINDOW_MASK | 1
            client.highest = number
            return
        bit = 1 << -ahead
        if -ahead >= NONCES_OUT_OF_ORDER_MAX or client.used & bit:
            raise Replayed("the request was seen before")
        client.used |= bit

    def _make_room(self, now: float) -> _Client:
        """A new client's memory. One may be forgotten when no request of it can still be valid."""
        if len(self._clients) >= CLIENTS_MAX:
            for name, client in list(self._clients.items()):
                if abs(now - client.last_at) > 2 * WINDOW_SECONDS:
                    del self._clients[name]
            if len(self._clients) >= CLIENTS_MAX:
                raise Unauthenticated("too many clients")
        return _Client()
