"""Slow answers: spaces first, then the document that a quick answer would have been."""

from __future__ import annotations

import asyncio
from typing import Any

from s3gw.operations.call import Reply, xml_reply
from s3gw.server.patience import Heard, answer_patiently
from s3gw.wire.xml import DECLARATION, Writer


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


NO_BODY = Heard(nothing, out=True)


def document() -> bytes:
    writer = Writer("CopyObjectResult")
    writer.element("ETag", "x")
    return writer.finish()


async def test_a_quick_answer_goes_out_as_it_is() -> None:
    async def quick() -> Reply:
        return Reply(409, body=b"no")

    reply = await answer_patiently(asyncio.create_task(quick()), NO_BODY, patience_seconds=5)
    assert (reply.status, reply.body, reply.stream) == (409, b"no", None)


async def test_a_slow_answer_is_a_document_behind_spaces() -> None:
    release = asyncio.Event()

    async def slow() -> Reply:
        await release.wait()
        return xml_reply(document())

    reply = await answer_patiently(asyncio.create_task(slow()), NO_BODY, patience_seconds=0)
    assert reply.status == 200
    assert reply.stream is not None
    sent = b"".join(map(bytes, await anext(reply.stream)))
    sent += b"".join(map(bytes, await anext(reply.stream)))
    assert sent == DECLARATION.encode() + b" "
    release.set()
    async for buffers in reply.stream:
        sent += b"".join(map(bytes, buffers))
    declaration = DECLARATION.encode()
    assert sent.startswith(declaration)
    assert sent.removeprefix(declaration).lstrip() == document().removeprefix(declaration)


async def test_a_client_that_goes_away_ends_the_work() -> None:
    ended = asyncio.Event()

    async def endless() -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Reply()

    reply = await answer_patiently(asyncio.create_task(endless()), NO_BODY, patience_seconds=0)
    assert reply.stream is not None
    await anext(reply.stream)
    await reply.stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await ended.wait()


async def test_nothing_is_sent_before_the_request_was_heard_to_its_end() -> None:
    pieces: asyncio.Queue[bool] = asyncio.Queue()
    released = asyncio.Event()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "more_body": await pieces.get()}

    heard = Heard(receive, out=False)

    async def slow() -> Reply:
        while not heard.out:
            await heard()
        await released.wait()
        return Reply()

    answer = asyncio.create_task(slow())
    waiting = asyncio.create_task(answer_patiently(answer, heard, patience_seconds=0))
    for _ in range(20):
        await asyncio.sleep(0)
    pieces.put_nowait(True)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    pieces.put_nowait(False)
    async with asyncio.timeout(5):
        reply = await waiting
    assert (reply.status, reply.stream is not None, answer.done()) == (200, True, False)
    answer.cancel()
