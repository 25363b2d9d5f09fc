"""The Range header (RFC 9110 §14) and `x-amz-copy-source-range`.

S3 serves one range. Several ranges, another unit or a malformed header are as if there were no
header: the whole object, 200. A range that starts past the end is 416.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3gw.errors import InvalidArgument, InvalidRange
from s3gw.limits import RANGE_HEADER_BYTES_MAX

# A position of more digits lies beyond any object; it is not worth turning into a number.
POSITION_DIGITS_MAX = 19
BEYOND = 10**POSITION_DIGITS_MAX
COPY_RANGE_FORM = (
    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last "
    "are the zero-based offsets of the first and last bytes to copy"
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last`, both included, of an object of `size` bytes."""

    first: int
    last: int
    size: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    @property
    def content_range(self) -> str:
        """The Content-Range header of a 206."""
        return f"bytes {self.first}-{self.last}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range of an object of `size` bytes to serve, or None for the whole.

    Raises InvalidRange when the range cannot be satisfied.

    >>> parse_range("bytes=0-4", 10)
    ByteRange(first=0, last=4, size=10)
    >>> parse_range("bytes=5-", 10)
    ByteRange(first=5, last=9, size=10)
    >>> parse_range("bytes=-3", 10)
    ByteRange(first=7, last=9, size=10)
    >>> parse_range("bytes=0-4,6-7", 10) is None
    True
    """
    if header is None or len(header) > RANGE_HEADER_BYTES_MAX:
        return None
    unit, equals, spec = header.partition("=")
    if not equals or unit.strip().lower() != "bytes" or "," in spec:
        return None
    first_text, dash, last_text = spec.strip().partition("-")
    if not dash:
        return None
    if not first_text:
        suffix = _position(last_text)
        if suffix is None:
            return None
        first, last = max(size - suffix, 0), size - 1
        satisfiable = suffix > 0 and size > 0
    else:
        start = _position(first_text)
        end = BEYOND if not last_text else _position(last_text)
        if start is None or end is None or end < start:
            return None
        first, last = start, min(end, size - 1)
        satisfiable = first < size
    if not satisfiable:
        raise InvalidRange(
            headers={"Content-Range": f"bytes */{size}"},
            RangeRequested=header,
            ActualObjectSize=str(size),
        )
    return ByteRange(first, last, size)


def parse_copy_range(header: str, size: int) -> ByteRange:
    """`x-amz-copy-source-range`: strictly `bytes=first-last`, inside the source's `size` bytes.

    Raises InvalidArgument.
    """
    prefix, _, spec = header.partition("=")
    first_text, _, last_text = spec.partition("-")
    first, last = _position(first_text), _position(last_text)
    if (
        len(header) > RANGE_HEADER_BYTES_MAX
        or prefix != "bytes"
        or first is None
        or last is None
        or last < first
    ):
        raise InvalidArgument(
            COPY_RANGE_FORM,
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header[:RANGE_HEADER_BYTES_MAX],
        )
    if last >= size:
        raise InvalidArgument(
            f"Range specified is not valid for source object of size: {size}",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    return ByteRange(first, last, size)


def _position(digits: str) -> int | None:
    if not (digits.isascii() and digits.isdigit()):
        return None
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= POSITION_DIGITS_MAX else BEYOND
