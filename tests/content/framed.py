"""Stored bytes made and read in memory, for tests of framing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from concurrent.futures import Executor

from nodes.protocol import Buffer
from s3gw.objects.content.framing import Encoder, Framing
from s3gw.objects.content.source import Source, framed
from tests.stores.memory_store import InlineExecutor

INLINE: Executor = InlineExecutor()


def encode(framing: Framing, content: bytes, piece: int = 100_000) -> tuple[bytes, str]:
    """The stored bytes of a content that comes in pieces, and the compression that was used."""
    encoder = Encoder(framing)
    out: list[Buffer] = []
    for at in range(0, len(content), piece):
        out += encoder.feed(content[at : at + piece])
    out += encoder.finish()
    return b"".join(out), encoder.compression


def source_of(stored: bytes, piece: int = 70_000) -> Source:
    """Stored bytes as a blob gives them."""

    async def read(first: int, stop: int) -> AsyncGenerator[list[Buffer], None]:
        assert 0 <= first <= stop <= len(stored)
        for at in range(first, stop, piece):
            yield [stored[at : min(at + piece, stop)]]

    return read


async def read_range(
    framing: Framing, size: int, stored: bytes, first: int, stop: int, piece: int = 70_000
) -> bytes:
    """Bytes [first, stop) of the content."""
    source = framed(source_of(stored, piece), framing, size, len(stored), INLINE)
    return b"".join([bytes(b) async for buffers in source(first, stop) for b in buffers])
