"""Slow answers: white space that keeps a client waiting (S3 does so for Complete and Copy).

If the operation has not ended after a while, status 200 and the XML declaration are sent, then a
space every few seconds, then the result or the error as a document. SDKs know that these
operations may answer an error with status 200.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nodes.protocol import Buffer
from s3gw.operations.call import XML_TYPE, Reply
from s3gw.server.respond import UNKNOWN_LENGTH
from s3gw.wire.xml import DECLARATION

PATIENT_OPERATIONS = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
PATIENCE_SECONDS = 5.0
SPACE_SECONDS = 2.0


async def answer_patiently(
    answer: asyncio.Task[Reply], patience_seconds: float = PATIENCE_SECONDS
) -> Reply:
    """The reply of `answer`, or after a while one that streams spaces until it is there.

    `answer` must not raise: errors are replies by now.
    """
    try:
        done, _ = await asyncio.wait({answer}, timeout=patience_seconds)
    except BaseException:
        answer.cancel()
        raise
    if done:
        return answer.result()
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
