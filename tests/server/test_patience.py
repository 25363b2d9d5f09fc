"""Slow answers: spaces first, then the document that a quick answer would have been."""

from __future__ import annotations

import asyncio

from s3gw.operations.call import Reply, xml_reply
from s3gw.server.patience import answer_patiently
from s3gw.wire.xml import DECLARATION, Writer


def document() -> bytes:
    writer = Writer("CopyObjectResult")
    writer.element("ETag", "x")
    return writer.finish()


async def test_a_quick_answer_goes_out_as_it_is() -> None:
    async def quick() -> Reply:
        return Reply(409, body=b"no")

    reply = await answer_patiently(asyncio.create_task(quick()), patience_seconds=5)
    assert (reply.status, reply.body, reply.stream) == (409, b"no", None)


async def test_a_slow_answer_is_a_document_behind_spaces() -> None:
    release = asyncio.Event()

    async def slow() -> Reply:
        await release.wait()
        return xml_reply(document())

    reply = await answer_patiently(asyncio.create_task(slow()), patience_seconds=0)
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

    reply = await answer_patiently(asyncio.create_task(endless()), patience_seconds=0)
    assert reply.stream is not None
    await anext(reply.stream)
    await reply.stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await ended.wait()
