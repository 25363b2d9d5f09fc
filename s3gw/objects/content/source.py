"""Ranges of content out of ranges of stored bytes.

Each layer turns a source into another: one of stored bytes into one of what was sealed in them,
that into one of what was compressed. A source is asked for [first, stop) and gives it in order, in
lists of buffers, as a blob does. What is long is worked on in the executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TypeVar

from nodes.protocol import Buffer
from s3gw.objects.content import chunks, compression
from s3gw.objects.content.compression import FRAME_BYTES, Decompressor, Index, NotDecompressible
from s3gw.objects.content.framing import ContentDamaged, Framing
from s3gw.objects.content.sealing import ContentCipher, NotAuthentic, Opener, trimmed

Source = Callable[[int, int], AsyncGenerator[list[Buffer], None]]
R = TypeVar("R")

INLINE_BYTES_MAX = 64 * 1024


def framed(source: Source, framing: Framing, size: int, stored: int, executor: Executor) -> Source:
    """Content of `size` bytes, where `source` is of its `stored` bytes. Raises ContentDamaged when
    the sizes do not fit; the source also while it is read."""
    inner = framing.unsealed_size(stored)
    if framing.data_key:
        source = _Sealed(source, framing, inner, executor).read
    if framing.compression:
        return _Compressed(source, size, inner, executor).read
    if inner != size:
        raise ContentDamaged(f"{inner} bytes are stored of {size}")
    return source


async def _run(
    executor: Executor,
    work: Callable[[Sequence[Buffer]], list[Buffer]],
    buffers: Sequence[Buffer],
    size: int,
) -> list[Buffer]:
    """The work, which is on `size` bytes of content, off the event loop unless these are few.
    Raises ContentDamaged."""
    try:
        if size <= INLINE_BYTES_MAX:
            return work(buffers)
        return await asyncio.get_running_loop().run_in_executor(executor, work, buffers)
    except (NotAuthentic, NotDecompressible) as error:
        raise ContentDamaged(str(error)) from error


async def _cut(
    pieces: AsyncIterator[list[Buffer]], skip: int, most: int
) -> AsyncGenerator[list[Buffer], None]:
    """What comes without the first `skip` bytes, at most `most`. Raises ContentDamaged when fewer
    come."""
    async for buffers in pieces:
        length = compression.total(buffers)
        kept = trimmed(buffers, skip, most)
        skip = max(0, skip - length)
        most -= compression.total(kept)
        if kept:
            yield kept
        if most == 0:
            return
    raise ContentDamaged(f"{most} bytes are missing")


class _Sealed:
    """Content of `size` bytes out of its sealed chunks."""

    def __init__(self, source: Source, framing: Framing, size: int, executor: Executor) -> None:
        self._source = source
        self._cipher = ContentCipher(framing.data_key, framing.content_id)
        self._size = size
        self._executor = executor

    async def read(self, first: int, stop: int) -> AsyncGenerator[list[Buffer], None]:
        if first >= stop:
            return
        cover = chunks.cover(self._size, first, stop)
        opener = Opener(self._cipher, self._size, cover.first_chunk)
        async with (
            aclosing(self._opened(opener, cover.stored_first, cover.stored_stop)) as opened,
            aclosing(_cut(opened, cover.skip, stop - first)) as pieces,
        ):
            async for buffers in pieces:
                yield buffers

    async def _opened(
        self, opener: Opener, first: int, stop: int
    ) -> AsyncGenerator[list[Buffer], None]:
        left = stop - first
        async with aclosing(self._source(first, stop)) as stored:
            async for buffers in stored:
                size = compression.total(buffers)
                left -= size
                opened = await _run(self._executor, opener.feed, buffers, size)
                if left == 0:
                    opened += await _run(self._executor, lambda _: opener.finish(), (), 0)
                yield opened


class _Compressed:
    """Content of `size` bytes out of `stored` bytes of frames and index."""

    def __init__(self, source: Source, size: int, stored: int, executor: Executor) -> None:
        self._source = source
        self._size = size
        self._stored = stored
        self._executor = executor
        self._index: Index | None = None

    async def read(self, first: int, stop: int) -> AsyncGenerator[list[Buffer], None]:
        if first >= stop:
            return
        first_frame, stop_frame = first // FRAME_BYTES, -(-stop // FRAME_BYTES)
        begin, end = 0, self._stored  # with the index, so that a whole blob is checked as such
        if first_frame or stop < self._size:
            offsets = (await self._read_index()).offsets
            begin, end = offsets[first_frame], offsets[stop_frame]
        if not 0 <= begin < end:
            raise ContentDamaged("the frames do not fit the content")
        frames = Decompressor(self._size, first_frame)
        skip = first - first_frame * FRAME_BYTES
        async with (
            aclosing(self._frames(frames, begin, end)) as content,
            aclosing(_cut(content, skip, stop - first)) as pieces,
        ):
            async for buffers in pieces:
                yield buffers

    async def _frames(
        self, frames: Decompressor, begin: int, end: int
    ) -> AsyncGenerator[list[Buffer], None]:
        """The content of these frames; the last of it when the source has ended, which may find
        only then that the blob is not what was stored."""
        last: list[Buffer] = []
        async with aclosing(self._source(begin, end)) as stored:
            async for buffers in stored:
                content = await _run(self._executor, frames.feed, buffers, self._size)
                while content:
                    if last:
                        yield last
                    last = content
                    content = await _run(self._executor, frames.feed, (), self._size)
        if last:
            yield last

    async def _read_index(self) -> Index:
        if self._index is None:
            length = compression.index_bytes(self._size)
            if length > self._stored:
                raise ContentDamaged("the index is longer than the whole")
            held = bytearray()
            async with aclosing(self._source(self._stored - length, self._stored)) as pieces:
                async for buffers in pieces:
                    for buffer in buffers:
                        held += buffer
            try:
                self._index = Index.read(self._size, self._stored, bytes(held))
            except NotDecompressible as error:
                raise ContentDamaged(str(error)) from error
        return self._index
