"""Shards and real servers for tests of nodes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import hypercorn.asyncio
import hypercorn.config

from nodes.client import Deadlines, RemoteDrive, open_session
from nodes.format import build_footer, build_header, seal_block
from nodes.protocol import Drive, ShardName
from nodes.server import Registration, build_app

SECRET = b"a secret of the cluster"


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_shard(name: ShardName, payload: bytes, block_bytes: int = 1000) -> list[bytes]:
    """The buffers of a whole shard."""
    buffers = [build_header(name, block_bytes)]
    for number, start in enumerate(range(0, len(payload), block_bytes)):
        block = payload[start : start + block_bytes]
        buffers += [block, seal_block(name, number, block)]
    buffers.append(build_footer(name, b"footer map", len(payload)))
    return buffers


@asynccontextmanager
async def serving(
    drives: Mapping[str, Drive], registration: Registration | None = None
) -> AsyncIterator[str]:
    """A node over drives, as a real server; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 1
        stop = asyncio.Event()
        app = build_app(drives, SECRET, registration)
        server = asyncio.create_task(
            hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()
            await server


@asynccontextmanager
async def remote(
    drive: Drive, registration: Registration | None = None, *, total_seconds: float = 10
) -> AsyncIterator[RemoteDrive]:
    """A drive behind a real server."""
    async with serving({"d1": drive}, registration) as url, open_session() as session:
        deadlines = Deadlines(total=total_seconds)
        yield RemoteDrive(session, url, "d1", SECRET, deadlines=deadlines)
