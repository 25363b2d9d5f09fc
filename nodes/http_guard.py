"""The HTTP server of every port: Hypercorn, behind a strict and lean HTTP/1.1 of our own.

Hypercorn runs the server (sockets, TLS, lifespan, shutdown: its `worker_serve`). Where it would
start its h11 state machine for an accepted connection, `_GuardedServer` takes the transport over
with `nodes.http_connection.Connection`, for these reasons, each measured on Hypercorn 0.18:

- an answer sent before the request's body was read left two tasks and a socket behind for ever;
- `100 Continue` went out before the application ran, and status lines had no reason phrase;
- h11 accepts folded headers, bare LF, and Content-Length beside Transfer-Encoding;
- HTTP/2 and WebSocket could not be refused; slow heads and stalled peers never ended;
- a small request cost 180 µs of CPU in tasks, queues and events, now 30; receiving a MiB of body
  about 1 ms, now 0.2.

Memory per connection: one read-ahead of body, one head, and the transport's write buffer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, cast

import hypercorn.asyncio.run as hypercorn_run
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config, Sockets

from nodes.http_connection import TLS_HIGH_WATER_BYTES, Connection, GuardOptions
from nodes.http_exchange import ASGIApp, ClientDisconnected
from nodes.http_head import DateLine, ProtocolError
from nodes.http_share import Share

__all__ = ["ASGIApp", "BindError", "ClientDisconnected", "GuardOptions", "bind", "serve"]

LOG = logging.getLogger(__name__)

BACKLOG: Final = 2048
SWEEP_SECONDS_MAX: Final = 1.0
# A peer whose machine or network has gone never says so. After so long without a sign of it, and so
# many probes without an answer, the kernel ends the connection, also one whose body may rest for as
# long as its sender likes.
KEEP_ALIVE: Final = {
    socket.TCP_KEEPIDLE: 60,
    socket.TCP_KEEPINTVL: 15,
    socket.TCP_KEEPCNT: 4,
}


class BindError(Exception):
    """The address cannot be listened on; the message says which and why."""


def bind(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket, whose connections inherit its options. Raises BindError, which names
    the address and the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        number = getattr(error, "errno", None)
        reason = {
            errno.EADDRINUSE: "the port is in use",
            errno.EADDRNOTAVAIL: "this machine has no such address",
            errno.EACCES: "ports below 1024 need privileges",
        }.get(number or 0, str(error))
        raise BindError(f"cannot listen on {host}:{port}: {reason}") from error
    listener.setblocking(False)
    return listener


async def serve(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    options: GuardOptions,
    shutdown: asyncio.Event,
    share: Share | None = None,
) -> None:
    """Serve `app` on listening sockets, which this owns from now on, until `shutdown` is set.
    Then: no new connections, idle ones closed at once, requests in flight finished within
    `graceful_seconds`, the rest aborted. `share` is for processes that have the same sockets.
    Raises what the application's lifespan startup raises."""
    guard = Guard(app, options)
    accepted = _Connections(options.connections_max if options.tls else None, share)
    listeners: list[socket.socket] = [_Listener(sock, accepted) for sock in sockets]
    plain: list[socket.socket] = []
    secure, insecure = (plain, listeners) if options.tls is None else (listeners, plain)

    async def trigger() -> None:
        try:
            await shutdown.wait()
        except asyncio.CancelledError:
            guard.abort()  # Else Hypercorn would wait for what is in flight.
            raise
        guard.drain()

    guard.start()
    try:
        await hypercorn_run.worker_serve(
            ASGIWrapper(cast(Any, app)),
            _GuardConfig(guard),
            sockets=Sockets(secure, insecure, []),
            shutdown_trigger=trigger,
        )
    finally:
        guard.stop()
        for listener in listeners:
            listener.close()


class _Connections:
    """The connections that listeners have accepted and that are not closed yet, in their handshake
    or after it. Above `most` they are cut off. (Without TLS the guard knows all connections, and
    can answer those above its limit.)"""

    def __init__(self, most: int | None, share: Share | None) -> None:
        self._most = most
        self._share = share
        self._count = 0
        self._tell()

    @property
    def full(self) -> bool:
        return self._most is not None and self._count >= self._most

    def leaves(self) -> bool:
        """Whether the next one is another process's."""
        return self._share is not None and self._share.leaves(self._count)

    def add(self, change: int) -> None:
        self._count += change
        self._tell()

    def _tell(self) -> None:
        if self._share is not None:
            self._share.tell(self._count)

    def end(self) -> None:
        """No more are accepted."""
        if self._share is not None:
            self._share.tell(None)
            self._share = None


class _Listener(socket.socket):
    """A listening socket that counts what it accepts, and keeps its backlog. asyncio listens again
    with the number that it also takes as connections to accept in one go, which is 1 here, so that
    processes that share the socket share the connections: whoever is idle accepts the next."""

    def __init__(self, listening: socket.socket, connections: _Connections) -> None:
        super().__init__(fileno=listening.detach())
        self._connections = connections

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        if self._connections.leaves():
            raise BlockingIOError(errno.EAGAIN, "left to another process")
        accepted, address = super().accept()
        if self._connections.full:
            accepted.close()
            raise ConnectionAbortedError("too many connections")  # asyncio expects this one
        return _Accepted(accepted, self._connections), address

    def close(self) -> None:
        super().close()
        self._connections.end()


class _Accepted(socket.socket):
    """A connection that is counted until it is closed."""

    def __init__(self, accepted: socket.socket, connections: _Connections) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._connections: _Connections | None = connections
        connections.add(1)

    def close(self) -> None:
        super().close()
        if self._connections is not None:
            self._connections.add(-1)
            self._connections = None


class _GuardConfig(Config):
    """Hypercorn's configuration, carrying the guard to `_GuardedServer`."""

    backlog = 1
    errorlog = LOG

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        # Hypercorn's own limit must never strike: it cancels its tasks and then fails on them.
        self.graceful_timeout = guard.options.graceful_seconds + 60
        if guard.options.head_seconds > 0:  # a stalled handshake counts as a head that is not sent
            self.ssl_handshake_timeout = guard.options.head_seconds

    @property
    def ssl_enabled(self) -> bool:
        return self.guard.options.tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        context = self.guard.options.tls
        if context is not None:
            context.set_alpn_protocols(["http/1.1"])
        return context


class _GuardedServer(TCPServer):
    """What Hypercorn makes for each accepted connection, and awaits."""

    async def run(self) -> None:
        if isinstance(self.config, _GuardConfig):
            await self.config.guard.handle(self.reader, self.writer, self.state)
        else:
            await super().run()


# The one place where Hypercorn is changed: `worker_serve` finds the class in its module.
vars(hypercorn_run)["TCPServer"] = _GuardedServer


class Guard:
    """What the connections of one server share: the application, the options, the registry that
    deadlines are swept over (no timer per request)."""

    def __init__(self, app: ASGIApp, options: GuardOptions) -> None:
        self.app = app
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.date = DateLine()
        self.draining = False
        self._stopped = False
        periods = (
            options.head_seconds,
            options.keep_alive_seconds,
            options.discard_seconds,
            options.body_idle_seconds,
            options.send_idle_seconds,
        )
        shortest = min((period for period in periods if period > 0), default=SWEEP_SECONDS_MAX)
        self._sweep_seconds = min(SWEEP_SECONDS_MAX, shortest / 4)
        self._timers: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        self._timers = [self.loop.call_later(self._sweep_seconds, self._sweep)]

    def stop(self) -> None:
        self._stopped = True
        for timer in self._timers:
            timer.cancel()

    def _sweep(self) -> None:
        # Above all: one connection that fails does not end the deadlines of the others.
        self._timers[0] = self.loop.call_later(self._sweep_seconds, self._sweep)
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.sweep(now)

    def drain(self) -> None:
        self.draining = True
        for connection in tuple(self.connections):
            connection.drain()
        self._timers.append(self.loop.call_later(self.options.graceful_seconds, self.abort))

    def abort(self) -> None:
        self._stopped = True
        for connection in tuple(self.connections):
            LOG.warning("a request from %s did not end before shutdown", connection.client)
            connection.kill()

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, Any]
    ) -> None:
        """Run an accepted connection to its end. Never raises."""
        transport = cast(asyncio.Transport, writer.transport)
        if transport.is_closing() or self.draining:
            transport.abort()
            return
        connection = Connection(self, transport, state)
        transport.set_protocol(connection)
        if self.options.tls is not None:
            transport.set_write_buffer_limits(TLS_HIGH_WATER_BYTES)
        # Over TLS bytes may have come with the end of the handshake.
        reader.feed_eof()
        early = await reader.read()
        self.connections.add(connection)
        try:
            if len(self.connections) > self.options.connections_max:
                connection.refuse(ProtocolError(503, "too many connections"))
            elif early:
                connection.data_received(early)
            await connection.run()
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        except Exception:
            LOG.exception("the connection of %s failed", connection.client)
        finally:
            self.connections.discard(connection)
            connection.abort()
