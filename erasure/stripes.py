"""Where the bytes of a blob are: stripes, fragments and ranges. Integers only, no I/O.

A blob of `size` bytes is cut into stripes of `stripe_bytes` (the last may be shorter). A stripe of
L bytes has fragments of F = `Scheme.fragment_bytes(L)` bytes. Data fragment d holds the bytes
[d*F, min((d+1)*F, L)) of its stripe, padded with zeros to F:

    4+2, stripe_bytes 100, size 210       shard 0   shard 1   shard 2   shard 3   shards 4, 5
    stripe 0: bytes   0..99,  F = 25        0..24    25..49    50..74    75..99    parity
    stripe 1: bytes 100..199, F = 25      100..124  125..149  150..174  175..199   parity
    stripe 2: bytes 200..209, F = 3       200..202  203..205  206..208  209 0 0    parity

With copies F = L and every shard holds every stripe whole. Block i of a shard file is its fragment
of stripe i, so a shard is whole blocks with one shorter block at the end, and a byte range of the
blob needs the same block of some data shards for each stripe that it touches: usually one shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from erasure.scheme import Code, Scheme


@dataclass(frozen=True, slots=True)
class StripePart:
    """The bytes [start, stop) of stripe number `stripe`, whose length is `stripe_length`.
    `fragments` are the data fragments that hold them ([0] for copies: any copy will do)."""

    stripe: int
    stripe_length: int
    start: int
    stop: int
    fragments: range


@dataclass(frozen=True, slots=True)
class Geometry:
    """The arithmetic of one blob. Sizes are in bytes.

    >>> blob = Geometry(Scheme.parse("4+2"), stripe_bytes=100, size=210)
    >>> blob.stripe_count, blob.block_bytes, blob.shard_payload_bytes
    (3, 25, 53)
    >>> [blob.stripe_length(i) for i in range(3)], [blob.block_length(i) for i in range(3)]
    ([100, 100, 10], [25, 25, 3])
    """

    scheme: Scheme
    stripe_bytes: int
    size: int

    def __post_init__(self) -> None:
        if self.stripe_bytes < 1 or self.size < 0:
            raise ValueError("stripe size or blob size out of range")

    @property
    def stripe_count(self) -> int:
        """Stripes of the blob, which is also the blocks of each shard; 0 for an empty blob."""
        return -(-self.size // self.stripe_bytes)

    @property
    def block_bytes(self) -> int:
        """Payload bytes of the block of a full stripe, also when the blob has no full stripe."""
        return self.scheme.fragment_bytes(self.stripe_bytes)

    @property
    def shard_payload_bytes(self) -> int:
        """Payload bytes of all blocks of one shard; all shards of a blob are equally long.

        >>> Geometry(Scheme.parse("4+2"), 100, 0).shard_payload_bytes
        0
        >>> Geometry(Scheme.parse("1+2"), 100, 210).shard_payload_bytes
        210
        """
        full, rest = divmod(self.size, self.stripe_bytes)
        return full * self.block_bytes + self.scheme.fragment_bytes(rest)

    def stripe_length(self, stripe: int) -> int:
        """The bytes of the blob in a stripe. Raises IndexError."""
        if not 0 <= stripe < self.stripe_count:
            raise IndexError(f"the blob has no stripe {stripe}")
        return min(self.stripe_bytes, self.size - stripe * self.stripe_bytes)

    def block_length(self, stripe: int) -> int:
        """The payload bytes of block `stripe` of every shard. Raises IndexError."""
        return self.scheme.fragment_bytes(self.stripe_length(stripe))

    def part(self, stripe: int) -> StripePart:
        """A whole stripe. Raises IndexError."""
        length = self.stripe_length(stripe)
        return StripePart(stripe, length, 0, length, self._fragments(length, 0, length))

    def parts(self, first: int, last: int) -> Iterator[StripePart]:
        """The parts of stripes that make up the bytes first..last of the blob, both included (as
        in an HTTP range), in order. Raises ValueError unless 0 <= first <= last < size.

        >>> blob = Geometry(Scheme.parse("4+2"), stripe_bytes=100, size=210)
        >>> for part in blob.parts(70, 203):
        ...     print(part.stripe, part.start, part.stop, list(part.fragments))
        0 70 100 [2, 3]
        1 0 100 [0, 1, 2, 3]
        2 0 4 [0, 1]
        >>> [list(part.fragments) for part in blob.parts(130, 135)]
        [[1]]
        """
        if not 0 <= first <= last < self.size:
            raise ValueError(f"bytes {first}..{last} are not in a blob of {self.size}")
        return self._parts(first, last)

    def _parts(self, first: int, last: int) -> Iterator[StripePart]:
        for stripe in range(first // self.stripe_bytes, last // self.stripe_bytes + 1):
            base = stripe * self.stripe_bytes
            length = min(self.stripe_bytes, self.size - base)
            start, stop = max(first - base, 0), min(last + 1 - base, length)
            yield StripePart(stripe, length, start, stop, self._fragments(length, start, stop))

    def _fragments(self, length: int, start: int, stop: int) -> range:
        return fragments_of(self.scheme, length, start, stop)


def fragments_of(scheme: Scheme, length: int, start: int, stop: int) -> range:
    """The data fragments that hold bytes [start, stop) of a stripe of `length` bytes.

    >>> fragments_of(Scheme.parse("4+2"), 10, 2, 4), fragments_of(Scheme.parse("4+2"), 1, 0, 1)
    (range(0, 2), range(0, 1))
    """
    if scheme.code is Code.COPIES:
        return range(1)
    fragment = scheme.fragment_bytes(length)
    return range(start // fragment, -(-stop // fragment))
