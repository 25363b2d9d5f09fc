"""The conditions of a statement: all operators of IAM, with `…IfExists` and the set qualifiers.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Set operators for
multi-valued context keys". Of a key with several values, one that satisfies is enough; of several
values in the policy, one that matches is enough, and for a negated operator none may match. A key
that the request does not have matches nothing: it fails an operator and satisfies a negated one.
`ForAllValues` is true of a key without values, `ForAnyValue` never.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import operator as compare
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from s3gw.auth.patterns import Pattern, PolicyError, Values

T = TypeVar("T")
Test = Callable[[str, Values], bool]
"""Whether a value of the request matches one of the policy."""
Maker = Callable[[str, bool], Test]
"""From a value of the policy (and whether variables count in it). Raises PolicyError."""

IF_EXISTS = "IfExists"
FOR_ALL, FOR_ANY = "ForAllValues", "ForAnyValue"
NUMBER_CHARACTERS_MAX = 64
_PARTIAL_DATE = re.compile(r"\d{4}(-\d{2})?", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_EPOCH = re.compile(r"-?\d{1,12}(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operator:
    """`negated`: satisfied by a value that matches none of the policy's."""

    make: Maker
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a condition block. `key` is in lower case; `patterns` are the values as written;
    `operator` is without qualifier and suffix."""

    operator: str
    key: str
    patterns: tuple[str, ...]
    tests: tuple[Test, ...]
    negated: bool = False
    if_exists: bool = False
    qualifier: str = ""

    def holds(self, values: Values) -> bool:
        found = values.get(self.key)
        if self.operator == "Null":
            return any(test("" if found is None else "x", values) for test in self.tests)
        if found is None or (self.qualifier and not any(found)):
            if self.qualifier:
                return self.if_exists or self.qualifier == FOR_ALL
            return self.if_exists or self.negated
        if self.qualifier == FOR_ALL:
            return all(self._satisfies(value, values) for value in found)
        if self.qualifier == FOR_ANY or not self.negated:
            return any(self._satisfies(value, values) for value in found)
        return all(self._satisfies(value, values) for value in found)

    def _satisfies(self, value: str, values: Values) -> bool:
        return any(test(value, values) for test in self.tests) is not self.negated


def condition(name: str, key: str, texts: Sequence[str], *, variables: bool) -> Condition:
    """A condition of a policy. `name` may carry a qualifier and the suffix. Raises PolicyError."""
    qualifier, colon, bare = name.partition(":")
    if not colon:
        qualifier, bare = "", name
    if_exists = bare.endswith(IF_EXISTS)
    bare = bare.removesuffix(IF_EXISTS)
    known = OPERATORS.get(bare)
    wrong_qualifier = bool(colon) and qualifier not in (FOR_ALL, FOR_ANY)
    if known is None or wrong_qualifier or (bare == "Null" and (if_exists or colon)):
        raise PolicyError(f"Invalid Condition type : {name}")
    if not texts:
        raise PolicyError("Condition has no values")
    tests = tuple(known.make(text, variables) for text in texts)
    return Condition(bare, key.lower(), tuple(texts), tests, known.negated, if_exists, qualifier)


def _text(*, wildcards: bool, fold: Callable[[str], str] = str) -> Maker:
    def make(text: str, variables: bool) -> Test:
        return Pattern(text, variables=variables, wildcards=wildcards, fold=fold).matches

    return make


def _arn(text: str, variables: bool) -> Test:
    """The six parts of an ARN, each matched by itself: a star never reaches over a colon."""
    whole = Pattern(text, variables=variables)
    parts = [Pattern(part, variables=variables) for part in whole.split(":", 5)]
    if text != "*" and not text.startswith("${") and (len(parts) != 6 or parts[0].text != "arn"):
        raise PolicyError(f"Invalid ARN in a condition: {text}")

    def test(value: str, values: Values) -> bool:
        if len(parts) != 6:
            return whole.matches(value, values)
        given = value.split(":", 5)
        return len(given) == 6 and all(
            part.matches(piece, values) for part, piece in zip(parts, given, strict=True)
        )

    return test


def number(text: str) -> Decimal | None:
    """A decimal number, or None."""
    if len(text) > NUMBER_CHARACTERS_MAX:
        return None
    try:
        found = Decimal(text.strip())
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def moment(text: str) -> float | None:
    """Unix seconds of an ISO 8601 date (or its year, or month), or of seconds; None for others.

    >>> moment("2026-01-01T00:00:00Z") == moment("1767225600") == moment("2026-01")
    True
    """
    try:
        if _PARTIAL_DATE.fullmatch(text):
            text = f"{text}-01-01" if len(text) == 4 else f"{text}-01"
        elif _EPOCH.fullmatch(text):
            return float(text)
        if not _DATE.fullmatch(text):
            return None
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _compared(parse: Callable[[str], T | None], kind: str, holds: Callable[[T, T], bool]) -> Maker:
    """Makes tests that compare parsed values; a value that cannot be parsed fits nothing."""

    def make(text: str, _variables: bool) -> Test:
        wanted = parse(text)
        if wanted is None:
            raise PolicyError(f"Invalid {kind} in a condition: {text}")

        def test(value: str, _values: Values) -> bool:
            given = parse(value)
            return given is not None and holds(given, wanted)

        return test

    return make


def _numeric(holds: Callable[[Decimal, Decimal], bool]) -> Maker:
    return _compared(number, "numeric value", holds)


def _date(holds: Callable[[float, float], bool]) -> Maker:
    return _compared(moment, "date", holds)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise PolicyError(f"Invalid Boolean value in a condition: {text}")
    return text.lower() == "true"


def _bool(text: str, variables: bool) -> Test:
    if variables and text.startswith("${"):
        return Pattern(text, variables=True, wildcards=False, fold=str.lower).matches
    wanted = str(_truth(text)).lower()
    return lambda value, _values: value.lower() == wanted


def _null(text: str, _variables: bool) -> Test:
    absent = _truth(text)
    return lambda value, _values: (not value) is absent


def _binary(text: str, _variables: bool) -> Test:
    wanted = _decoded(text)
    if wanted is None:
        raise PolicyError(f"Invalid base64 value in a condition: {text}")
    return lambda value, _values: _decoded(value) == wanted


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(text: str) -> Network:
    """An address or a CIDR block. Raises PolicyError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise PolicyError(f"Invalid IP address or CIDR block in a condition: {text}") from None


def address(text: str) -> Address | None:
    """An address; one of IPv4 written in IPv6 is the IPv4 one."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _ip(text: str, _variables: bool) -> Test:
    wanted = network(text)

    def test(value: str, _values: Values) -> bool:
        given = address(value)
        return given is not None and given.version == wanted.version and given in wanted

    return test


_COMPARISONS = {
    "LessThan": compare.lt,
    "LessThanEquals": compare.le,
    "GreaterThan": compare.gt,
    "GreaterThanEquals": compare.ge,
}

OPERATORS: dict[str, Operator] = {
    "StringEquals": Operator(_text(wildcards=False)),
    "StringNotEquals": Operator(_text(wildcards=False), negated=True),
    "StringEqualsIgnoreCase": Operator(_text(wildcards=False, fold=str.casefold)),
    "StringNotEqualsIgnoreCase": Operator(_text(wildcards=False, fold=str.casefold), negated=True),
    "StringLike": Operator(_text(wildcards=True)),
    "StringNotLike": Operator(_text(wildcards=True), negated=True),
    "NumericEquals": Operator(_numeric(compare.eq)),
    "NumericNotEquals": Operator(_numeric(compare.eq), negated=True),
    "DateEquals": Operator(_date(compare.eq)),
    "DateNotEquals": Operator(_date(compare.eq), negated=True),
    **{f"Numeric{name}": Operator(_numeric(holds)) for name, holds in _COMPARISONS.items()},
    **{f"Date{name}": Operator(_date(holds)) for name, holds in _COMPARISONS.items()},
    "Bool": Operator(_bool),
    "BinaryEquals": Operator(_binary),
    "IpAddress": Operator(_ip),
    "NotIpAddress": Operator(_ip, negated=True),
    "ArnEquals": Operator(_arn),
    "ArnLike": Operator(_arn),
    "ArnNotEquals": Operator(_arn, negated=True),
    "ArnNotLike": Operator(_arn, negated=True),
    "Null": Operator(_null),
}
