"""How much of a content is in memory at a time does not depend on how well it compressed."""

from s3gw.objects.content.compression import FRAME_BYTES, FRAMES_AT_ONCE
from s3gw.objects.content.framing import Framing
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
