"""A server in the test's own event loop, raw connections to it, and applications to serve."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nodes.http_guard import GuardOptions, bind, serve

HOST = b"Host: test\r\n"
LIMIT = 20.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers what it was asked, as JSON, after it has read the whole body."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    described = {
        "method": scope["method"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "body": body.decode("latin-1"),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
    }
    data = json.dumps(described).encode()
    length = (b"content-length", b"%d" % len(data))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": data})


async def forbid(scope: Any, receive: Any, send: Any) -> None:
    """Answers 403 without a look at the body."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    headers = [(b"content-length", b"6"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"denied"})


@dataclass
class Serving:
    port: int
    shutdown: asyncio.Event
    task: asyncio.Task[None]
    client_bytes: int = 0
    opened: list[Raw] = field(default_factory=list)

    async def connect(self, **options: Any) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.opened.append(Raw(reader, writer))
        return self.opened[-1]

    async def ask(self, request: bytes) -> bytes:
        """Everything the server sends for `request`, until it closes the connection."""
        raw = await self.connect()
        raw.send(request)
        answer = await raw.rest()
        await raw.close()
        return answer


@dataclass
class Raw:
    """A client connection in bytes. Reads fail after `LIMIT` seconds."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readuntil(separator)

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """What comes until the server's end of stream; a reset is an error here."""
        async with asyncio.timeout(LIMIT):
            return await self.reader.read()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One response that has a Content-Length: status, headers, body."""
        status, headers = await self.head()
        return status, headers, await self.exactly(int(headers.get("content-length", "0")))

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split(" ")[1]), {name.lower(): v for name, v in headers.items()}

    def socket(self) -> socket.socket:
        return self.writer.get_extra_info("socket")  # type: ignore[no-any-return]

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(LIMIT):
                await self.writer.wait_closed()
        except ConnectionError:
            # Some tests provoke the reset that is reported here.
            self.writer.transport.abort()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Serving]:
    """`app` behind the guard on a port of its own; stopped at the end."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    shutdown = asyncio.Event()
    options.setdefault("graceful_seconds", 2.0)
    task = asyncio.create_task(serve(app, [listener], GuardOptions(**options), shutdown))
    server = Serving(port, shutdown, task)
    try:
        yield server
    finally:
        for raw in server.opened:
            await raw.close()
        shutdown.set()
        async with asyncio.timeout(LIMIT):
            await task
