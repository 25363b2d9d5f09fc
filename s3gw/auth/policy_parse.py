"""From a policy document to a `Policy`, strictly.

What is not understood is refused: a misspelt element or key that was skipped would make a policy
say something else than its author meant. Only actions and condition keys in the policies of
identities need not be known, since those policies are written for services and features that are
not here, too: such an action is never asked for, such a key is absent in every request. Messages
are those with which Amazon S3 (PutBucketPolicy) and IAM answer, as far as they are known. Source:
IAM User Guide, "IAM JSON policy reference" with "Grammar of the IAM JSON policy language"; S3 User
Guide, "Policies and permissions in Amazon S3".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from s3gw.auth import actions, condition_keys
from s3gw.auth.conditions import Condition, condition
from s3gw.auth.patterns import Pattern, PolicyError
from s3gw.auth.policy import Effect, Policy, Principals, Statement

NOT_JSON = "Policies must be valid JSON and the first byte must be '{'"
INVALID_JSON = "This policy contains invalid Json"
TOO_LARGE = "Policy exceeds the maximum allowed document size."
BAD_PRINCIPAL = "Invalid principal in policy"
BAD_ACTION = "Policy has invalid action"
BAD_RESOURCE = "Policy has invalid resource"
BAD_KEY = "Policy has an invalid condition key"
NO_VENDOR = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
ACTION_WITHOUT_RESOURCE = "Action does not apply to any resource(s) in statement"
CONDITION_WITHOUT_ACTION = (
    "Conditions do not apply to combination of actions and resources in statement"
)

VERSIONS = ("2012-10-17", "2008-10-17")
VARIABLES_SINCE = "2012-10-17"
S3_ARN = "arn:aws:s3:::"
ELEMENTS = frozenset({"Version", "Id", "Statement"})
STATEMENT_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)
_IDENTITY_SID = re.compile(r"[A-Za-z0-9]*", re.ASCII)
_ACTION = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", re.ASCII)
_ANY_KEY = re.compile(r"[^\s:]+:\S.*", re.DOTALL)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_IAM_ARN = re.compile(r"arn:aws:iam::(\d{12}):(root|(?:user|role)/[\w+=,.@/-]{1,576})", re.ASCII)
_STS_ARN = re.compile(
    r"arn:aws:sts::\d{12}:(?:assumed-role/[\w+=,.@-]+/|federated-user/)[\w+=,.@-]+", re.ASCII
)
# With a session's name behind it: one session of a role.
_UNIQUE_ID = re.compile(r"A[A-Z0-9]{15,127}(?::[\w+=,.@-]+)?", re.ASCII)
_CANONICAL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com", re.ASCII)
_ARN = re.compile(r"\*|arn:[^:]+:[^:]+:[^:]*:[^:]*:.+", re.DOTALL)


def parse_bucket_policy(document: bytes, bucket: str, *, limit: int) -> Policy:
    """The policy of a bucket: principals are required, actions are of S3, and resources are the
    bucket and its objects. `limit` is in bytes. Raises PolicyError."""

    def statement(element: Any, number: int, variables: bool) -> Statement:
        fields = _fields(element)
        found = _statement(fields, number, variables, _bucket_principals(fields))
        _check_bucket_statement(found, bucket)
        return found

    return _parse(document, f"the policy of bucket {bucket}", limit, statement)


def parse_identity_policy(document: bytes, name: str, *, limit: int) -> Policy:
    """A policy of users, groups, roles and sessions: it names no principal, but actions of any
    service, which need not exist: as in IAM, one that nobody asks for matches nothing. Nor need
    condition keys. `name` is what messages call it. Raises PolicyError."""

    def statement(element: Any, number: int, variables: bool) -> Statement:
        fields = _fields(element)
        if "Principal" in fields or "NotPrincipal" in fields:
            raise PolicyError("Policy document should not specify a principal.")
        found = _statement(fields, number, variables, None, any_key=True)
        if not _IDENTITY_SID.fullmatch(found.sid):
            raise PolicyError(
                "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the "
                "regular expression [0-9A-Za-z]*"
            )
        for pattern in found.resources:
            if not _ARN.fullmatch(pattern.text):
                raise PolicyError(f'Resource {pattern.text} must be in ARN format or "*".')
        return found

    return _parse(document, name, limit, statement)


def parse_trust_policy(document: bytes, name: str, *, limit: int) -> Policy:
    """The trust policy of a role: principals are required, the resource is the role itself, and
    actions are those of sessions. Raises PolicyError."""

    def statement(element: Any, number: int, variables: bool) -> Statement:
        fields = _fields(element)
        if "Resource" in fields or "NotResource" in fields:
            raise PolicyError("Has prohibited field Resource")
        if "NotAction" in fields:
            raise PolicyError("Has prohibited field NotAction")
        whole = {**fields, "Resource": "*"}
        found = _statement(whole, number, variables, _bucket_principals(fields))
        if not all(pattern.text.lower().startswith("sts:") for pattern in found.actions):
            raise PolicyError("AssumeRole policy may only specify STS AssumeRole actions.")
        return found

    return _parse(document, name, limit, statement)


def _parse(
    document: bytes, name: str, limit: int, statement: Callable[[Any, int, bool], Statement]
) -> Policy:
    if len(document) > limit:
        raise PolicyError(TOO_LARGE)
    root = _json(document)
    if unknown := root.keys() - ELEMENTS:
        raise PolicyError(f"Unknown field {min(unknown)}")
    version = root.get("Version", "2008-10-17")
    if version not in VERSIONS:
        raise PolicyError("The policy must contain a valid version string")
    identifier = root.get("Id", "")
    if not isinstance(identifier, str):
        raise PolicyError("Invalid policy syntax.")
    if "Statement" not in root:
        raise PolicyError("Missing required field Statement")
    elements = root["Statement"]
    if isinstance(elements, dict):
        elements = [elements]
    if not isinstance(elements, list):
        raise PolicyError("Invalid policy syntax.")
    if not elements:
        raise PolicyError("Could not parse the policy: Statement is empty!")
    variables = version == VARIABLES_SINCE
    statements = tuple(statement(e, n, variables) for n, e in enumerate(elements, 1))
    sids = [each.sid for each in statements if each.sid]
    if len(sids) != len(set(sids)):
        raise PolicyError("Statement IDs (SID) in a single policy must be unique.")
    return Policy(name, statements, identifier)


def _json(document: bytes) -> dict[str, Any]:
    """The JSON object, without names twice, and text that UTF-8 can carry."""
    if not document.startswith(b"{"):
        raise PolicyError(NOT_JSON)
    try:
        root = json.loads(
            document.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_not_json
        )
        json.dumps(root, ensure_ascii=False).encode()  # no half of a surrogate pair
    except PolicyError:
        raise
    except (ValueError, RecursionError):
        raise PolicyError(INVALID_JSON) from None
    if not isinstance(root, dict):
        raise PolicyError(NOT_JSON)
    return root


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PolicyError(f"Duplicate field {twice}")
    return found


def _not_json(_constant: str) -> NoReturn:
    raise PolicyError(INVALID_JSON)


def _fields(element: Any) -> dict[str, Any]:
    if not isinstance(element, dict):
        raise PolicyError("Invalid policy syntax.")
    if unknown := element.keys() - STATEMENT_ELEMENTS:
        raise PolicyError(f"Unknown field {min(unknown)}")
    return element


def _statement(
    fields: Mapping[str, Any],
    number: int,
    variables: bool,
    principals: tuple[Principals, bool] | None,
    *,
    any_key: bool = False,
) -> Statement:
    """`any_key`: condition keys need not be known."""
    sid = fields.get("Sid", "")
    if not isinstance(sid, str):
        raise PolicyError("Invalid policy syntax.")
    if "Effect" not in fields:
        raise PolicyError("Missing required field Effect")
    effect = fields["Effect"]
    if effect not in ("Allow", "Deny"):
        raise PolicyError(f"Invalid effect: {effect}")
    action_texts, negated_actions = _one_of(fields, "Action")
    resource_texts, negated_resources = _one_of(fields, "Resource")
    for text in action_texts:
        if not _ACTION.fullmatch(text):
            raise PolicyError(BAD_ACTION)
    who, negated_principals = principals or (None, False)
    if who is not None and negated_principals and effect == "Allow":
        raise PolicyError("Allow with NotPrincipal is not allowed.")
    return Statement(
        number,
        sid,
        Effect(effect),
        tuple(Pattern(text, variables=False, fold=str.lower) for text in action_texts),
        tuple(Pattern(text, variables=variables) for text in resource_texts),
        who,
        _conditions(fields.get("Condition", {}), variables, any_key=any_key),
        negated_actions,
        negated_resources,
        negated_principals,
    )


def _one_of(fields: Mapping[str, Any], name: str) -> tuple[list[str], bool]:
    """The texts of the element `name` or `Not<name>`, of which exactly one must be there."""
    other = f"Not{name}"
    if name in fields and other in fields:
        raise PolicyError(f"Statement must not have both {name} and {other}")
    if name not in fields and other not in fields:
        raise PolicyError(f"Missing required field {name}")
    found = _texts(fields[name if name in fields else other])
    if not found:
        raise PolicyError(f"{name} is empty")
    return found, other in fields


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        raise PolicyError("Invalid policy syntax.")
    return values


def _bucket_principals(fields: Mapping[str, Any]) -> tuple[Principals, bool]:
    negated = "NotPrincipal" in fields
    if negated and "Principal" in fields:
        raise PolicyError("Statement must not have both Principal and NotPrincipal")
    if not negated and "Principal" not in fields:
        raise PolicyError("Missing required field Principal")
    element = fields["NotPrincipal" if negated else "Principal"]
    if element == "*":
        return Principals(everyone=True), negated
    if not isinstance(element, dict) or not element:
        raise PolicyError(BAD_PRINCIPAL)
    everyone = False
    kept: dict[str, set[str]] = {"accounts": set(), "arns": set(), "ids": set(), "others": set()}
    for kind, value in element.items():
        found = _texts(value)
        if not found:
            raise PolicyError(BAD_PRINCIPAL)
        for text in found:
            if text == "*" and kind == "AWS":
                everyone = True
            else:
                place, name = _principal(kind, text)
                kept[place].add(name)
    return Principals(everyone, *(frozenset(kept[name]) for name in kept)), negated


def _principal(kind: str, text: str) -> tuple[str, str]:
    """(the set of `Principals` that it belongs to, its name there)"""
    match kind:
        case "AWS":
            if _ACCOUNT.fullmatch(text):
                return "accounts", text
            iam = _IAM_ARN.fullmatch(text)
            if iam is not None and iam[2] == "root":
                return "accounts", iam[1]
            if iam is not None or _STS_ARN.fullmatch(text):
                return "arns", text
            if _UNIQUE_ID.fullmatch(text):
                return "others", text
        case "CanonicalUser":
            if _CANONICAL_ID.fullmatch(text):
                return "ids", text
        case "Service":
            if _SERVICE.fullmatch(text):
                return "others", text
        case "Federated":
            if text and "*" not in text:
                return "others", text
        case _:
            raise PolicyError(f"Unknown field {kind}")
    raise PolicyError(BAD_PRINCIPAL)


def _conditions(element: Any, variables: bool, *, any_key: bool) -> tuple[Condition, ...]:
    if not isinstance(element, dict):
        raise PolicyError("Invalid policy syntax.")
    found: list[Condition] = []
    for name, block in element.items():
        if not isinstance(block, dict) or not block:
            raise PolicyError("Invalid policy syntax.")
        for key, value in block.items():
            if any_key and not _ANY_KEY.fullmatch(key):
                raise PolicyError(NO_VENDOR)
            if not any_key and not condition_keys.is_known(key):
                raise PolicyError(f"{BAD_KEY} - {key}")
            found.append(condition(name, key, _condition_values(value), variables=variables))
    return tuple(found)


def _condition_values(value: Any) -> list[str]:
    """Values may be texts, numbers and Booleans; JSON's `true` is the text "true"."""
    texts = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, bool):
            texts.append("true" if each else "false")
        elif isinstance(each, int | float):
            texts.append(str(each))
        elif isinstance(each, str):
            texts.append(each)
        else:
            raise PolicyError("Invalid policy syntax.")
    return texts


def _check_bucket_statement(statement: Statement, bucket: str) -> None:
    """Actions are of S3, resources this bucket's, and they fit each other and the conditions."""
    about_bucket = about_objects = False
    for pattern in statement.resources:
        reach = pattern.widest()
        of_bucket = reach.matches(S3_ARN + bucket)
        of_objects = reach.matches_more_than(f"{S3_ARN}{bucket}/")
        if not (of_bucket or of_objects):
            raise PolicyError(BAD_RESOURCE)
        about_bucket |= of_bucket
        about_objects |= of_objects
    named_by_all: set[str] = set()
    for pattern in statement.actions:
        named = actions.ACTIONS if pattern.text == "*" else actions.named_by(pattern.text)
        if not named:
            raise PolicyError(BAD_ACTION)
        named_by_all |= named
        # What NotResource and NotAction leave is not looked at: it is nearly everything.
        if statement.negated_resources or statement.negated_actions:
            continue
        fits = (about_bucket and named & actions.BUCKET_ACTIONS) or (
            about_objects and named & actions.OBJECT_ACTIONS
        )
        if not fits:
            raise PolicyError(ACTION_WITHOUT_RESOURCE)
    left = actions.ACTIONS - named_by_all if statement.negated_actions else named_by_all
    for each in statement.conditions:
        if each.key in condition_keys.LISTING_KEYS and not left & condition_keys.LISTING_ACTIONS:
            raise PolicyError(CONDITION_WITHOUT_ACTION)
