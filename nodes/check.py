"""Checks a whole shard against its format: at rest (`check_shard`) and while it is received
(`StreamCheck`), without a copy of the payload."""

from __future__ import annotations

from collections.abc import Callable

from awscrt import checksums

from nodes.format import (
    CHECKSUM_BYTES,
    FOOTER_MAP_BYTES_MAX,
    FOOTER_TAIL_BYTES,
    HEADER_BYTES,
    Footer,
    Header,
    ShardCorrupt,
    block_count,
    block_offset,
    footer_map_length,
    open_block,
    parse_footer,
    parse_header,
    seal_checksum,
    shard_bytes,
)
from nodes.protocol import Buffer, ShardName, Verdict

ReadAt = Callable[[int, int], bytes]
READ_BYTES = 1024 * 1024


def _check_name(name: ShardName, header: Header) -> None:
    if header.blob != name.blob or header.index != name.index:
        raise ShardCorrupt("header is of another shard")


def read_ends(name: ShardName, size: int, read_at: ReadAt) -> tuple[Header, Footer]:
    """Read and check header and footer of a stored shard of `size` bytes, and that both agree with
    its name and size; blocks are not looked at. Raises ShardCorrupt."""
    header = parse_header(read_at(0, HEADER_BYTES))
    _check_name(name, header)
    if size < HEADER_BYTES + FOOTER_TAIL_BYTES:
        raise ShardCorrupt("shard is cut")
    length = footer_map_length(read_at(size - FOOTER_TAIL_BYTES, FOOTER_TAIL_BYTES))
    start = size - FOOTER_TAIL_BYTES - length
    if start < HEADER_BYTES:
        raise ShardCorrupt("footer is damaged")
    footer = parse_footer(name, read_at(start, size - start))
    if shard_bytes(header.block_bytes, footer.payload_bytes, length) != size:
        raise ShardCorrupt("size differs from the footer's")
    return header, footer


def check_shard(name: ShardName, size: int, read_at: ReadAt) -> Verdict:
    """Check every checksum of a stored shard of `size` bytes, about 1 MiB at a time.

    `read_at(offset, length)` returns bytes. Blocks are not looked at when header or footer are
    damaged, since both together say where blocks are.
    """
    try:
        header, footer = read_ends(name, size, read_at)
    except ShardCorrupt as error:
        return Verdict(reason=str(error))
    full = header.block_bytes + CHECKSUM_BYTES
    end = size - FOOTER_TAIL_BYTES - len(footer.map_bytes)
    blocks = block_count(header.block_bytes, footer.payload_bytes)
    damaged = []
    together = max(1, READ_BYTES // full)
    for first in range(0, blocks, together):
        start = block_offset(header.block_bytes, first)
        data = memoryview(read_at(start, min(together * full, end - start)))
        for number in range(first, min(first + together, blocks)):
            at = (number - first) * full
            try:
                open_block(name, number, data[at : at + full])
            except ShardCorrupt:
                damaged.append(number)
    return Verdict(damaged_blocks=damaged)


def check_bytes(name: ShardName, data: Buffer) -> Verdict:
    """`check_shard` over a shard in memory."""
    view = memoryview(data)
    return check_shard(
        name, len(view), lambda offset, length: bytes(view[offset : offset + length])
    )


class StreamCheck:
    """Checks a shard as it arrives, in pieces of any size. Raises ShardCorrupt.

    The end of the blocks is known only at the end of the shard. So a full block is tried where one
    is due; when its checksum fails, it can only be the last, short block and the footer: from
    there on bytes are kept, at most a block and the largest footer, and `finish` checks them.
    """

    def __init__(self, name: ShardName) -> None:
        self._name = name
        self._pieces: list[memoryview] = []
        self._held = 0
        self._need = HEADER_BYTES
        self._block_bytes = 0
        self._number = 0
        self._at_tail = False

    def feed(self, data: Buffer) -> None:
        """Take the next piece; it must not be changed before `finish`."""
        view = memoryview(data)
        while view:
            take = view[: self._need - self._held]
            view = view[len(take) :]
            self._pieces.append(take)
            self._held += len(take)
            if self._held == self._need:
                self._advance()

    def _advance(self) -> None:
        if self._at_tail:
            raise ShardCorrupt(f"block {self._number} or what follows it is damaged")
        if not self._block_bytes:
            header = parse_header(b"".join(self._pieces))
            _check_name(self._name, header)
            self._block_bytes = header.block_bytes
        elif self._block_is_whole():
            self._number += 1
        else:
            self._at_tail = True
            self._need += FOOTER_MAP_BYTES_MAX + FOOTER_TAIL_BYTES + 1
            return
        self._pieces = []
        self._held = 0
        self._need = self._block_bytes + CHECKSUM_BYTES

    def _block_is_whole(self) -> bool:
        crc = 0
        left = self._block_bytes
        for piece in self._pieces:
            payload = piece[:left]
            crc = checksums.crc64nvme(payload, crc)
            left -= len(payload)
        # The checksum may be spread over the last pieces.
        ends = [piece[-CHECKSUM_BYTES:] for piece in self._pieces[-CHECKSUM_BYTES:]]
        sealed = b"".join(ends)[-CHECKSUM_BYTES:]
        return seal_checksum(self._name, self._number, crc) == sealed

    def finish(self) -> None:
        """Check the last block and the footer."""
        tail = memoryview(b"".join(self._pieces))
        if not self._block_bytes or len(tail) < FOOTER_TAIL_BYTES:
            raise ShardCorrupt("shard is cut")
        length = footer_map_length(tail[-FOOTER_TAIL_BYTES:])
        if length + FOOTER_TAIL_BYTES > len(tail):
            raise ShardCorrupt("footer is cut")
        block = tail[: len(tail) - FOOTER_TAIL_BYTES - length]
        footer = parse_footer(self._name, tail[len(block) :])
        payload_bytes = self._number * self._block_bytes
        if block:
            payload_bytes += len(open_block(self._name, self._number, block))
            self._number += 1
        if footer.payload_bytes != payload_bytes:
            raise ShardCorrupt("size differs from the footer's")
