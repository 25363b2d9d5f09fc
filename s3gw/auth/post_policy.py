"""The policy of a form upload: what its signer lets the bearer of the form upload.

    {"expiration": "2026-01-01T12:00:00.000Z",
     "conditions": [{"bucket": "pictures"}, ["starts-with", "$key", "user/eric/"],
                    ["content-length-range", 1, 1048576]]}

Every condition must hold, and every field of the form but those in EXEMPT must have one: a field
that nobody thought of would otherwise do what the signer did not allow. Names of fields and of
operators are compared without case, values with it. Fields are judged as they act: `${filename}` is
replaced before. A condition about a field that is not there fails.

Sources: Amazon S3 API Reference, "POST Policy", "Browser-Based Uploads Using POST".
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from s3gw.errors import AccessDenied, EntityTooLarge, EntityTooSmall, InvalidPolicyDocument
from s3gw.wire.dates import parse_iso8601_ms

EXEMPT = frozenset({"awsaccesskeyid", "signature", "policy", "x-amz-signature"})
IGNORED_PREFIX = "x-ignore-"
BUCKET = "bucket"
CONTENT_TYPE = "content-type"
EQUAL, STARTS_WITH, LENGTH_RANGE = "eq", "starts-with", "content-length-range"
SIZE_DIGITS_MAX = 19
EXPIRATION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
# Two escapes that JSON does not have and S3's documentation lists.
OTHER_ESCAPES = {rb"\$": b"$", rb"\v": rb"\u000b"}


@dataclass(frozen=True, slots=True)
class FileSize:
    """The sizes that a file may have, in bytes; both ends included."""

    least: int = 0
    most: int | None = None

    def and_also(self, other: FileSize) -> FileSize:
        """What both allow."""
        ends = [size for size in (self.most, other.most) if size is not None]
        return FileSize(max(self.least, other.least), min(ends, default=None))

    def check_so_far(self, size: int) -> None:
        """Raises EntityTooLarge when so many bytes are too many already."""
        if self.most is not None and size > self.most:
            raise EntityTooLarge(ProposedSize=str(size), MaxSizeAllowed=str(self.most))

    def check(self, size: int) -> None:
        """Raises EntityTooLarge, EntityTooSmall."""
        self.check_so_far(size)
        if size < self.least:
            raise EntityTooSmall(ProposedSize=str(size), MinSizeAllowed=str(self.least))


ANY_SIZE = FileSize()


@dataclass(frozen=True, slots=True)
class Condition:
    """One about a field, whose name is in lower case. `text` is how messages show it."""

    field: str
    operator: str
    operand: str
    text: str

    def holds(self, value: str | None) -> bool:
        if value is None:
            return False
        if self.operator == EQUAL:
            return value == self.operand
        # Of several content types each must begin so.
        values = value.split(",") if self.field == CONTENT_TYPE else [value]
        return all(each.strip().startswith(self.operand) for each in values)


@dataclass(frozen=True, slots=True)
class PostPolicy:
    """A policy as read. `expiration` in Unix milliseconds."""

    expiration_ms: int
    conditions: tuple[Condition, ...]
    file_size: FileSize

    def check(self, fields: Mapping[str, str], bucket: str, now: float) -> None:
        """Whether the form may be sent to the bucket at `now`, in Unix seconds; `fields` by name in
        lower case, as they act, without the file. Raises AccessDenied."""
        if now * 1000 >= self.expiration_ms:
            raise _denied("Policy expired.")
        asked = {**fields, BUCKET: bucket}
        for condition in self.conditions:
            if not condition.holds(asked.get(condition.field)):
                raise _denied(f"Policy Condition failed: {condition.text}")
        named = {condition.field for condition in self.conditions} | EXEMPT
        extra = [n for n in asked if n not in named and not n.startswith(IGNORED_PREFIX)]
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def parse_post_policy(encoded: str) -> PostPolicy:
    """The policy in the field `policy`: JSON in Base64. Raises InvalidPolicyDocument."""
    document = _json(encoded)
    for name in document:
        if name not in ("expiration", "conditions"):
            raise _invalid(f"Unexpected: '{name}'.")
    expiration = document.get("expiration")
    if expiration is None:
        raise _invalid("Policy missing expiration.")
    if not isinstance(expiration, str) or not EXPIRATION.fullmatch(expiration):
        raise _invalid(f"Invalid 'expiration' value: '{expiration}'")
    expiration_ms = parse_iso8601_ms(expiration)
    if expiration_ms is None:
        raise _invalid(f"Invalid 'expiration' value: '{expiration}'")
    listed = document.get("conditions")
    if not isinstance(listed, list):
        raise _invalid("Policy missing conditions.")
    conditions: list[Condition] = []
    file_size = ANY_SIZE
    for element in listed:
        found = _condition(element)
        if isinstance(found, FileSize):
            file_size = file_size.and_also(found)
        else:
            conditions.append(found)
    return PostPolicy(expiration_ms, tuple(conditions), file_size)


def _condition(element: Any) -> Condition | FileSize:
    if isinstance(element, dict):
        if len(element) != 1:
            raise _invalid(
                "Invalid Simple-Condition: Simple-Conditions must have exactly one property "
                "specified."
            )
        ((field, value),) = element.items()
        if not isinstance(value, str):
            raise _invalid("Invalid Simple-Condition: value must be a string.")
        return _about(field, EQUAL, value)
    if not isinstance(element, list) or len(element) != 3 or not isinstance(element[0], str):
        raise _invalid("Invalid Condition: it must be an operator with two operands.")
    operator, first, second = element[0].lower(), element[1], element[2]
    if operator == LENGTH_RANGE:
        return _file_size(first, second)
    if operator not in (EQUAL, STARTS_WITH):
        raise _invalid(f"Invalid Condition: unknown operation '{element[0]}'.")
    if not isinstance(first, str) or not isinstance(second, str):
        raise _invalid(f"Invalid {operator} condition: its operands must be strings.")
    if len(first) < 2 or not first.startswith("$"):
        raise _invalid(f"Invalid {operator} condition: a field is named as $field.")
    return _about(first[1:], operator, second)


def _about(field: str, operator: str, operand: str) -> Condition:
    text = json.dumps([operator, f"${field}", operand], ensure_ascii=False)
    return Condition(field.lower(), operator, operand, text)


def _file_size(least: Any, most: Any) -> FileSize:
    size = FileSize(_size(least), _size(most))
    if size.most is not None and size.least > size.most:
        raise _invalid("Invalid content-length-range: the lower bound is above the upper one.")
    return size


def _size(value: Any) -> int:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit()) or len(text) > SIZE_DIGITS_MAX:
        raise _invalid("Invalid content-length-range: its bounds must be sizes in bytes.")
    return int(text)


def _json(encoded: str) -> dict[str, Any]:
    """The JSON object, without names twice, and text that UTF-8 can carry."""
    try:
        document = base64.b64decode(encoded, validate=True)
        document = re.sub(
            rb"\\.", lambda found: OTHER_ESCAPES.get(found[0], found[0]), document, flags=re.DOTALL
        )
        root = json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_not_json)
        json.dumps(root, ensure_ascii=False).encode()  # no half of a surrogate pair
    except (ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(root, dict):
        raise _invalid("Invalid JSON.")
    return root


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)


def _denied(message: str) -> AccessDenied:
    return AccessDenied(f"Invalid according to Policy: {message}")


def _invalid(message: str) -> InvalidPolicyDocument:
    return InvalidPolicyDocument(f"Invalid Policy: {message}")
