"""How a blob is cut and protected: k data and m parity shards, and what follows from them.

A *stripe* of a blob is encoded into `width` *fragments* of equal length; fragment i of every
stripe makes *shard* i. A scheme answers which shards carry data, which sets of shards give which
others, and how many losses are always survived. Nobody else knows: callers ask `minimal_read`,
`decodable`, `repair_sets` and `tolerance` and never count to k or m themselves, because for local
reconstruction codes neither number answers these questions.

    code            shards                                   any one is had from
    Reed-Solomon    0..k-1 data, k..k+m-1 parity             any k others
    copies          0..m, all equal to the stripe (k = 1)    any one other
    local           0..k-1 data, then m-l global and         the rest of its local group;
    reconstruction  l local parities                         or about k others

Reed-Solomon with one data shard is the same as copies, therefore 1+m always means copies.

**Local reconstruction codes**, written k+m/l. The data shards are in l groups of consecutive ones,
as equal as they can be with the larger first; each group has a parity of its own, and losing one
shard of a group (its parity included) costs a read of the rest of the group. 8+4/2:

    group 0    data 0 1 2 3    local parity 10        global parities 8, 9 over all data
    group 1    data 4 5 6 7    local parity 11

It is a pyramid code (Huang, Chen, Li 2007): a Reed-Solomon code with m-l+1 parities whose last one
is split into its sums over the groups. So any m-l+1 losses are survived, as by that code: who lost
a local parity lost no more than the whole last parity. And m-l+1 data shards of one group with
their local parity are not survived: m-l parities are left for them. The tolerance is therefore
m-l+1 exactly, 3 for 8+4/2; of its four-shard losses 425 of 495 decode. Which ones do is answered
by rank: the coefficients are those of the library, from their definition (`generator`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import combinations

from erasure.galois import Span, interpolation_row

# PyECLib's own limits (PYECLIB_MAX_DATA, PYECLIB_MAX_PARITY in pyeclib.ec_iface).
DATA_MAX = 32
PARITY_MAX = 32

DECISIONS_CACHED_MAX = 4096

_TEXT = re.compile(r"([1-9][0-9]?)\+(0|[1-9][0-9]?)(?:/([1-9][0-9]?))?")


class Code(StrEnum):
    """The codes; the values are stored in records and footers."""

    REED_SOLOMON = "rs"
    COPIES = "copies"
    LOCAL_RECONSTRUCTION = "lrc"


@dataclass(frozen=True, slots=True)
class Scheme:
    """`data` + `parity` shards under a code; `local` of the parities belong to local groups (0
    but for local reconstruction codes). Raises ValueError when the numbers do not fit it."""

    data: int
    parity: int
    code: Code
    local: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.data <= DATA_MAX or not 0 <= self.parity <= PARITY_MAX:
            raise ValueError(f"scheme {self} is out of range")
        if (self.data == 1) != (self.code is Code.COPIES):
            raise ValueError(f"scheme {self}: one data shard means copies, more do not")
        if self.code is Code.REED_SOLOMON and self.parity == 0:
            raise ValueError(f"scheme {self} has no parity")
        if (self.local > 0) != (self.code is Code.LOCAL_RECONSTRUCTION):
            raise ValueError(f"scheme {self}: local parities belong to local reconstruction codes")
        if self.local:
            self._check_local()

    def _check_local(self) -> None:
        if not 2 <= self.local < self.parity:
            raise ValueError(f"scheme {self} needs 2 or more local parities, and a global one")
        if self.data // self.local < 2 or -(-self.data // self.local) < self.tolerance:
            raise ValueError(f"scheme {self}: its local groups are too small to be of use")

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The scheme written as "data+parity", or "data+parity/local" for a local reconstruction
        code, whose parities include the local ones. Raises ValueError.

        >>> Scheme.parse("4+2")
        Scheme(data=4, parity=2, code=<Code.REED_SOLOMON: 'rs'>, local=0)
        >>> Scheme.parse("1+2").code
        <Code.COPIES: 'copies'>
        >>> Scheme.parse("8+4/2").code, Scheme.parse("8+4/2").local
        (<Code.LOCAL_RECONSTRUCTION: 'lrc'>, 2)
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(
                f"not a scheme: {text!r} (expected data+parity, as in 4+2, or data+parity/local)"
            )
        data, parity = int(match[1]), int(match[2])
        if match[3] is not None:
            return cls(data, parity, Code.LOCAL_RECONSTRUCTION, int(match[3]))
        return cls(data, parity, Code.COPIES if data == 1 else Code.REED_SOLOMON)

    def __str__(self) -> str:
        return f"{self.data}+{self.parity}" + (f"/{self.local}" if self.local else "")

    @property
    def width(self) -> int:
        """The number of shards."""
        return self.data + self.parity

    @property
    def tolerance(self) -> int:
        """How many lost shards, whichever they are, are always survived.

        >>> Scheme.parse("4+2").tolerance, Scheme.parse("8+4/2").tolerance
        (2, 3)
        """
        return self.parity - self.local + 1 if self.local else self.parity

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
        >>> Scheme.parse("8+4/2").decodable([0, 1, 2, 3, 4, 5, 8, 9, 10])  # 6 and 7 by 8 and 9
        True
        >>> Scheme.parse("8+4/2").decodable([3, 4, 5, 6, 7, 8, 9, 11])  # 0, 1, 2 by 8 and 9
        False
        """
        present = frozenset(indexes)
        if self.local and len(present) >= self.data:
            return _span(self, tuple(sorted(present))).rank == self.data
        return len(present) >= self.data

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
        >>> Scheme.parse("8+4/2").minimal_read(range(1, 12), wanted=[0])
        [1, 2, 3, 10]
        >>> Scheme.parse("8+4/2").minimal_read([2, 3, 4, 5, 6, 7, 8, 9, 10], wanted=[0])
        [2, 3, 4, 5, 6, 7, 10, 8]
        """
        if self.code is Code.COPIES:
            return list(available[:1]) or None
        need = set(range(self.data) if wanted is None else wanted)
        plain = [index for index in available if index in need]
        if len(plain) == len(need):
            return plain
        if self.local:
            return _local_read(self, tuple(available), frozenset(need))
        # A stable sort: preference decides within wanted data, other data, and parity.
        ranked = sorted(
            available, key=lambda index: 2 if index >= self.data else int(index not in need)
        )
        return ranked[: self.data] if len(ranked) >= self.data else None

    def repair_sets(self, index: int) -> Iterator[tuple[int, ...]]:
        """The minimal sets of other shards that rebuild shard `index`, lazily: there may be many.
        The local group, if it has one, comes first: it is the cheapest.

        >>> list(Scheme.parse("2+1").repair_sets(0)), list(Scheme.parse("1+2").repair_sets(1))
        ([(1, 2)], [(0,), (2,)])
        >>> next(Scheme.parse("8+4/2").repair_sets(0)), next(Scheme.parse("8+4/2").repair_sets(8))
        ((1, 2, 3, 10), (0, 1, 2, 3, 4, 5, 6, 7))
        """
        if not 0 <= index < self.width:
            raise ValueError(f"scheme {self} has no shard {index}")
        others = [other for other in range(self.width) if other != index]
        candidates = combinations(others, self.data)
        return self._local_repair_sets(index, candidates) if self.local else candidates

    def _local_repair_sets(
        self, index: int, candidates: Iterator[tuple[int, ...]]
    ) -> Iterator[tuple[int, ...]]:
        """Every minimal set is what some k independent shards need of themselves."""
        seen: set[tuple[int, ...]] = set()
        near = tuple(other for other in self.group(index) if other != index)
        if near:
            seen.add(near)
            yield near
        for candidate in candidates:
            span = Span(generator(self), candidate)
            support = span.support(index) if span.rank == self.data else None
            repair = tuple(sorted(support)) if support is not None else ()
            if repair and repair not in seen:
                seen.add(repair)
                yield repair

    def companion(self) -> Scheme:
        """The scheme of small blobs: copies with the same tolerance.

        >>> str(Scheme.parse("4+2").companion())
        '1+2'
        """
        return Scheme(1, self.tolerance, Code.COPIES)

    def group(self, index: int) -> tuple[int, ...]:
        """The shards of `index`'s local group, itself included; none for a global parity, and
        none without local groups.

        >>> lrc = Scheme.parse("8+4/2")
        >>> lrc.group(5), lrc.group(10), lrc.group(8), Scheme.parse("4+2").group(0)
        ((4, 5, 6, 7, 11), (0, 1, 2, 3, 10), (), ())
        """
        first = 0
        for number in range(self.local):
            size = self.data // self.local + (number < self.data % self.local)
            members = (*range(first, first + size), self.width - self.local + number)
            if index in members:
                return members
            first += size
        return ()

    def narrowed(self, live: int) -> Scheme | None:
        """The scheme to write with on `live` nodes: itself when they suffice, else Reed-Solomon
        (or copies) of the same tolerance, with as many of the data shards as they take, or None
        when not even one data shard keeps the tolerance.

        >>> [str(Scheme.parse("4+2").narrowed(live)) for live in (7, 6, 4, 3, 2)]
        ['4+2', '4+2', '2+2', '1+2', 'None']
        >>> [str(Scheme.parse("8+4/2").narrowed(live)) for live in (12, 11, 10, 4)]
        ['8+4/2', '8+3', '7+3', '1+3']
        """
        if live >= self.width:
            return self
        data = min(self.data, live - self.tolerance)
        if data < 1:
            return None
        return Scheme(data, self.tolerance, Code.COPIES if data == 1 else Code.REED_SOLOMON)


@lru_cache(maxsize=64)
def generator(scheme: Scheme) -> tuple[bytes, ...]:
    """The matrix of a local reconstruction code: row i gives shard i from the data shards.

    The data of one byte position are the values at 2**0..2**(k-1) of a polynomial of degree below
    k over GF(2^8). Parity r is its value at 2**(k+r), as a sum over the data shards; the last of
    these m-l+1 sums is not stored as a whole but group by group, as the local parities. This is
    `isa_l_rs_lrc` of liberasurecode, which `erasure.codec` checks.

    >>> [list(row) for row in generator(Scheme.parse("4+3/2"))[4:]]
    [[64, 120, 54, 15], [231, 210, 0, 0], [0, 0, 87, 99]]
    """
    k, splits = scheme.data, scheme.parity - scheme.local
    rows = [bytes(int(row == column) for column in range(k)) for row in range(k)]
    rows += [interpolation_row(k, k + number) for number in range(splits)]
    split = interpolation_row(k, k + splits)
    for parity in range(k + splits, scheme.width):
        members = scheme.group(parity)
        rows.append(bytes(split[column] if column in members else 0 for column in range(k)))
    return tuple(rows)


@lru_cache(maxsize=DECISIONS_CACHED_MAX)
def _span(scheme: Scheme, indexes: tuple[int, ...]) -> Span:
    return Span(generator(scheme), indexes)


@lru_cache(maxsize=DECISIONS_CACHED_MAX)
def _local_choice(
    scheme: Scheme, available: tuple[int, ...], need: frozenset[int]
) -> tuple[int, ...] | None:
    """Independent shards are taken in order: wanted ones, other data, local parities, global
    ones. What is missing is one combination of them, and only shards in it are read. A shard whose
    local group is there is a combination of that group alone."""

    def rank(index: int) -> int:
        if index in need:
            return 0
        if index < scheme.data:
            return 1
        return 2 if scheme.group(index) else 3

    span = _span(scheme, tuple(sorted(available, key=rank)))
    read = need.intersection(available)
    for index in need.difference(available):
        support = span.support(index)
        if support is None:
            return None
        read |= support
    return tuple(sorted(read, key=lambda index: (rank(index), available.index(index))))


def _local_read(
    scheme: Scheme, available: tuple[int, ...], need: frozenset[int]
) -> list[int] | None:
    chosen = _local_choice(scheme, available, need)
    return None if chosen is None else list(chosen)
