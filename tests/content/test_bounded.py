"""How much of a content is in memory at a time does not depend on how well it compressed; and when
its end is given out."""

from collections.abc import AsyncGenerator

import pytest

from nodes.protocol import Buffer
from s3gw.objects.content.compression import FRAME_BYTES, FRAMES_AT_ONCE, index_bytes
from s3gw.objects.content.framing import ContentDamaged, Framing
from s3gw.objects.content.source import framed
from tests.content.framed import INLINE, encode, source_of

CONTENT = bytes(300 * FRAME_BYTES + 5)
KEY, ID = b"k" * 32, b"i" * 16


async def test_a_content_of_nothing_but_zeros_comes_a_little_at_a_time() -> None:
    for key in (b"", KEY):
        framing = Framing(ID, key, "zstd")
        stored, _ = encode(framing, CONTENT)
        assert len(stored) < 64 * 1024
        read = framed(source_of(stored, len(stored)), framing, len(CONTENT), len(stored), INLINE)
        sizes = [sum(map(len, buffers)) async for buffers in read(0, len(CONTENT))]
        assert sum(sizes) == len(CONTENT)
        assert max(sizes) <= FRAMES_AT_ONCE * FRAME_BYTES


async def test_the_end_is_given_out_only_when_all_that_is_stored_was_checked() -> None:
    """Also where the last window has nothing but the index."""
    framing = Framing(ID, compression="zstd")
    stored, _ = encode(framing, CONTENT)
    frames = len(stored) - index_bytes(len(CONTENT))

    async def source(first: int, stop: int) -> AsyncGenerator[list[Buffer], None]:
        assert (first, stop) == (0, len(stored))
        yield [stored[:frames]]
        raise ContentDamaged("the blob is not what was stored")

    given = 0
    with pytest.raises(ContentDamaged):
        read = framed(source, framing, len(CONTENT), len(stored), INLINE)
        async for buffers in read(0, len(CONTENT)):
            given += sum(map(len, buffers))
    assert 0 < given < len(CONTENT)
