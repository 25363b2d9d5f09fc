"""How a blob is cut and protected: k data and m parity shards, and what follows from them.

A *stripe* of a blob is encoded into `width` *fragments* of equal length; fragment i of every
stripe makes *shard* i. A scheme answers which shards carry data, which sets of shards give which
others, and how many losses are always survived. Nobody else knows: callers ask `minimal_read`,
`decodable`, `repair_sets` and `tolerance` and never count to k or m themselves, because for local
reconstruction codes neither number answers these questions.

    code            shards                                   any one is had from
    Reed-Solomon    0..k-1 data, k..k+m-1 parity             any k others
    copies          0..m, all equal to the stripe (k = 1)    any one other

Reed-Solomon with one data shard is the same as copies, therefore 1+m always means copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

# PyECLib's own limits (PYECLIB_MAX_DATA, PYECLIB_MAX_PARITY in pyeclib.ec_iface).
DATA_MAX = 32
PARITY_MAX = 32

_TEXT = re.compile(r"([1-9][0-9]?)\+(0|[1-9][0-9]?)")


class Code(StrEnum):
    """The codes; the values are stored in records and footers."""

    REED_SOLOMON = "rs"
    COPIES = "copies"


@dataclass(frozen=True, slots=True)
class Scheme:
    """`data` + `parity` shards under a code. Raises ValueError when the numbers do not fit it."""

    data: int
    parity: int
    code: Code

    def __post_init__(self) -> None:
        if not 1 <= self.data <= DATA_MAX or not 0 <= self.parity <= PARITY_MAX:
            raise ValueError(f"scheme {self} is out of range")
        if (self.data == 1) != (self.code is Code.COPIES):
            raise ValueError(f"scheme {self}: one data shard means copies, more do not")
        if self.code is Code.REED_SOLOMON and self.parity == 0:
            raise ValueError(f"scheme {self} has no parity")

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The scheme written as "data+parity". Raises ValueError.

        >>> Scheme.parse("4+2")
        Scheme(data=4, parity=2, code=<Code.REED_SOLOMON: 'rs'>)
        >>> Scheme.parse("1+2").code
        <Code.COPIES: 'copies'>
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a scheme: {text!r} (expected data+parity, as in 4+2)")
        data, parity = int(match[1]), int(match[2])
        return cls(data, parity, Code.COPIES if data == 1 else Code.REED_SOLOMON)

    def __str__(self) -> str:
        return f"{self.data}+{self.parity}"

    @property
    def width(self) -> int:
        """The number of shards."""
        return self.data + self.parity

    @property
    def tolerance(self) -> int:
        """How many lost shards, whichever they are, are always survived."""
        return self.parity

    def fragment_bytes(self, stripe_bytes: int) -> int:
        """The length of each fragment of a stripe of `stripe_bytes` bytes.

        PyECLib pads a stripe with zeros to a multiple of k bytes and no further (ISA-L works on
        any length), which a test proves against the library.

        >>> Scheme.parse("4+2").fragment_bytes(1048576), Scheme.parse("4+2").fragment_bytes(1)
        (262144, 1)
        >>> Scheme.parse("8+3").fragment_bytes(17), Scheme.parse("1+2").fragment_bytes(17)
        (3, 17)
        """
        return -(-stripe_bytes // self.data)

    def decodable(self, indexes: Iterable[int]) -> bool:
        """Whether these shards give the data.

        >>> Scheme.parse("4+2").decodable([0, 1, 4, 5]), Scheme.parse("4+2").decodable([0, 1, 5])
        (True, False)
        """
        return len(set(indexes)) >= self.data

    def minimal_read(
        self, available: Sequence[int], wanted: Iterable[int] | None = None
    ) -> list[int] | None:
        """The fewest of the `available` shards that give the fragments `wanted`, or None.

        `available` is in order of preference. `wanted` are indexes of data or parity shards; None
        means the whole data. What is wanted and available is read plainly; when something wanted
        is not, data shards come before parity (each data fragment read is one less to compute).

        >>> Scheme.parse("4+2").minimal_read([5, 4, 3, 2, 1, 0])
        [3, 2, 1, 0]
        >>> Scheme.parse("4+2").minimal_read([5, 4, 3, 2, 0])
        [3, 2, 0, 5]
        >>> Scheme.parse("4+2").minimal_read([5, 4, 3, 2, 0], wanted=[2])
        [2]
        >>> Scheme.parse("4+2").minimal_read([5, 4, 3]) is None
        True
        >>> Scheme.parse("1+2").minimal_read([2, 0])
        [2]
        """
        if self.code is Code.COPIES:
            return list(available[:1]) or None
        need = set(range(self.data) if wanted is None else wanted)
        plain = [index for index in available if index in need]
        if len(plain) == len(need):
            return plain
        # A stable sort: preference decides within wanted data, other data, and parity.
        ranked = sorted(
            available, key=lambda index: 2 if index >= self.data else int(index not in need)
        )
        return ranked[: self.data] if len(ranked) >= self.data else None

    def repair_sets(self, index: int) -> Iterator[tuple[int, ...]]:
        """The minimal sets of other shards that rebuild shard `index`, lazily: there may be many.

        >>> list(Scheme.parse("2+1").repair_sets(0)), list(Scheme.parse("1+2").repair_sets(1))
        ([(1, 2)], [(0,), (2,)])
        """
        if not 0 <= index < self.width:
            raise ValueError(f"scheme {self} has no shard {index}")
        others = [other for other in range(self.width) if other != index]
        return combinations(others, self.data)

    def companion(self) -> Scheme:
        """The scheme of small blobs: copies with the same tolerance.

        >>> str(Scheme.parse("4+2").companion())
        '1+2'
        """
        return Scheme(1, self.tolerance, Code.COPIES)

    def narrowed(self, live: int) -> Scheme | None:
        """The scheme to write with on `live` nodes: itself when they suffice, else fewer data
        shards with the same parity, or None when not even one data shard keeps the tolerance.

        >>> [str(Scheme.parse("4+2").narrowed(live)) for live in (7, 6, 4, 3, 2)]
        ['4+2', '4+2', '2+2', '1+2', 'None']
        """
        if live >= self.width:
            return self
        data = live - self.parity
        if data < 1:
            return None
        return Scheme(data, self.parity, Code.COPIES if data == 1 else self.code)
