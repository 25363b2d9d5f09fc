"""One client connection: cuts what arrives into requests, runs them in turn, keeps deadlines.

    HEAD ──head parsed──▶ BODY ──body complete──▶ ANSWER ──answered──▶ HEAD
      └─ bad request, or answered and closing ──▶ LINGER ──▶ CLOSED

It is one task (`run`) and one object that the event loop calls with what it received. In ANSWER,
bytes that arrive are the next request's (pipelining): kept, bounded, served in turn. Once a
response has started, the rest of the request's body is read and discarded, within bounds; then
the connection is used again, or closed (LINGER) in the order that lets the client see the answer
rather than a reset: our side is shut, what still arrives is discarded, and only then it closes.
"""

from __future__ import annotations

import asyncio
import enum
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from nodes.http_exchange import ClientDisconnected, Exchange, Signal
from nodes.http_head import (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    ChunkedBody,
    ProtocolError,
    RequestHead,
    find_head,
    parse_head,
    status_line,
)

if TYPE_CHECKING:
    from nodes.http_guard import Guard

# How much asyncio's transport asks the kernel for (its own default is 256 KiB). glibc maps and
# unmaps an allocation above 128 KiB for each call, so that heads get a smaller one. Bodies come
# straight into the bytes that the application gets: receiving into a shared buffer and copying
# cost 1.7 times the CPU, and more than 256 KiB gained nothing.
HEAD_RECEIVE_BYTES: Final = 64 * 1024
BODY_RECEIVE_BYTES: Final = 256 * 1024
PIPELINED_BYTES_MAX: Final = 64 * 1024
# A peer that moves less than this per idle period counts as stalled.
PROGRESS_BYTES_MIN: Final = 4 * 1024
# TLS cannot shut our side alone: a client that was answered and may still send is closed as soon as
# it has been silent for so long.
TLS_LINGER_SECONDS: Final = 1.0
# asyncio hands what it has encrypted to the transport below until that one is full, and does not
# count it any more. So whoever writes is to wait as soon as the one below takes no more.
TLS_HIGH_WATER_BYTES: Final = 1
# How long a connection that has not sent its first request may still do so at shutdown.
FIRST_REQUEST_GRACE_SECONDS: Final = 1.0
NEVER: Final = math.inf
Refusal = Callable[[ProtocolError], tuple[bytes, bytes]]


def plain_refusal(error: ProtocolError) -> tuple[bytes, bytes]:
    """Header lines and body of the answer to a broken request."""
    return b"content-type: text/plain\r\n", f"{error.status} {error.reason}\n".encode()


_LINGER_0: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """Bounds of a server. Times in seconds; an idle period of 0 never ends.

    `body_idle_seconds` and `send_idle_seconds` bound a stalled peer: one that moves less than
    `PROGRESS_BYTES_MIN` in such a period, while the server waits for it, is cut off.
    `discard_*` bound what is read of a body that was answered early. `tls` needs no ALPN: it is
    set to http/1.1; a handshake has `head_seconds`. Over `connections_max` a client is told so, or,
    with `tls`, cut off. `refusal` words the answer to a broken request, header lines (each ended by
    CRLF) and body. At shutdown requests in flight have `graceful_seconds`.
    """

    head_bytes_max: int = HEAD_BYTES_MAX
    headers_max: int = HEADERS_MAX
    head_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    discard_bytes_max: int = 16 * 1024 * 1024
    discard_seconds: float = 10.0
    body_idle_seconds: float = 0.0
    send_idle_seconds: float = 60.0
    graceful_seconds: float = 30.0
    connections_max: int = 8192
    tls: ssl.SSLContext | None = None
    refusal: Refusal = plain_refusal


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    LINGER = enum.auto()
    CLOSED = enum.auto()


_HEAD, _BODY, _ANSWER, _LINGER, _CLOSED = _Phase


class Connection(asyncio.Protocol):
    """One client connection: cuts what arrives into requests, and keeps its deadlines."""

    def __init__(self, guard: Guard, transport: asyncio.Transport, state: dict[str, Any]) -> None:
        self.guard = guard
        self.state = state
        self.options = guard.options
        self.transport = transport
        self.loop = guard.loop
        self.client = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        secure: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.scheme = "http" if secure is None else "https"
        self.extensions: dict[str, Any] = (
            {} if secure is None else {"tls_session": _session(secure)}
        )
        cast(Any, transport).max_size = HEAD_RECEIVE_BYTES
        self.phase = _HEAD
        self.deadline = self.loop.time() + self.options.head_seconds
        self.write_paused = False
        self.eof = False
        self.exchange: Exchange | None = None
        self._task = asyncio.current_task()
        self._changed = Signal(self.loop)
        self._writable = Signal(self.loop)
        self._served = 0
        self._pending = b""
        self._scanned = 0
        self._blank_line_skipped = False
        self._chunked: ChunkedBody | None = None
        self._left = 0
        self._discard_left = 0
        self._lingered = 0
        self._linger_until = NEVER
        self._received = 0
        self._received_before = 0
        self._write_deadline = NEVER
        self._unsent_before = 0

    # What the event loop calls.

    def eof_received(self) -> bool:
        self.eof = True
        if self.exchange is None:
            return False
        self.exchange.disconnect()
        if self.phase is _BODY:
            self.exchange.close = True
            self._changed.wake()
        # The client may only have closed its own side: an answer can still reach it. (TLS cannot.)
        return self.phase is not _LINGER and self.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = _CLOSED
        self.deadline = self._write_deadline = NEVER
        if self.exchange is not None:
            self.exchange.end()
        self._writable.wake()
        self._changed.wake()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.options.send_idle_seconds:
            self._unsent_before = self._unsent()
            self._write_deadline = self.loop.time() + self.options.send_idle_seconds

    def resume_writing(self) -> None:
        self.write_paused = False
        self._write_deadline = NEVER
        self._writable.wake()

    # Receiving.

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase is _HEAD:
            self._feed_head(data)
        elif phase is _BODY:
            self._feed_body(data)
        elif phase is _ANSWER:
            self._pending += data
            if len(self._pending) > PIPELINED_BYTES_MAX:
                self.transport.pause_reading()
        elif phase is _LINGER:
            self._discard(len(data))

    def _feed_head(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        else:
            self.deadline = self.loop.time() + self.options.head_seconds
        if data.startswith(b"\r") and not self._blank_line_skipped and len(data) >= 2:
            # One empty line before a request is let pass (RFC 9112, section 2.2).
            self._blank_line_skipped = True
            data = data.removeprefix(b"\r\n")
        try:
            size = 0
            if data and (data != b"\r" or self._blank_line_skipped):
                size = find_head(data, self._scanned, self.options.head_bytes_max)
            if not size:
                self._pending, self._scanned = data, len(data)
                return
            head = parse_head(data[:size], self.options.headers_max)
        except ProtocolError as error:
            self.refuse(error)
            return
        self._begin(head, data[size:])

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        self._pending, self._scanned, self._blank_line_skipped = b"", 0, False
        self._served += 1
        self._received = self._received_before = 0
        self._chunked = ChunkedBody() if head.chunked else None
        self._left = head.content_length
        self.deadline = NEVER
        self.exchange = Exchange(self, head)
        self._changed.wake()
        if self._left or head.chunked:
            self.phase = _BODY
            if head.chunked or self._left > HEAD_RECEIVE_BYTES:
                cast(Any, self.transport).max_size = BODY_RECEIVE_BYTES
            if self.options.body_idle_seconds:
                self.deadline = self.loop.time() + self.options.body_idle_seconds
            if rest:
                self._feed_body(rest)
        else:
            self.phase = _ANSWER
            self.exchange.body_complete = True
            self._pending = rest

    def _feed_body(self, data: bytes) -> None:
        size = len(data)
        self._received += size
        rest = b""
        if self._chunked is not None:
            try:
                data = self._chunked.feed(data)
            except ProtocolError as error:
                self.refuse(error)
                return
            complete, rest = self._chunked.done, self._chunked.rest
        else:
            self._left -= size
            complete = self._left <= 0
            if self._left < 0:
                data, rest = data[: self._left], data[self._left :]
        if complete:
            cast(Any, self.transport).max_size = HEAD_RECEIVE_BYTES
            self.phase = _ANSWER
            self.deadline = NEVER
            self._pending = rest
            self._changed.wake()
        assert self.exchange is not None
        if not self.exchange.started:
            self.exchange.body_arrived(data, complete)
        elif complete:
            self.exchange.body_complete = True
        else:
            self._discard(size)

    def discard_body(self) -> bool:
        """From now on the request's body is read only to get rid of it. False when so much of it
        may come that the connection cannot be used again."""
        self._discard_left = self.options.discard_bytes_max
        self.deadline = self.loop.time() + self.options.discard_seconds
        self.transport.resume_reading()
        return self._chunked is None and self._left <= self.options.discard_bytes_max

    def _discard(self, size: int) -> None:
        self._discard_left -= size
        if self._discard_left < 0:
            self._discarded_enough()

    def _discarded_enough(self) -> None:
        self.deadline = NEVER
        if self.exchange is None or self.exchange.finished:
            self.close()
        else:
            self.exchange.close = True
            self.transport.pause_reading()

    # Sending.

    def _unsent(self) -> int:
        """How many bytes that were written the kernel has not taken yet."""
        unsent = self.transport.get_write_buffer_size()
        if self.scheme == "https":
            # asyncio counts what waits for TLS alone: what is encrypted is in the transport below.
            below: asyncio.WriteTransport = cast(Any, self.transport)._ssl_protocol._transport
            unsent += below.get_write_buffer_size() if below is not None else 0
        return unsent

    async def drained(self) -> None:
        """Wait until the client took enough of what was written."""
        while self.write_paused and self.phase is not _CLOSED:
            await self._writable.wait()
        if self.phase is _CLOSED:
            raise ClientDisconnected("the client has gone")

    def refuse(self, error: ProtocolError) -> None:
        """Answer a broken request, if an answer can still be told from data, and close."""
        exchange = self.exchange
        if exchange is None or not exchange.head_sent:
            lines, text = self.options.refusal(error)
            date = self.guard.date.at(time.time())
            self.transport.write(
                b"%s%s%scontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status_line(error.status), date, lines, len(text), text)
            )
            self._linger()
        else:
            self.close()
        if exchange is not None:
            exchange.end()
        self._changed.wake()

    # The requests in turn.

    async def run(self) -> None:
        while self.phase is not _CLOSED:
            exchange = self.exchange
            if exchange is None or self.phase is _LINGER:
                await self._changed.wait()
                continue
            await exchange.run()
            await self._finish(exchange)

    async def _finish(self, exchange: Exchange) -> None:
        """After the application has returned: the next request, or the end of the connection."""
        while self.phase is _BODY and not exchange.close:
            await self._changed.wait()
        if self.phase is _CLOSED or self.phase is _LINGER:
            return
        if exchange.close or self.guard.draining:
            self._linger()
            return
        if self.write_paused:
            try:
                await self.drained()
            except ClientDisconnected:
                return
        self.exchange = None
        self.phase = _HEAD
        self.deadline = self.loop.time() + self.options.keep_alive_seconds
        pending, self._pending = self._pending, b""
        if pending:
            self.transport.resume_reading()
            self.data_received(pending)
        if self.eof and self.exchange is None:
            self.close()

    def _linger(self) -> None:
        """Close so that the client sees the answer: see the head of this module."""
        body_left = self.phase is _BODY or self.phase is _HEAD or bool(self._pending)
        if self.eof or not body_left:
            self.close()
            return
        self.phase = _LINGER
        self.deadline = self._linger_until = self.loop.time() + self.options.discard_seconds
        self._discard_left = self._lingered = self.options.discard_bytes_max
        self._pending = b""
        self.transport.resume_reading()
        if self.scheme == "https":
            self.deadline = min(self.deadline, self.loop.time() + TLS_LINGER_SECONDS)
        elif self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:
                self.transport.abort()  # The client was faster.

    def close(self) -> None:
        """Close once what was written is sent, or within `discard_seconds`."""
        self.phase = _LINGER
        self.deadline = self.loop.time() + self.options.discard_seconds
        if not self.transport.is_closing():  # asyncio's TLS transport falls apart the second time
            self.transport.close()
        self._leave()

    def _leave(self) -> None:
        """Over TLS, do not wait until the client, too, says that it ends: one that keeps an idle
        connection in a pool does not look."""
        if self.scheme == "https" and self.phase is not _CLOSED and not self._unsent():
            self.transport.abort()

    def reset(self) -> None:
        """Close at once, with a reset, so that nothing unsent lingers in the kernel and the client
        cannot take what it has for the whole."""
        if self.phase is _CLOSED:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # else it is lost already: over TLS we are told of that a moment later
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.transport.abort()

    def abort(self) -> None:
        """End it now, if it has not ended: asyncio's transport fails at a second end."""
        if self.phase is not _CLOSED:
            self.transport.abort()

    def kill(self) -> None:
        self.reset()
        if self._task is not None:
            self._task.cancel()

    # Time.

    def sweep(self, now: float) -> None:
        if self._write_deadline <= now:
            unsent = self._unsent()
            if self._unsent_before - unsent < PROGRESS_BYTES_MIN:
                self.reset()
                return
            self._unsent_before = unsent
            self._write_deadline = now + self.options.send_idle_seconds
        if self.phase is _LINGER and self.transport.is_closing():
            self._leave()
        if self.deadline <= now:
            self._expire(now)

    def _expire(self, now: float) -> None:
        self.deadline = NEVER
        if self.phase is _HEAD and self._pending:
            self.refuse(ProtocolError(408, "the request head took too long"))
        elif self.phase is _HEAD:
            self.close()
        elif self.phase is _LINGER:
            if self.transport.is_closing():
                self.transport.abort()
            elif self._discard_left < self._lingered and now < self._linger_until:
                self._lingered = self._discard_left
                self.deadline = min(self._linger_until, now + TLS_LINGER_SECONDS)
            else:
                self.close()
        elif self.exchange is not None and self.exchange.started:
            self._discarded_enough()
        elif self.phase is _BODY and self.exchange is not None:
            moved = self._received - self._received_before
            self._received_before = self._received
            if moved < PROGRESS_BYTES_MIN and self.exchange.awaits_body:
                self.refuse(ProtocolError(408, "the request body stalled"))
            else:
                self.deadline = now + self.options.body_idle_seconds

    def drain(self) -> None:
        """Shutdown has begun: close when idle."""
        if self.phase is _HEAD and not self._pending:
            if self._served:
                self.close()
            else:
                self.deadline = min(self.deadline, self.loop.time() + FIRST_REQUEST_GRACE_SECONDS)


def _session(secure: ssl.SSLObject) -> dict[str, str]:
    """What was agreed on, by OpenSSL's names: `TLSv1.3` and `TLS_AES_256_GCM_SHA384`. (ASGI's own
    extension `tls` has numbers, which nobody reads.)"""
    cipher = secure.cipher()
    return {"version": secure.version() or "", "cipher": cipher[0] if cipher else ""}


def _address(name: Any) -> tuple[str, int] | None:
    """ASGI's (host, port) of a socket name; None for a socket without one."""
    return (name[0], name[1]) if isinstance(name, tuple) and len(name) >= 2 else None
