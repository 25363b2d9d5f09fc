"""Compression of content in frames of their own: the home of the zstd library.

    frame    word (4 bytes, big-endian), data
    stream   all frames in order, then the index: the words of all frames again

A word is the length of the frame's data; its highest bit says that the data is stored as it is,
because zstd did not make it smaller. What zstd made has a checksum of its own. Each frame is 256
KiB of content, the last one the rest, and decompresses on its own, so a range costs the index and
the frames that it touches; who reads from the beginning needs no index. How many frames there are
follows from the size of the content.

Whether compressing is worth it is decided on the first frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import zstandard

from nodes.protocol import Buffer

NAME = "zstd"
FRAME_BYTES = 256 * 1024
# What decompresses at once: stored bytes do not say how much content is in them.
FRAMES_AT_ONCE = 4
WORD = struct.Struct(">I")
AS_IT_IS = 1 << 31
LEVEL = 3
# What the first frame must shrink to for the content to be compressed at all.
WORTH = 0.9


class NotDecompressible(Exception):
    """The stored bytes are no compressed content of that size."""


def frame_count(size: int) -> int:
    """Frames of a content of `size` bytes.

    >>> frame_count(1), frame_count(262144), frame_count(262145)
    (1, 1, 2)
    """
    return -(-size // FRAME_BYTES)


def index_bytes(size: int) -> int:
    """The length of the index of a content of `size` bytes."""
    return WORD.size * frame_count(size)


class Compressor:
    """Content in, frames out. `used` says whether what came out is compressed; otherwise it is the
    content itself."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._held = bytearray()
        self._words = bytearray()
        self.used = True

    def feed(self, data: Buffer) -> list[Buffer]:
        """The frames that are full."""
        if not self.used:
            return [data]
        self._held += data
        if len(self._held) < FRAME_BYTES:
            return []
        return self._frames(FRAME_BYTES)

    def finish(self) -> list[Buffer]:
        """The last frame, and the index."""
        if not self.used:
            return []
        frames = self._frames(1)
        if not self._words:
            self.used = False  # nothing came, or it is not worth it
            return frames
        return [*frames, bytes(self._words)]

    def _frames(self, least: int) -> list[Buffer]:
        frames: list[Buffer] = []
        while len(self._held) >= least:
            content = bytes(memoryview(self._held)[:FRAME_BYTES])
            data = self._zstd.compress(content)
            if not self._words and len(data) + 2 * WORD.size > WORTH * len(content):
                self.used = False
                held, self._held = bytes(self._held), bytearray()
                return [held]
            del self._held[:FRAME_BYTES]
            word = len(data)
            if len(data) >= len(content):
                data, word = content, len(content) | AS_IT_IS
            self._words += WORD.pack(word)
            frames += [WORD.pack(word), data]
        return frames


@dataclass(frozen=True, slots=True)
class Index:
    """Where the frames of a content are: frame i at [offsets[i], offsets[i + 1])."""

    size: int
    offsets: tuple[int, ...]

    @classmethod
    def read(cls, size: int, stored: int, index: bytes) -> Index:
        """From the index of a content of `size` bytes that is stored in `stored`. Raises
        NotDecompressible."""
        words = [word for (word,) in WORD.iter_unpack(index)]
        lengths = (WORD.size + (word & ~AS_IT_IS) for word in words)
        offsets = tuple(accumulate(lengths, initial=0))
        if len(words) != frame_count(size) or offsets[-1] + len(index) != stored:
            raise NotDecompressible("the index does not fit the content")
        return cls(size, offsets)


class Decompressor:
    """Frames in, content out: from frame `first_frame` of a content of `size` bytes."""

    def __init__(self, size: int, first_frame: int = 0) -> None:
        self._zstd = zstandard.ZstdDecompressor()
        self._left = size - first_frame * FRAME_BYTES
        self._held = bytearray()

    def feed(self, buffers: Iterable[Buffer]) -> list[Buffer]:
        """The content of the frames that are complete, at most FRAMES_AT_ONCE of them: there may be
        more until it gives nothing. Raises NotDecompressible."""
        for data in buffers:
            self._held += data
        opened: list[Buffer] = []
        while self._left > 0 and len(self._held) >= WORD.size and len(opened) < FRAMES_AT_ONCE:
            (word,) = WORD.unpack_from(self._held)
            stop = WORD.size + (word & ~AS_IT_IS)
            if stop > WORD.size + FRAME_BYTES:
                raise NotDecompressible("a frame is longer than frames are")
            if len(self._held) < stop:
                break
            opened.append(self._content(word, bytes(memoryview(self._held)[WORD.size : stop])))
            del self._held[:stop]
        return opened

    def _content(self, word: int, data: bytes) -> bytes:
        size = min(self._left, FRAME_BYTES)
        if not word & AS_IT_IS:
            try:
                if zstandard.frame_content_size(data) != size:
                    raise NotDecompressible("a frame is of another length")
                data = self._zstd.decompress(data, max_output_size=size)
            except zstandard.ZstdError as error:
                raise NotDecompressible(str(error)) from error
        if len(data) != size:
            raise NotDecompressible("a frame is of another length")
        self._left -= size
        return data


def total(buffers: Sequence[Buffer]) -> int:
    """Bytes in all."""
    return sum(map(len, buffers))
