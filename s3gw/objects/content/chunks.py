"""The arithmetic of sealed content. Pure.

Content is sealed in chunks of 64 KiB, each of which grows by a tag. An empty content is one empty
chunk, so that even "nothing" is authentic:

    content   0            65536        131072      150000
              |   chunk 0    |   chunk 1   | chunk 2 |
    stored    0            65552        131104      150048

Sizes and positions are in bytes. A chunk is opened as a whole or not at all, so a range of content
is stored in the whole chunks that it touches.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES


def chunk_count(size: int) -> int:
    """Chunks of a content of `size` bytes.

    >>> chunk_count(0), chunk_count(65536), chunk_count(65537)
    (1, 1, 2)
    """
    return max(1, -(-size // CHUNK_BYTES))


def sealed_size(size: int) -> int:
    """Stored bytes of a content of `size` bytes.

    >>> sealed_size(0), sealed_size(65536), sealed_size(65537)
    (16, 65552, 65569)
    """
    return size + TAG_BYTES * chunk_count(size)


def content_size(stored: int) -> int:
    """The size of the content that has `stored` bytes once it is sealed. Raises ValueError for a
    number of bytes that no sealed content has.

    >>> content_size(16), content_size(65552), content_size(65569)
    (0, 65536, 65537)
    """
    size = stored - TAG_BYTES * max(1, -(-stored // SEALED_CHUNK_BYTES))
    if size < 0 or sealed_size(size) != stored:
        raise ValueError(f"no content is sealed in {stored} bytes")
    return size


@dataclass(frozen=True, slots=True)
class Cover:
    """The chunks [first_chunk, stop_chunk) that hold a range, the bytes [stored_first, stored_stop)
    they are stored in, and how many opened bytes precede the range."""

    first_chunk: int
    stop_chunk: int
    stored_first: int
    stored_stop: int
    skip: int


def cover(size: int, first: int, stop: int) -> Cover:
    """What to read for the bytes [first, stop) of a content of `size` bytes; the range is not
    empty and within it, but for that of an empty content.

    >>> cover(150_000, 70_000, 70_001)
    Cover(first_chunk=1, stop_chunk=2, stored_first=65552, stored_stop=131104, skip=4464)
    """
    first_chunk = first // CHUNK_BYTES
    stop_chunk = max(first_chunk + 1, -(-stop // CHUNK_BYTES))
    return Cover(
        first_chunk,
        stop_chunk,
        first_chunk * SEALED_CHUNK_BYTES,
        min(stop_chunk * SEALED_CHUNK_BYTES, sealed_size(size)),
        first - first_chunk * CHUNK_BYTES,
    )
