"""Slow answers: white space that keeps a client waiting (S3 does so for Complete and Copy).

If the operation has not ended after a while, status 200 and the XML declaration are sent, then a
space every few seconds, then the result or the error as a document. SDKs know that these
operations may answer an error with status 200.

Nothing is sent while the client still sends: once an answer has begun, the server discards the
rest of the request, and the operation would wait for it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from nodes.protocol import Buffer
from s3gw.operations.call import XML_TYPE, Reply
from s3gw.server.respond import UNKNOWN_LENGTH
from s3gw.wire.xml import DECLARATION

PATIENT_OPERATIONS = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
PATIENCE_SECONDS = 5.0
SPACE_SECONDS = 2.0


class Heard:
    """A request's `receive` that remembers whether the client has said everything: `out` is
    true from the start when the operation has no body to hear."""

    def __init__(
        self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], *, out: bool
    ) -> None:
        self._receive = receive
        self.out = out

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self.out = not message.get("more_body", False)
        return message


async def answer_patiently(
    answer: asyncio.Task[Reply], heard: Heard, patience_seconds: float = PATIENCE_SECONDS
) -> Reply:
    """The reply of `answer`, or, a while after the request was heard out, one that streams
    spaces until it is there.

    `answer` must not raise: errors are replies by now.
    """
    try:
        waiting = True
        while waiting:
            waiting = not heard.out
            done, _ = await asyncio.wait({answer}, timeout=patience_seconds)
            if done:
                return answer.result()
    except BaseException:
        answer.cancel()
        raise
    return Reply(200, [XML_TYPE], stream=_spaces(answer), length=UNKNOWN_LENGTH)


async def _spaces(answer: asyncio.Task[Reply]) -> AsyncIterator[list[Buffer]]:
    declaration = DECLARATION.encode()
    try:
        yield [declaration]
        while not answer.done():
            yield [b" "]
            await asyncio.wait({answer}, timeout=SPACE_SECONDS)
        yield [answer.result().body.removeprefix(declaration)]
    finally:
        answer.cancel()
