"""The parameters of a query: read from a form, and validated by what each may be.

`Action=CreateUser&UserName=ada&Tags.member.1.Key=team&…`. A parameter means the same in every
action that has it, so what it may be is written once, in `SPECIFICATIONS`. Bounds and patterns are
those of IAM's and STS's models. A parameter that an action does not have is refused, not ignored:
it would have asked for something.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from s3gw import limits
from s3gw.iam.errors import MalformedQueryString, ValidationError

PROTOCOL = frozenset({"Action", "Version"})
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MEMBER = re.compile(r"member\.([1-9][0-9]{0,4})(?:\.(.+))?", re.ASCII)
DOCUMENT_CHARACTERS_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Text:
    """A text of `least` to `most` characters that the pattern matches."""

    least: int = 1
    most: int = 2048
    pattern: str = r".*"

    def read(self, name: str, value: str) -> str:
        if len(value) < self.least:
            raise _unfit(name, value, f"have length greater than or equal to {self.least}")
        if len(value) > self.most:
            raise _unfit(name, value, f"have length less than or equal to {self.most}")
        if not re.fullmatch(self.pattern, value, re.DOTALL):
            raise _unfit(name, value, f"satisfy regular expression pattern: {self.pattern}")
        return value

    def samples(self) -> tuple[str, ...]:
        """Values that are refused."""
        return ("a" * (self.most + 1), *(() if self.pattern == r".*" else ("\x01",)))


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, name: str, value: str) -> str:
        if value not in self.words:
            raise _unfit(name, value, f"satisfy enum value set: [{', '.join(self.words)}]")
        return value

    def samples(self) -> tuple[str, ...]:
        """Values that are refused."""
        return ("Nothing",)


@dataclass(frozen=True, slots=True)
class Integer:
    """A decimal number from `least` to `most`."""

    least: int
    most: int

    def read(self, name: str, value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,12}", value, re.ASCII):
            raise _unfit(name, value, "be a number")
        if not self.least <= int(value) <= self.most:
            raise _unfit(name, value, f"be between {self.least} and {self.most}")
        return int(value)

    def samples(self) -> tuple[str, ...]:
        """Values that are refused."""
        return ("x", str(self.least - 1), str(self.most + 1))


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, name: str, value: str) -> bool:
        if value.lower() not in ("true", "false"):
            raise _unfit(name, value, "be true or false")
        return value.lower() == "true"

    def samples(self) -> tuple[str, ...]:
        """Values that are refused."""
        return ("maybe",)


Scalar = Text | OneOf | Integer | Flag


@dataclass(frozen=True, slots=True)
class ListOf:
    """`Name.member.1`, `Name.member.2`, …; with `fields` each member is a structure, of which
    those named in `required` must be there."""

    item: Scalar | None = None
    fields: tuple[tuple[str, Scalar | ListOf], ...] = ()
    required: frozenset[str] = frozenset()
    most: int = 1000


Specification = Scalar | ListOf

# ASCII alone: names are parts of ARNs.
WORD = "A-Za-z0-9_"
NAME = rf"[{WORD}+=,.@-]+"
NAME_OR_NONE = rf"[{WORD}+=,.@-]*"
PATH = r"/|/[\u0021-\u007e]+/"
TAG_KEY = Text(1, 128, r"[\w\s.:/=+\-@]+")
TAG_VALUE = Text(0, 256, r"[\w\s.:/=+\-@]*")
PAPER = Text(1, DOCUMENT_CHARACTERS_MAX, "[\t\n\r\u0020-\u00ff]+")
ARN = Text(20, 2048)
DURATION = Integer(900, 129_600)

SPECIFICATIONS: Mapping[str, Specification] = {
    "AccessKeyId": Text(16, 128, rf"[{WORD}]+"),
    "ActionNames": ListOf(Text(3, 128)),
    "AssignmentStatus": OneOf(("Assigned", "Unassigned", "Any")),
    "AssumeRolePolicyDocument": PAPER,
    "ClientID": Text(1, 255),
    "ClientIDList": ListOf(Text(1, 255), most=100),
    "ContextEntries": ListOf(
        fields=(
            ("ContextKeyName", Text(5, 256)),
            ("ContextKeyValues", ListOf(Text(0, 2048))),
            (
                "ContextKeyType",
                OneOf(
                    tuple(
                        kind + plural
                        for kind in ("string", "numeric", "boolean", "ip", "binary", "date")
                        for plural in ("", "List")
                    )
                ),
            ),
        ),
        required=frozenset({"ContextKeyName"}),
    ),
    "Description": Text(0, 1000, "[\t\n\r\u0020-\u007e\u00a1-\u00ff]*"),
    "DurationSeconds": DURATION,
    "EntityFilter": OneOf(("User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy")),
    "ExternalId": Text(2, 1224, rf"[{WORD}+=,.@:/-]*"),
    "GroupName": Text(1, 128, NAME),
    "Marker": Text(1, 1000, "[\u0020-\u00ff]+"),
    "MaxItems": Integer(1, 1000),
    "MaxSessionDuration": Integer(3600, 43_200),
    "Name": Text(2, 32, NAME_OR_NONE),
    "NewGroupName": Text(1, 128, NAME),
    "NewPath": Text(1, 512, PATH),
    "NewUserName": Text(1, 64, NAME),
    "OnlyAttached": Flag(),
    "OpenIDConnectProviderArn": ARN,
    "Path": Text(1, 512, PATH),
    "PathPrefix": Text(1, 512, r"/[\u0021-\u007f]*"),
    "PermissionsBoundary": ARN,
    "PermissionsBoundaryPolicyInputList": ListOf(PAPER, most=1),
    "Policy": Text(1, 2048, "[\t\n\r\u0020-\u00ff]+"),
    "PolicyArn": ARN,
    "PolicyArns": ListOf(fields=(("arn", ARN),), required=frozenset({"arn"}), most=10),
    "PolicyDocument": PAPER,
    "PolicyInputList": ListOf(PAPER, most=100),
    "PolicyName": Text(1, 128, NAME),
    "PolicySourceArn": ARN,
    "PolicyUsageFilter": OneOf(("PermissionsPolicy", "PermissionsBoundary")),
    "ResourceArns": ListOf(Text(1, 2048)),
    "RoleArn": ARN,
    "RoleName": Text(1, 64, NAME),
    "RoleSessionName": Text(2, 64, NAME_OR_NONE),
    "Scope": OneOf(("All", "AWS", "Local")),
    "ServiceName": Text(1, 200),
    "SetAsDefault": Flag(),
    "SourceIdentity": Text(2, 64, NAME_OR_NONE),
    "Status": OneOf(("Active", "Inactive")),
    "TagKeys": ListOf(TAG_KEY, most=50),
    "Tags": ListOf(
        fields=(("Key", TAG_KEY), ("Value", TAG_VALUE)),
        required=frozenset({"Key", "Value"}),
        most=50,
    ),
    "ThumbprintList": ListOf(Text(40, 40), most=100),
    "TransitiveTagKeys": ListOf(TAG_KEY, most=50),
    "Url": Text(1, 255),
    "UserName": Text(1, 128, NAME),
    "VersionId": Text(1, 32, r"v[1-9][0-9]*(\.[A-Za-z0-9-]*)?"),
    "WebIdentityToken": Text(4, 20_000),
}


class Parameters:
    """The validated parameters of one action."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def replaced(self, values: Mapping[str, str]) -> Parameters:
        """The same with other values for some."""
        return Parameters({**self._values, **values})

    def text(self, name: str) -> str:
        """A required text."""
        return str(self._values[name])

    def optional(self, name: str) -> str | None:
        """A text, if it was given."""
        return self._values.get(name)

    def integer(self, name: str) -> int | None:
        """A number, if it was given."""
        return self._values.get(name)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        return bool(self._values.get(name, default))

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty if it was not given."""
        return list(self._values.get(name, ()))

    def structures(self, name: str) -> list[Mapping[str, Any]]:
        """A list of structures; empty if it was not given."""
        return list(self._values.get(name, ()))

    def tags(self) -> dict[str, str]:
        """`Tags` as names with their values. Raises ValidationError for a name given twice."""
        found = {tag["Key"]: tag["Value"] for tag in self.structures("Tags")}
        if len({name.lower() for name in found}) != len(self.structures("Tags")):
            raise ValidationError(
                "Duplicate tag keys found. Please note that Tag keys are case insensitive."
            )
        return found


def parse_form(encoded: bytes) -> dict[str, str]:
    """The names and values of `application/x-www-form-urlencoded`, each name once. Raises
    MalformedQueryString."""
    found: dict[str, str] = {}
    for term in encoded.split(b"&"):
        if not term:
            continue
        if len(found) >= limits.QUERY_PARAMETERS_MAX:
            raise MalformedQueryString("The request has too many parameters.")
        name, _, value = (_decoded(part) for part in term.partition(b"="))
        if name in found:
            raise MalformedQueryString(f"The parameter {name[:100]} is given more than once.")
        found[name] = value
    return found


def _decoded(part: bytes) -> str:
    if _ESCAPE.search(part):
        raise MalformedQueryString("The request has a broken percent escape.")
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedQueryString("The request is not encoded in UTF-8.") from None


def validated(
    form: Mapping[str, str], names: Collection[str], required: Collection[str]
) -> Parameters:
    """The parameters of an action that has `names`. Raises ValidationError."""
    grouped: dict[str, dict[str, str]] = {}
    for name, value in form.items():
        head, _, rest = name.partition(".")
        if head in PROTOCOL:
            continue
        if head not in names:
            raise ValidationError(f"The parameter {head[:100]} is not supported by this action.")
        grouped.setdefault(head, {})[rest] = value
    values = {name: _read(name, SPECIFICATIONS[name], given) for name, given in grouped.items()}
    for name in required:
        if name not in values:
            raise _unfit(name, None, "not be null")
    return Parameters(values)


def _read(name: str, specification: Specification, given: Mapping[str, str]) -> Any:
    """The value of a parameter from what follows its name: "" for a plain one, `member.…` for the
    items of a list."""
    if not isinstance(specification, ListOf):
        if given.keys() != {""}:
            raise ValidationError(f"The parameter {name} is not a list or a structure.")
        return specification.read(name, given[""])
    members: dict[int, dict[str, str]] = {}
    for rest, value in given.items():
        if rest == "" and value == "":
            continue  # how an empty list is written
        match = _MEMBER.fullmatch(rest)
        if match is None:
            raise ValidationError(f"The parameter {name} is a list.")
        members.setdefault(int(match[1]), {})[match[2] or ""] = value
    if len(members) > specification.most:
        raise _unfit(name, None, f"have length less than or equal to {specification.most}")
    return [_item(name, specification, members[number]) for number in sorted(members)]


def _item(name: str, specification: ListOf, given: Mapping[str, str]) -> Any:
    if specification.item is not None:
        return _read(f"{name}.member", specification.item, given)
    fields = dict(specification.fields)
    grouped: dict[str, dict[str, str]] = {}
    for rest, value in given.items():
        field, _, inner = rest.partition(".")
        if field not in fields:
            raise ValidationError(f"{field[:100]} is no field of {name}.")
        grouped.setdefault(field, {})[inner] = value
    for field in sorted(specification.required):
        if field not in grouped:
            raise _unfit(f"{name}.member.{field}", None, "not be null")
    return {
        field: _read(f"{name}.{field}", fields[field], inner) for field, inner in grouped.items()
    }


def _unfit(name: str, value: str | None, constraint: str) -> ValidationError:
    shown = "null" if value is None else f"'{value[:200]}'"
    place = name[:1].lower() + name[1:]
    return ValidationError(
        f"1 validation error detected: Value {shown} at '{place}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )
