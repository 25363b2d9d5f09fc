"""Checksums of object data: the algorithms of S3, what a request asks for, and multipart sums.

Source: Amazon S3 User Guide, "Checking object integrity in Amazon S3"; the algorithms are the
members of `ChecksumAlgorithm` in botocore's service model.

A multipart object's checksum has a type. COMPOSITE is the algorithm over the concatenated sums of
the parts, written `base64-N`. FULL_OBJECT is the sum of the bytes themselves, which only a CRC
yields from those of its parts: CRC(AB) follows from CRC(A), CRC(B) and the length of B.
A single PUT is always FULL_OBJECT.
"""

from __future__ import annotations

import binascii
import hashlib
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Protocol

import xxhash
from awscrt import checksums as crt

from s3gw.errors import BadDigest, InvalidDigest, InvalidRequest

HEADER_PREFIX = "x-amz-checksum-"
# Headers with the prefix that carry no sum.
AUXILIARY_HEADERS = frozenset(
    {"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"}
)
MD5_BYTES = 16

Buffer = bytes | bytearray | memoryview
CrcFunction = Callable[[Buffer, int], int]
CombineFunction = Callable[[int, int, int], int]


class Hasher(Protocol):
    """A running checksum."""

    def update(self, data: Buffer, /) -> object: ...
    def digest(self) -> bytes: ...


class ChecksumType(StrEnum):
    """How the checksum of a multipart object is made from its parts."""

    FULL_OBJECT = "FULL_OBJECT"
    COMPOSITE = "COMPOSITE"


class Crc:
    """A running CRC, big-endian as S3 writes it."""

    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: CrcFunction, size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row of the table. `types` are those a multipart upload may ask for, default first."""

    name: str
    digest_bytes: int
    new: Callable[[], Hasher] = field(repr=False)
    types: tuple[ChecksumType, ...]
    combine: CombineFunction | None = field(default=None, repr=False)

    @property
    def header(self) -> str:
        """The request, response and trailer header that carries the sum in base64."""
        return HEADER_PREFIX + self.name.lower()


BOTH = (ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT)
FULL = (ChecksumType.FULL_OBJECT,)
PARTS = (ChecksumType.COMPOSITE,)


def _table() -> tuple[Algorithm, ...]:
    # zlib's CRC32 was measured faster than awscrt's (0.25 against 0.35 ms per MiB) and releases
    # the GIL; the other two take 0.02 ms per MiB.
    crc32 = partial(Crc, zlib.crc32, 4)
    crc32c = partial(Crc, crt.crc32c, 4)
    crc64 = partial(Crc, crt.crc64nvme, 8)
    sha1 = partial(hashlib.sha1, usedforsecurity=False)
    md5 = partial(hashlib.md5, usedforsecurity=False)
    return (
        Algorithm("CRC32", 4, crc32, BOTH, crt.combine_crc32),
        Algorithm("CRC32C", 4, crc32c, BOTH, crt.combine_crc32c),
        Algorithm("CRC64NVME", 8, crc64, FULL, crt.combine_crc64nvme),
        Algorithm("SHA1", 20, sha1, PARTS),
        Algorithm("SHA256", 32, hashlib.sha256, PARTS),
        Algorithm("SHA512", 64, hashlib.sha512, PARTS),
        Algorithm("MD5", MD5_BYTES, md5, PARTS),
        Algorithm("XXHASH64", 8, xxhash.xxh64, PARTS),
        Algorithm("XXHASH3", 8, xxhash.xxh3_64, PARTS),
        Algorithm("XXHASH128", 16, xxhash.xxh3_128, PARTS),
    )


ALGORITHMS: Mapping[str, Algorithm] = {row.name: row for row in _table()}
BY_HEADER: Mapping[str, Algorithm] = {row.header: row for row in ALGORITHMS.values()}


@dataclass(frozen=True, slots=True)
class Requested:
    """What a request wants verified.

    `algorithm` is the one to compute and store, None when the client asked for none. `expected` is
    its sum from a header; None with `in_trailer` when it follows the body. `content_md5` is the
    digest of Content-MD5.
    """

    algorithm: Algorithm | None = None
    expected: bytes | None = None
    in_trailer: bool = False
    content_md5: bytes | None = None

    def expected_after(self, trailers: Mapping[str, str]) -> bytes | None:
        """The sum to compare with, now that the body's trailers are known."""
        if self.algorithm is None or not self.in_trailer:
            return self.expected
        return decode(self.algorithm, trailers[self.algorithm.header])

    def verify(self, digest: bytes, trailers: Mapping[str, str]) -> None:
        """Compare the algorithm's computed sum with the client's. Raises BadDigest."""
        expected = self.expected_after(trailers)
        if self.algorithm is not None and expected is not None and expected != digest:
            raise mismatch(self.algorithm)

    def verify_md5(self, digest: bytes) -> None:
        """Compare the computed MD5 with Content-MD5. Raises BadDigest."""
        if self.content_md5 is not None and self.content_md5 != digest:
            raise BadDigest(
                "The Content-MD5 you specified did not match what we received.",
                ExpectedDigest=encode(self.content_md5),
                CalculatedDigest=encode(digest),
            )


NOTHING_REQUESTED = Requested()


def requested(headers: Mapping[str, str], trailer_names: Collection[str] = ()) -> Requested:
    """Which checksum a request carries. `headers` by lower-case name.

    `trailer_names` are those of `x-amz-trailer` (`aws_chunked.parse_trailer_names`).
    Raises InvalidRequest and InvalidDigest with S3's messages.
    """
    sums = [name for name in headers if name.startswith(HEADER_PREFIX)]
    wanted = headers.get("x-amz-sdk-checksum-algorithm")
    md5_text = headers.get("content-md5")
    if not sums and wanted is None and md5_text is None and not trailer_names:
        return NOTHING_REQUESTED
    md5 = None if md5_text is None else decode_md5(md5_text)
    carriers = [name for name in sums if name not in AUXILIARY_HEADERS]
    algorithm = _single_algorithm(carriers, trailer_names)
    if wanted is not None:
        _check_sdk_algorithm(wanted, algorithm)
    if algorithm is None:
        return Requested(content_md5=md5)
    expected = decode(algorithm, headers[carriers[0]]) if carriers else None
    return Requested(algorithm, expected, not carriers, md5)


def algorithm_named(name: str) -> Algorithm:
    """The algorithm of `x-amz-checksum-algorithm`. Raises InvalidRequest."""
    algorithm = ALGORITHMS.get(name.upper())
    if algorithm is None:
        raise InvalidRequest(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            f"types: [{', '.join(sorted(ALGORITHMS))}]"
        )
    return algorithm


def multipart_type(algorithm: Algorithm, requested_type: str | None) -> ChecksumType:
    """The type of a multipart upload's checksum. Raises InvalidRequest for one not offered."""
    if requested_type is None:
        return algorithm.types[0]
    try:
        wanted = ChecksumType(requested_type.upper())
    except ValueError:
        raise InvalidRequest("Value for x-amz-checksum-type header is invalid.") from None
    if wanted not in algorithm.types:
        raise InvalidRequest(
            f"The {wanted} checksum type cannot be used with the {algorithm.name.lower()} "
            "checksum algorithm."
        )
    return wanted


def full_object(algorithm: Algorithm, parts: Iterable[tuple[bytes, int]]) -> bytes:
    """The sum of the joined parts from each part's (sum, length in bytes). CRCs only.

    O(log length) per part.
    """
    combine = algorithm.combine
    if combine is None:
        raise ValueError(f"{algorithm.name} of a whole does not follow from its parts")
    whole = 0
    for digest, length in parts:
        # An empty part changes nothing: its CRC is 0.
        whole = combine(whole, int.from_bytes(digest, "big"), length)
    return whole.to_bytes(algorithm.digest_bytes, "big")


def composite(algorithm: Algorithm, digests: Sequence[bytes]) -> str:
    """The COMPOSITE checksum `base64-N` of parts with these sums."""
    hasher = algorithm.new()
    for digest in digests:
        hasher.update(digest)
    return f"{encode(hasher.digest())}-{len(digests)}"


def encode(digest: bytes) -> str:
    """A sum as headers and XML carry it."""
    return b64encode(digest).decode()


def decode(algorithm: Algorithm, text: str) -> bytes:
    """The sum in a checksum header. Raises InvalidRequest when it is none of this algorithm."""
    digest = _strict_base64(text, algorithm.digest_bytes)
    if digest is None:
        raise InvalidRequest(f"Value for {algorithm.header} header is invalid.")
    return digest


def is_digest(algorithm: Algorithm, text: str) -> bool:
    """Whether `text` can be a sum of this algorithm."""
    return _strict_base64(text, algorithm.digest_bytes) is not None


def decode_md5(text: str) -> bytes:
    """The digest in Content-MD5. Raises InvalidDigest."""
    digest = _strict_base64(text, MD5_BYTES)
    if digest is None:
        raise InvalidDigest("The Content-MD5 you specified is not valid.")
    return digest


def mismatch(algorithm: Algorithm) -> BadDigest:
    """The error when data and the client's sum differ."""
    return BadDigest(f"The {algorithm.name} you specified did not match the calculated checksum.")


def _single_algorithm(carriers: Sequence[str], trailer_names: Collection[str]) -> Algorithm | None:
    if len(carriers) > 1 or len(trailer_names) > 1:
        raise InvalidRequest(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    if carriers and trailer_names:
        raise InvalidRequest("Expecting a single x-amz-checksum- header")
    for name in (*carriers, *trailer_names):
        algorithm = BY_HEADER.get(name)
        if algorithm is None:
            raise InvalidRequest(
                "The algorithm type you specified in x-amz-checksum- header is invalid."
            )
        return algorithm
    return None


def _check_sdk_algorithm(wanted: str, algorithm: Algorithm | None) -> None:
    if wanted.upper() not in ALGORITHMS:
        raise InvalidRequest("Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if algorithm is None:
        raise InvalidRequest(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* "
            "or x-amz-trailer headers were found."
        )
    if wanted.upper() != algorithm.name:
        raise InvalidRequest("Value for x-amz-sdk-checksum-algorithm header is invalid.")


def _strict_base64(text: str, size: int) -> bytes | None:
    if len(text) != (size + 2) // 3 * 4:
        return None
    try:
        digest = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == size else None
