"""Connections to the members of an etcd cluster, and what their failures mean.

One gRPC channel per endpoint, all calls on one of them, the current one, until it fails; then on
the next. What may be tried again is decided by one question: can the request have been executed?

* A repeatable request (a read, a renewal, anything idempotent) goes to the next endpoint until the
  deadline, and no attempt may use up the time of the endpoints not yet asked.
* A commit is sent again only if it provably was not executed: no connection could be made, or the
  member, without a leader, did not propose it. Every other failure is `Unavailable`, outcome
  unknown.

When nobody listens at any endpoint, calls keep trying for `REFUSED_SECONDS_MAX` (a server that
restarts); from then on each fails after one round, so that an outage costs a fast answer, not a
deadline per request.

Channels belong to the event loop and the process that made them: `Endpoints` is made in a running
loop, after any fork.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aetcd import rpc
from grpc import StatusCode, ssl_channel_credentials

from nodes.tls import ETCD, TlsCredentials, role_name
from s3gw.kv.interface import (
    CommitTooLarge,
    Compacted,
    EngineError,
    LeaseLost,
    NoSpace,
    Unavailable,
)

log = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS = 0.05
REFUSED_SECONDS_MAX = 1.5

HAS_LEADER = (("hasleader", "true"),)
"""A member cut off from its cluster refuses such a request at once and ends such a watch."""

# etcd drops clients that ping more often than every 5 s, or without a call in flight. The least
# reconnect backoff is also gRPC's connect timeout. A local subchannel pool keeps the backoff of
# one engine from delaying another; etcd is never reached through an HTTP proxy.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
)


class AnswerTooLarge(EngineError):
    """The answer is over the receive limit: ask for less."""


class RequestRefused(EngineError):
    """etcd calls the request invalid, a bug of the caller; it was not executed."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a failed call means: the error to raise, whether the request may go to the next
    endpoint although it is not repeatable, and whether it found nobody listening."""

    error: type[EngineError]
    unsent: bool = False
    refused: bool = False


# First match wins. The texts are etcd's (api/v3rpc/rpctypes/error.go) and gRPC core's.
_MEANINGS: tuple[tuple[StatusCode, str, Meaning], ...] = (
    (
        StatusCode.UNAVAILABLE,
        "failed to connect to all addresses",
        Meaning(Unavailable, unsent=True, refused=True),
    ),
    (StatusCode.UNAVAILABLE, "etcdserver: no leader", Meaning(Unavailable, unsent=True)),
    (StatusCode.UNKNOWN, "raft proposal dropped", Meaning(Unavailable, unsent=True)),
    (StatusCode.OUT_OF_RANGE, "required revision", Meaning(Compacted)),
    (StatusCode.NOT_FOUND, "requested lease not found", Meaning(LeaseLost)),
    (StatusCode.RESOURCE_EXHAUSTED, "database space exceeded", Meaning(NoSpace)),
    (StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger", Meaning(AnswerTooLarge)),
    (StatusCode.RESOURCE_EXHAUSTED, "received message larger", Meaning(CommitTooLarge)),
    (StatusCode.INVALID_ARGUMENT, "request is too large", Meaning(CommitTooLarge)),
    (StatusCode.INVALID_ARGUMENT, "too many operations", Meaning(CommitTooLarge)),
    (StatusCode.INVALID_ARGUMENT, "", Meaning(RequestRefused)),
)
_UNKNOWN = Meaning(Unavailable)


def meaning(code: StatusCode, details: str) -> Meaning:
    """What a gRPC status says about the request; `Unavailable` for all that is not in the table."""
    for known, text, found in _MEANINGS:
        if code is known and text in details:
            return found
    return _UNKNOWN


class Endpoint:
    """One member: its channel, and the calls this engine makes."""

    def __init__(self, url: str, receive_bytes_max: int, tls: TlsCredentials | None = None) -> None:
        self.url = url
        self.channel = _channel(url, receive_bytes_max, tls)
        kv, lease = rpc.KVStub(self.channel), rpc.LeaseStub(self.channel)
        maintenance = rpc.MaintenanceStub(self.channel)
        self.range, self.txn, self.compact = kv.Range, kv.Txn, kv.Compact
        self.grant, self.revoke = lease.LeaseGrant, lease.LeaseRevoke
        # The method is a stream both ways. A stream of one request and one answer is, on the
        # wire, a unary call, and that needs neither reader nor writer.
        self.renew = self.channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )
        self.watch = rpc.WatchStub(self.channel).Watch
        self.status, self.alarm = maintenance.Status, maintenance.Alarm
        self.defragment = maintenance.Defragment


def _channel(url: str, receive_bytes_max: int, tls: TlsCredentials | None) -> Any:
    """The one place where channels are made. Raises ValueError for a URL that is not
    `http[s]://HOST:PORT`, or for https without certificates; TlsError."""
    parts = urlsplit(url)
    known = parts.scheme in ("http", "https")
    if not known or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"not an etcd endpoint (http[s]://HOST:PORT): {url}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    options = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", receive_bytes_max))
    target = f"{host}:{parts.port or 2379}"
    if parts.scheme == "http":
        return rpc.insecure_channel(target, options=options)
    if tls is None:
        raise ValueError(f"{url} needs certificates")
    # gRPC checks names, not roles: a node's certificate must not do for etcd.
    named = ("grpc.ssl_target_name_override", role_name(ETCD, parts.hostname))
    ca, key, certificate = tls.pem()
    return rpc.secure_channel(
        target, ssl_channel_credentials(ca, key, certificate), options=(*options, named)
    )


class Endpoints:
    """All members, the current one, and calls with deadline and failover."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        deadline_seconds: float,
        receive_bytes_max: int,
        tls: TlsCredentials | None = None,
    ) -> None:
        if not urls:
            raise ValueError("no etcd endpoint")
        self._receive_bytes_max = receive_bytes_max
        self._tls = tls
        self.all = [Endpoint(url, receive_bytes_max, tls) for url in urls]
        self._retired: list[Endpoint] = []
        self.deadline_seconds = deadline_seconds
        self.closed = False
        # Gateways start at different members, which spreads their load.
        self._current = secrets.randbelow(len(self.all))
        self._refused_since: float | None = None
        self._term = 0
        # How often nobody answered a call, or an answer told of another leader.
        self.disturbances = 0
        self._loop = asyncio.get_running_loop()

    @property
    def current(self) -> Endpoint:
        return self.all[self._current]

    def reconnect(self) -> None:
        """Use the certificates as they are now for what is called from now on: gRPC keeps those a
        channel was made with. Calls and watches in flight end on the old channels, which stay
        open until `close`, since replacing certificates is rare. Raises TlsError."""
        if self._tls is not None and not self.closed:
            fresh = [Endpoint(old.url, self._receive_bytes_max, self._tls) for old in self.all]
            self._retired += self.all
            self.all = fresh

    def leave(self, endpoint: Endpoint) -> None:
        """Go to the next endpoint, unless somebody else already left this one."""
        if len(self.all) > 1 and endpoint is self.current:
            self._current = (self._current + 1) % len(self.all)
            log.warning("etcd: left %s for %s", endpoint.url, self.current.url)

    async def call(
        self,
        method: Callable[[Endpoint], Any],
        request: Any,
        *,
        repeatable: bool,
        deadline_seconds: float | None = None,
    ) -> Any:
        """Send the request to the current endpoint, and on failure to others as the head of this
        module says. Raises `Unavailable` within the deadline, or what else the table says."""
        end = self._loop.time() + (deadline_seconds or self.deadline_seconds)
        failures = 0
        while True:
            if self.closed:
                raise Unavailable("the engine is closed")
            endpoint = self.current
            seconds = end - self._loop.time()
            if repeatable:
                seconds /= max(1, len(self.all) - failures)
            try:
                answer = await method(endpoint)(request, timeout=seconds, metadata=HAS_LEADER)
            except rpc.AioRpcError as error:
                failures += 1
                await self._after_failure(endpoint, error, repeatable, failures, end)
            except asyncio.CancelledError:
                self.raise_if_closed()
                raise
            else:
                self._refused_since = None
                self._note_term(answer.header.raft_term)
                return answer

    async def _after_failure(
        self, endpoint: Endpoint, error: Any, repeatable: bool, failures: int, end: float
    ) -> None:
        """Return when the request may be sent again, now; else raise what the failure means."""
        found = meaning(error.code(), error.details() or "")
        failed = found.error(f"etcd {endpoint.url}: {error.code().name}: {error.details()}")
        if found.error is not Unavailable:
            self._refused_since = None
            raise failed from error
        self.leave(endpoint)
        now = self._loop.time()
        if not found.refused:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        if not (repeatable or found.unsent):
            self.disturbances += 1
            raise failed from error
        if failures % len(self.all) == 0:
            # No member answers.
            self.disturbances += failures == len(self.all)
            if self._refused_since is not None and now - self._refused_since > REFUSED_SECONDS_MAX:
                raise failed from error
            await asyncio.sleep(min(RETRY_PAUSE_SECONDS, max(0.0, end - now)))
        if self._loop.time() >= end:
            raise failed from error

    def _note_term(self, term: int) -> None:
        """Every answer names the term of the member that gave it. A member that lags behind names
        an older one."""
        if term > self._term:
            self.disturbances += self._term > 0
            self._term = term

    def raise_if_closed(self) -> None:
        """`close` cancels the calls in flight, and gRPC cancels the task that waits for one: say
        `Unavailable` to a caller that nobody cancelled."""
        task = asyncio.current_task()
        if self.closed and task is not None and not task.cancelling():
            raise Unavailable("the engine was closed") from None

    async def close(self) -> None:
        """Cancel what is in flight and close all channels."""
        self.closed = True
        for endpoint in (*self._retired, *self.all):
            await endpoint.channel.close()
