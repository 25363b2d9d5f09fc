"""Encoding, decoding and rebuilding of stripes. The only importer of pyeclib.

**What is stored is pure Reed-Solomon.** ISA-L's Cauchy code over GF(2^8) with the polynomial
x^8+x^4+x^3+x^2+1: byte b of parity fragment i is the sum over data fragments j of
inverse(i XOR j) * data[j][b], where i counts on from the data (k..k+m-1). Nothing else of the
library reaches the disk (a test computes parity from this sentence), so another implementation can
take over the disks.

**A local reconstruction code** (k data, m parities of which l are local) is another one, ISA-L's
systematic Vandermonde code with its last parity split: take byte b of the data fragments as the
values of a polynomial of degree below k over the same field at the points 2^0, ..., 2^(k-1). Byte b
of parity fragment k+r, for r < m-l, is its value at 2^(k+r). Its value at 2^(k+m-l) is, by
Lagrange's formula, a sum over the data fragments; the last l fragments are the parts of that sum
over the local groups, which are consecutive data fragments, as equal in number as they can be, the
larger groups first. `erasure.scheme.generator` computes the coefficients from these sentences, and
a codec refuses to start when the library has others.

**Headers.** PyECLib puts an 80-byte header before every fragment: index, fragment and stripe
length, versions and a checksum of the header itself; nothing of the payload. It depends only on
scheme, index and stripe length, so it is dropped on encoding; for a rebuild the headers of that
length come from encoding a dummy stripe, once per length, kept for the lengths used last.

**Nothing here protects data.** PyECLib returns wrong bytes without a word when a payload byte has
changed or fragments of different stripes are mixed. Callers verify the checksum of every fragment
before they hand it in; what fails is an erasure.

**Speed.** Reading with all data fragments there copies nothing. Otherwise only the missing
data fragments that are wanted are computed, with the library's `reconstruct`: for 4+2 with one
missing at twice the speed of its `decode`, which also copies the whole stripe. The library holds
the GIL: threads do not make it faster. It allocates fragments with malloc: when glibc gives
them back to the system on every call, encoding is ten times slower, so the launcher sets
MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from pyeclib.ec_iface import ECDriver

from erasure.scheme import Code, Scheme, generator
from erasure.stripes import fragments_of

Buffer = bytes | bytearray | memoryview

LIBRARY_HEADER_BYTES = 80
# Nearly all stripes have the full length; the others are the last ones of blobs being repaired.
HEADER_LENGTHS_CACHED_MAX = 64


class NotDecodable(Exception):
    """The fragments given do not determine what is asked for."""


class Codec(Protocol):
    """Encodes and decodes the stripes of one scheme. `length` is always the stripe's length in
    bytes; every fragment has `scheme.fragment_bytes(length)` bytes (ValueError otherwise)."""

    scheme: Scheme

    def encode(self, stripe: Buffer) -> list[Buffer]:
        """The fragments of a stripe (1 or more bytes), by index. They may share memory with the
        stripe, which must not change afterwards; one of type `bytes` is not copied first."""
        ...

    def decode(
        self, fragments: Mapping[int, Buffer], length: int, start: int = 0, stop: int | None = None
    ) -> list[Buffer]:
        """Bytes [start, stop) of the stripe (by default all of it) as consecutive buffers that
        share memory with the fragments. Raises NotDecodable.

        The data fragments of that range are enough; else as many as `Scheme.minimal_read` says.
        """
        ...

    def reconstruct(self, fragments: Mapping[int, Buffer], wanted: int, length: int) -> Buffer:
        """Fragment `wanted`, data or parity, from others. Raises NotDecodable."""
        ...


@lru_cache(maxsize=64)
def codec_of(scheme: Scheme) -> Codec:
    """The codec of a scheme, shared by all callers of this process."""
    return _CODECS[scheme.code](scheme)


class _Copies:
    """1 + t plain copies: every fragment is the stripe."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme

    def encode(self, stripe: Buffer) -> list[Buffer]:
        if not stripe:
            raise ValueError("a stripe has at least one byte")
        return [stripe] * self.scheme.width

    def decode(
        self, fragments: Mapping[int, Buffer], length: int, start: int = 0, stop: int | None = None
    ) -> list[Buffer]:
        stop = _checked_stop(length, start, stop)
        if start == stop:
            return []
        copy = self._any(fragments, length)
        return [copy if stop - start == length else memoryview(copy)[start:stop]]

    def reconstruct(self, fragments: Mapping[int, Buffer], wanted: int, length: int) -> Buffer:
        _check_index(self.scheme, wanted)
        return self._any(fragments, length)

    def _any(self, fragments: Mapping[int, Buffer], length: int) -> Buffer:
        _check_fragments(self.scheme, fragments, length)
        for copy in fragments.values():
            return copy
        raise NotDecodable(f"{self.scheme}: no copy was given")


class _Linear:
    """A systematic linear code of PyECLib's."""

    def __init__(self, scheme: Scheme, driver: ECDriver) -> None:
        self.scheme = scheme
        self._driver = driver
        self._headers: Callable[[int], list[bytes]] = lru_cache(HEADER_LENGTHS_CACHED_MAX)(
            self._make_headers
        )
        self._check_library()

    def encode(self, stripe: Buffer) -> list[Buffer]:
        if not stripe:
            raise ValueError("a stripe has at least one byte")
        stripe = stripe if isinstance(stripe, bytes) else bytes(stripe)
        encoded = self._driver.encode(stripe)
        size = self.scheme.fragment_bytes(len(stripe))
        whole = len(stripe) // size  # data fragments without padding: windows of the stripe
        view = memoryview(stripe)
        fragments: list[Buffer] = [view[i * size : (i + 1) * size] for i in range(whole)]
        fragments += [memoryview(piece)[LIBRARY_HEADER_BYTES:] for piece in encoded[whole:]]
        return fragments

    def decode(
        self, fragments: Mapping[int, Buffer], length: int, start: int = 0, stop: int | None = None
    ) -> list[Buffer]:
        stop = _checked_stop(length, start, stop)
        if start == stop:
            return []
        _check_fragments(self.scheme, fragments, length)
        size = self.scheme.fragment_bytes(length)
        needed = fragments_of(self.scheme, length, start, stop)
        missing = [index for index in needed if index not in fragments]
        rebuilt = self._rebuild(fragments, missing, length) if missing else {}
        buffers: list[Buffer] = []
        for index in needed:
            fragment = rebuilt[index] if index in rebuilt else fragments[index]
            low, high = max(start - index * size, 0), min(stop - index * size, size)
            buffers.append(fragment if high - low == size else memoryview(fragment)[low:high])
        return buffers

    def reconstruct(self, fragments: Mapping[int, Buffer], wanted: int, length: int) -> Buffer:
        _check_index(self.scheme, wanted)
        _check_fragments(self.scheme, fragments, length)
        if wanted in fragments:
            return fragments[wanted]
        return self._rebuild(fragments, [wanted], length)[wanted]

    def _rebuild(
        self, fragments: Mapping[int, Buffer], wanted: list[int], length: int
    ) -> dict[int, memoryview]:
        sources = self.scheme.minimal_read(list(fragments), wanted)
        if sources is None:
            raise NotDecodable(f"{self.scheme}: fragments {sorted(fragments)} do not suffice")
        headers = self._headers(length)
        framed = [b"".join((headers[index], fragments[index])) for index in sources]
        rebuilt = self._driver.reconstruct(framed, list(wanted))
        return {
            index: memoryview(piece)[LIBRARY_HEADER_BYTES:]
            for index, piece in zip(sorted(wanted), rebuilt, strict=True)
        }

    def _make_headers(self, length: int) -> list[bytes]:
        return [piece[:LIBRARY_HEADER_BYTES] for piece in self._driver.encode(bytes(length))]

    def _check_library(self) -> None:
        """A library that frames or pads otherwise would write shards that nobody can read."""
        probe = bytes(range(1, self.scheme.data + 2))
        size = self.scheme.fragment_bytes(len(probe))
        padded = probe.ljust(size * self.scheme.data, b"\0")
        for index, piece in enumerate(self._driver.encode(probe)):
            right_size = len(piece) == LIBRARY_HEADER_BYTES + size
            data = (
                index >= self.scheme.data
                or piece[LIBRARY_HEADER_BYTES:] == (padded[index * size : (index + 1) * size])
            )
            if not (right_size and data):
                raise RuntimeError("this PyECLib lays out fragments in another way")


class _ReedSolomon(_Linear):
    """ISA-L's Cauchy Reed-Solomon code."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(
            scheme, ECDriver(ec_type="isa_l_rs_cauchy", k=scheme.data, m=scheme.parity)
        )


class _LocalReconstruction(_Linear):
    """ISA-L's Reed-Solomon code with local parities. The library rebuilds from exactly the
    fragments that it is given, so from a local group alone; which ones suffice it does not know
    (its `fragments_needed` ignores the groups): the scheme does."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(
            scheme,
            ECDriver(
                ec_type="isa_l_rs_lrc", k=scheme.data, m=scheme.parity, local_parity=scheme.local
            ),
        )
        self._check_coefficients()

    def _check_coefficients(self) -> None:
        for column in range(self.scheme.data):
            unit = bytes(int(column == other) for other in range(self.scheme.data))
            for row, fragment in zip(generator(self.scheme), self.encode(unit), strict=True):
                if bytes(fragment) != row[column : column + 1]:
                    raise RuntimeError("this PyECLib computes local parities in another way")


_CODECS: dict[Code, Callable[[Scheme], Codec]] = {
    Code.COPIES: _Copies,
    Code.REED_SOLOMON: _ReedSolomon,
    Code.LOCAL_RECONSTRUCTION: _LocalReconstruction,
}


def _checked_stop(length: int, start: int, stop: int | None) -> int:
    stop = length if stop is None else stop
    if not 0 <= start <= stop <= length:
        raise ValueError(f"bytes [{start}, {stop}) are not in a stripe of {length}")
    return stop


def _check_index(scheme: Scheme, index: int) -> None:
    if not 0 <= index < scheme.width:
        raise ValueError(f"scheme {scheme} has no fragment {index}")


def _check_fragments(scheme: Scheme, fragments: Mapping[int, Buffer], length: int) -> None:
    """The C code believes the lengths in its headers, so they are checked before."""
    size = scheme.fragment_bytes(length)
    for index, fragment in fragments.items():
        _check_index(scheme, index)
        if len(fragment) != size:
            raise ValueError(f"fragment {index} has {len(fragment)} bytes instead of {size}")
