"""CORS: which scripts of other sites a browser may let at a bucket.

The rules are tried in order; the first that fits origin and method (and, of a preflight, every
requested header) answers. An origin or header pattern may have one `*`. Origins are compared as
they are, header names without case. A rule for `*` answers `*`, which browsers never combine with
credentials; any other answers with the origin itself and allows credentials, as S3 does. So the
origin is only ever repeated to a site that a rule names.

Source: Amazon S3 User Guide, "Elements of a CORS configuration", "How does Amazon S3 evaluate the
CORS configuration on a bucket"; Fetch Standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from s3gw import limits
from s3gw.buckets.document import (
    INTEGER_MAX,
    Document,
    Integer,
    Structure,
    Text,
    Value,
    optional,
    several,
)
from s3gw.errors import AccessForbidden, BadRequest, InvalidRequest
from s3gw.wire.headers import TOKEN_CHARACTERS

METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
ID_CHARACTERS_MAX = 255
ANY = "*"
VARY = ("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of "
    "Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are "
    "not whitelisted by the resource's CORS spec."
)

_RULE = Structure(
    (
        optional("ID", Text()),
        several("AllowedHeader", Text(1)),
        several("AllowedMethod", Text(), least=1),
        several("AllowedOrigin", Text(1), least=1),
        several("ExposeHeader", Text(1)),
        optional("MaxAgeSeconds", Integer(-INTEGER_MAX)),  # a negative one: not to be kept
    )
)


def _check(value: Value) -> None:
    rules = value["CORSRule"]
    if len(rules) > limits.CORS_RULES_MAX:
        raise InvalidRequest(
            "The number of CORS rules should not exceed allowed limit of "
            f"{limits.CORS_RULES_MAX} rules."
        )
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: Value) -> None:
    if len(rule.get("ID", "")) > ID_CHARACTERS_MAX:
        raise InvalidRequest(f"The ID of a rule may have {ID_CHARACTERS_MAX} characters.")
    for method in rule["AllowedMethod"]:
        if method not in METHODS:
            raise InvalidRequest(
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for name in ("AllowedOrigin", "AllowedHeader"):
        for pattern in rule.get(name, ()):
            if pattern.count(ANY) > 1:
                raise InvalidRequest(f'{name} "{pattern}" can not have more than one wildcard.')
    for name in rule.get("ExposeHeader", ()):
        if ANY in name:
            raise InvalidRequest(
                f'ExposeHeader "{name}" contains wildcard. We currently do not support wildcard '
                "for ExposeHeader."
            )
        if not _is_token(name):
            raise InvalidRequest(f'ExposeHeader "{name}" contains invalid character.')
    for pattern in rule.get("AllowedHeader", ()):
        if not _is_token(pattern):
            raise InvalidRequest(f'AllowedHeader "{pattern}" contains invalid character.')


def _is_token(name: str) -> bool:
    return TOKEN_CHARACTERS.issuperset(name.lower()) and name.isascii()


CORS = Document(
    "cors", "CORSConfiguration", Structure((several("CORSRule", _RULE, least=1),)), _check
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; header patterns in lower case."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    max_age: int | None


@lru_cache(maxsize=64)
def rules_of(stored: bytes) -> tuple[Rule, ...]:
    """The rules of a stored configuration."""
    return tuple(
        Rule(
            tuple(rule["AllowedOrigin"]),
            tuple(rule["AllowedMethod"]),
            tuple(pattern.lower() for pattern in rule.get("AllowedHeader", ())),
            tuple(rule.get("ExposeHeader", ())),
            rule.get("MaxAgeSeconds"),
        )
        for rule in CORS.read_stored(stored)["CORSRule"]
    )


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, whose `*`, if any, stands for any characters.

    >>> matches("https://*.example.com", "https://a.b.example.com"), matches("a*a", "a")
    (True, False)
    """
    before, star, after = pattern.partition(ANY)
    if not star:
        return text == pattern
    fits = len(text) >= len(before) + len(after)
    return fits and text.startswith(before) and text.endswith(after)


Headers = list[tuple[str, str]]


def answer_headers(stored: bytes, origin: str, method: str) -> Headers:
    """What the answer to a request from `origin` carries; nothing when no rule allows it."""
    for rule in rules_of(stored):
        pattern = _allowing(rule, origin, method)
        if pattern is not None:
            return _headers(rule, pattern, origin, ())
    return []


def preflight_headers(
    stored: bytes | None,
    origin: str | None,
    method: str | None,
    requested: str | None,
    *,
    resource_type: str,
) -> Headers:
    """What the answer to a preflight carries. `origin`, `method` and `requested` are its headers
    Origin, Access-Control-Request-Method and -Headers. Raises BadRequest, AccessForbidden."""
    if not origin:
        raise BadRequest("Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise BadRequest(f"Invalid Access-Control-Request-Method: {method or 'null'}")
    sent = [name.strip() for name in (requested or "").split(",") if name.strip()]
    for name in sent:
        if ANY in name or not _is_token(name):
            raise BadRequest(f'Access-Control-Request-Headers "{name}" contains invalid character.')
    if stored is None:
        raise AccessForbidden(Method=method, ResourceType=resource_type)
    names = [name.lower() for name in sent]
    for rule in rules_of(stored):
        pattern = _allowing(rule, origin, method)
        if pattern is not None and all(_allows_header(rule, name) for name in names):
            return _headers(rule, pattern, origin, names)
    raise AccessForbidden(
        NOT_ALLOWED, headers=dict((VARY,)), Method=method, ResourceType=resource_type
    )


def _allowing(rule: Rule, origin: str, method: str) -> str | None:
    """The rule's pattern for this origin, if the rule allows it this method."""
    if method not in rule.methods:
        return None
    return next((pattern for pattern in rule.origins if matches(pattern, origin)), None)


def _allows_header(rule: Rule, name: str) -> bool:
    return any(matches(pattern, name) for pattern in rule.headers)


def _headers(rule: Rule, pattern: str, origin: str, names: Sequence[str]) -> Headers:
    headers = [
        ("Access-Control-Allow-Origin", ANY if pattern == ANY else origin),
        ("Access-Control-Allow-Methods", ", ".join(rule.methods)),
    ]
    if names:
        headers.append(("Access-Control-Allow-Headers", ", ".join(names)))
    if rule.exposed:
        headers.append(("Access-Control-Expose-Headers", ", ".join(rule.exposed)))
    if rule.max_age is not None:
        headers.append(("Access-Control-Max-Age", str(rule.max_age)))
    if pattern != ANY:
        headers.append(("Access-Control-Allow-Credentials", "true"))
    return headers
