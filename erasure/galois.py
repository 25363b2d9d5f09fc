"""Linear algebra over GF(2^8), as far as local reconstruction codes need it. Pure.

Field elements are bytes; addition is XOR, and multiplication is that of polynomials modulo
x^8+x^4+x^3+x^2+1 (0x11d), which 2 generates. A vector is `bytes`, one element per coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate

_MODULUS = 0x11D
_ORDER = 255

_powers = [
    *accumulate(range(_ORDER - 1), lambda x, _: x << 1 ^ (_MODULUS if x > 127 else 0), initial=1)
]
_logs = {power: exponent for exponent, power in enumerate(_powers)}


def power_of_two(exponent: int) -> int:
    """2 to the `exponent`.

    >>> [power_of_two(exponent) for exponent in (0, 1, 7, 8, 255)]
    [1, 2, 128, 29, 1]
    """
    return _powers[exponent % _ORDER]


def multiply(a: int, b: int) -> int:
    """
    >>> multiply(2, 128), multiply(0, 7), multiply(173, 8)
    (29, 0, 1)
    """
    return power_of_two(_logs[a] + _logs[b]) if a and b else 0


def divide(a: int, b: int) -> int:
    """Raises ZeroDivisionError.

    >>> divide(1, 8), divide(29, 128)
    (173, 2)
    """
    if not b:
        raise ZeroDivisionError("division by zero in GF(2^8)")
    return power_of_two(_logs[a] - _logs[b]) if a else 0


def interpolation_row(count: int, exponent: int) -> bytes:
    """The value at 2**exponent of the polynomial of degree below `count` whose values at 2**0,
    2**1, ... are given, as a linear combination of these values: Lagrange's coefficients.

    >>> list(interpolation_row(2, 1)), list(interpolation_row(8, 8))
    ([0, 1], [24, 200, 173, 239, 54, 81, 11, 255])
    """
    point = power_of_two(exponent)
    row = bytearray()
    for here in range(count):
        coefficient = 1
        for other in range(count):
            if other != here:
                above = point ^ power_of_two(other)
                below = power_of_two(here) ^ power_of_two(other)
                coefficient = multiply(coefficient, divide(above, below))
        row.append(coefficient)
    return bytes(row)


class Span:
    """What some rows of a matrix span, and how. Rows are added in order of preference; one that
    those before it give already is passed over, so that the rows taken are independent."""

    def __init__(self, matrix: Sequence[bytes], indexes: Iterable[int]) -> None:
        self._matrix = matrix
        self._columns = len(matrix[0])
        # By leading column: a reduced row, followed by its combination of the matrix's rows.
        self._pivots: dict[int, bytes] = {}
        for index in indexes:
            own = bytes(int(index == other) for other in range(len(matrix)))
            vector = self._reduced(matrix[index] + own)
            lead = next((c for c in range(self._columns) if vector[c]), None)
            if lead is not None:
                self._pivots[lead] = _scaled(vector, divide(1, vector[lead]))

    @property
    def rank(self) -> int:
        return len(self._pivots)

    def support(self, index: int) -> set[int] | None:
        """The rows that give row `index`: of the rows taken there is exactly one combination.
        None when they do not give it.

        >>> rows = [b"\\x01\\x00", b"\\x00\\x01", b"\\x01\\x01"]
        >>> Span(rows, [1, 2]).support(0), Span(rows, [1]).support(0)
        ({1, 2}, None)
        """
        vector = self._reduced(self._matrix[index] + bytes(len(self._matrix)))
        if any(vector[: self._columns]):
            return None
        combination = vector[self._columns :]
        return {row for row, coefficient in enumerate(combination) if coefficient}

    def _reduced(self, vector: bytes) -> bytes:
        for lead, pivot in self._pivots.items():
            if vector[lead]:
                vector = _sum(vector, _scaled(pivot, vector[lead]))
        return vector


def _sum(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(len(a))


def _scaled(vector: bytes, factor: int) -> bytes:
    return vector.translate(_times(factor))


@cache
def _times(factor: int) -> bytes:
    return bytes(multiply(factor, element) for element in range(256))
