"""Sending an answer: the head, and the body whole or streamed.

A streamed body is read ahead of its head: the first window is verified before a status is sent,
so that unreadable data is an honest 503. An error after that closes the connection, and the
client sees a short body.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from nodes.protocol import Buffer
from s3gw.operations.call import Reply

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

NO_BODY = frozenset({204, 304})
UNKNOWN_LENGTH = -1


async def first_window(reply: Reply) -> list[Buffer]:
    """Read the first bytes of a streamed reply, before its head goes out. Raises what reading
    raises."""
    if reply.stream is None:
        return []
    return await anext(reply.stream, [])


async def send_reply(
    reply: Reply,
    first: list[Buffer],
    method: str,
    request_id: str,
    host_id: str,
    send: Send,
) -> None:
    """Send head and body; `first` is what `first_window` read."""
    length = reply.length if reply.stream is not None or method == "HEAD" else len(reply.body)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    headers.append((b"x-amz-request-id", request_id.encode()))
    headers.append((b"x-amz-id-2", host_id.encode()))
    headers.append((b"server", b"s3gw"))
    if reply.status not in NO_BODY and length != UNKNOWN_LENGTH:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.stream is None or method == "HEAD":
        body = b"" if method == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})
        return
    async with contextlib.aclosing(_windows(first, reply.stream)) as windows:
        async for window in windows:
            for buffer in window:
                await send({"type": "http.response.body", "body": buffer, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _windows(
    first: list[Buffer], rest: AsyncIterator[list[Buffer]]
) -> AsyncGenerator[list[Buffer], None]:
    """The window that was read ahead, then the others; closes the reader at the end."""
    try:
        if first:
            yield first
        async for window in rest:
            yield window
    finally:
        closing = getattr(rest, "aclose", None)
        if closing is not None:
            await asyncio.shield(closing())
