"""One HTTP request and its response, as an ASGI application sees them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from nodes.http_head import (
    CONTINUE,
    ProtocolError,
    RequestHead,
    ResponseFraming,
    status_line,
    write_fields,
)

if TYPE_CHECKING:
    from nodes.http_connection import Connection

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]

LOG = logging.getLogger("nodes.http_guard")

READ_AHEAD_BYTES: Final = 512 * 1024
# A head and a body up to this are sent in one system call, at the price of a copy.
JOINED_WRITE_BYTES_MAX: Final = 64 * 1024


class ClientDisconnected(OSError):
    """Raised by `send` when the client has gone (ASGI 2.4)."""


class Signal:
    """Wakes the one coroutine that waits for it."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._future is not None:
            raise RuntimeError("another task of this request is already waiting here")
        self._future = self._loop.create_future()
        try:
            await self._future
        finally:
            self._future = None

    @property
    def awaited(self) -> bool:
        return self._future is not None

    def wake(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)


class Exchange:
    """One request and its response. Its `receive` and `send` are dead once it is over, so that a
    task left behind by the application cannot touch the next request."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_continue",
        "_delivered",
        "_framing",
        "_gone",
        "_head",
        "_left",
        "_over",
        "_queue",
        "_queued",
        "_readable",
        "_status",
        "_until_close",
        "body_complete",
        "close",
        "finished",
        "head_sent",
        "started",
    )

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._readable = Signal(connection.loop)
        self._continue = head.expects_continue
        self._delivered = False
        self._gone = False
        self._status = 0
        self._framing: ResponseFraming | None = None
        self._chunked = False
        self._until_close = False
        self._over = False
        self._left = 0
        self.body_complete = False
        self.started = False
        self.head_sent = False
        self.finished = False
        self.close = not head.keep_alive

    def _scope(self) -> Message:
        head, connection = self._head, self._connection
        path, _, query = head.target.partition(b"?")
        text = path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "method": head.method,
            "scheme": connection.scheme,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server,
            "state": connection.state.copy(),
            "extensions": connection.extensions,
        }

    async def run(self) -> None:
        """Call the application, and end the response in order if it does not."""
        try:
            await self._connection.guard.app(self._scope(), self.receive, self.send)
        except ClientDisconnected:
            LOG.debug("the client %s went away", self._connection.client)
        except Exception:
            LOG.exception("the application failed on %s %r", self._head.method, self._head.target)
        if not self.finished and not self._over:
            if not self.head_sent:
                self._connection.refuse(ProtocolError(500, "internal error"))
            elif self._until_close:
                # Only the end of the connection would have ended this response: make it a reset.
                self._connection.reset()
            else:
                self._connection.close()
        self.end()

    # The request's body.

    def body_arrived(self, data: bytes, complete: bool) -> None:
        self.body_complete = complete
        if data:
            self._continue = False
            self._queue.append(data)
            self._queued += len(data)
            if self._queued >= READ_AHEAD_BYTES and not complete:
                self._connection.transport.pause_reading()
        if data or complete:
            self._readable.wake()

    def disconnect(self) -> None:
        """The client sends no more. It may still read an answer."""
        self._gone = True
        self._readable.wake()

    def end(self) -> None:
        """Nothing can be received or sent any more."""
        self._over = True
        self.disconnect()

    @property
    def awaits_body(self) -> bool:
        """Whether the application waits for more of the request's body."""
        return self._readable.awaited

    async def receive(self) -> Message:
        while True:
            if self.finished or self._over or (self._gone and not self.body_complete):
                return {"type": "http.disconnect"}
            if self._queue and not self.started:
                data = self._queue.popleft()
                self._queued -= len(data)
                if not self.body_complete and self._queued < READ_AHEAD_BYTES:
                    self._connection.transport.resume_reading()
                self._delivered = self.body_complete and not self._queue
                return {"type": "http.request", "body": data, "more_body": not self._delivered}
            if self.body_complete and not self._delivered and not self.started:
                self._delivered = True
                self._invite()
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._gone:
                return {"type": "http.disconnect"}
            if not self.started:
                self._invite()
            await self._readable.wait()

    def _invite(self) -> None:
        """Send 100 if the client waits for it, also before an empty body: of a final answer
        without a 100, botocore before 1.44 misreads the next answer on the connection."""
        if self._continue:
            self._continue = False
            self._connection.transport.write(CONTINUE)

    # The response.

    async def send(self, message: Message) -> None:
        connection = self._connection
        if self.finished:
            raise RuntimeError("the response is complete")
        if self._over:
            raise ClientDisconnected("the client has gone")
        kind = message["type"]
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
            if connection.write_paused:
                await connection.drained()
        elif kind == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind}")

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self.started:
            raise RuntimeError("the response has already started")
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is not the status of a response")
        self._framing = framing = write_fields(headers, lengthless=status == 204)
        self._status = status
        self.started = True
        connection = self._connection
        self.close = self.close or framing.close or connection.guard.draining
        # A client still waiting for 100 sends the body or not: nobody can know.
        self.close = self.close or self._continue
        if not self.body_complete:
            self.close = self.close or connection.eof
            self._queue.clear()
            if not connection.discard_body():
                self.close = True

    def _send_body(self, body: bytes, more: bool) -> None:
        head = b""
        if self._framing is not None:
            head = self._response_head(self._framing, body, more)
            self._framing = None
        elif not self.started:
            raise RuntimeError("the response has not started")
        if self._left < 0:  # No body: HEAD, 204, 304.
            body = b""
        elif self._chunked:
            size = len(body)
            head += b"%x\r\n" % size if size else b""
            tail = (b"\r\n" if size else b"") + (b"" if more else b"0\r\n\r\n")
            self._write(head, body, tail)
            self._finish(more)
            return
        elif self._until_close:
            pass
        elif self._left < len(body):
            raise RuntimeError("the response is longer than its Content-Length")
        else:
            self._left -= len(body)
            if not more and self._left:
                self._write(head, body, b"")
                raise RuntimeError("the response is shorter than its Content-Length")
        self._write(head, body, b"")
        self._finish(more)

    def _finish(self, more: bool) -> None:
        if not more:
            self.finished = True
            self._readable.wake()

    def _write(self, head: bytes, body: bytes, tail: bytes) -> None:
        self.head_sent = True
        write = self._connection.transport.write
        if len(body) <= JOINED_WRITE_BYTES_MAX:
            data = b"".join((head, body, tail)) if head or tail else body
            if data:
                write(data)
            return
        pieces: tuple[bytes | memoryview, ...] = (head, body, tail)
        if self._connection.scheme == "https":
            # Its end waits in TLS as long as the beginning lies in the transport below, of which
            # flow control over TLS knows nothing (`TLS_HIGH_WATER_BYTES`).
            pieces = (head, memoryview(body)[:-1], memoryview(body)[-1:], tail)
        for piece in pieces:
            if piece:
                write(piece)

    def _response_head(self, framing: ResponseFraming, body: bytes, more: bool) -> bytes:
        """The head, once the first body message shows how the response will end."""
        parts = [status_line(self._status), framing.block]
        if not framing.dated:
            parts.append(self._connection.guard.date.at(time.time()))
        length = framing.content_length
        bodiless = self._head.method == "HEAD" or self._status in (204, 304)
        if (
            length is None
            and not more
            and self._status not in (204, 304)
            and (body or not bodiless)
        ):
            length = len(body)
            parts.append(b"content-length: %d\r\n" % length)
        if bodiless:
            self._left = -1
        elif length is not None:
            self._left = length
        elif self._head.version == "1.1":
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        else:
            self.close = True
            self._until_close = True
        if self.close:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)
