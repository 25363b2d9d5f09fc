"""Policies, understood: who may do what to which resource, under which conditions.

`parse` (s3gw.auth.policy_parse) makes a `Policy` of a document; `evaluate` and `decide`
(s3gw.auth.policy_evaluate) judge a `RequestContext` by it. Nothing here knows HTTP or storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from s3gw.auth.conditions import Condition
from s3gw.auth.patterns import Pattern, Values

PARTITION = "aws"


class PrincipalType(Enum):
    """What a principal is; the values are those of `aws:PrincipalType`."""

    ANONYMOUS = "Anonymous"
    ROOT = "Account"
    USER = "User"
    ROLE_SESSION = "AssumedRole"
    FEDERATED = "FederatedUser"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `id` is the canonical user id that S3 shows as owner, the same for everybody of an
    account; `arn` is that of the user, or of the session with `role_arn` its role; `name` is the
    user's (`aws:username`), `user_id` the unique id (`aws:userid`). `claims` are further condition
    keys, in lower case, that come with the credentials: tags, claims of a web identity."""

    id: str
    name: str
    type: PrincipalType = PrincipalType.USER
    account: str = ""
    arn: str = ""
    user_id: str = ""
    role_arn: str = ""
    claims: Values = field(default_factory=dict)

    @property
    def is_anonymous(self) -> bool:
        return self.type is PrincipalType.ANONYMOUS

    @property
    def role_id(self) -> str:
        """The unique id of a session's role; "" where there is none."""
        return self.user_id.partition(":")[0] if self.role_arn else ""

    @property
    def is_root(self) -> bool:
        """The account itself: it needs no policy that allows."""
        return self.type is PrincipalType.ROOT


ANONYMOUS = Principal("", "anonymous", PrincipalType.ANONYMOUS)


def principal_values(who: Principal) -> dict[str, tuple[str, ...]]:
    """The condition keys of who asks."""
    values: dict[str, tuple[str, ...]] = {
        **who.claims,
        "aws:principaltype": (who.type.value,),
        "aws:userid": (who.user_id or who.account or "anonymous",),
    }
    if who.account:
        values["aws:principalaccount"] = (who.account,)
    if who.arn:
        # For a session it is that of the role, so that one rule is for all its sessions.
        values["aws:principalarn"] = (who.role_arn or who.arn,)
    if who.type is PrincipalType.USER:
        values["aws:username"] = (who.name,)
    return values


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What is asked: `principal` wants `action` ("s3:GetObject") on `resource` (an ARN). `values`
    are the condition keys of the request, in lower case; a key that it does not have is absent."""

    principal: Principal
    action: str
    resource: str
    values: Values = field(default_factory=dict)


class Effect(Enum):
    """What a statement that applies does."""

    ALLOW = "Allow"
    DENY = "Deny"


class Match(Enum):
    """How a `Principal` element names a principal; it decides what else must allow."""

    NONE = "not at all"
    ACCOUNT = "by its account, which passes the decision on to the account's own policies"
    EVERYONE = "as everyone"
    ROLE = "by its role"
    DIRECT = "itself"


@dataclass(frozen=True, slots=True)
class Principals:
    """A `Principal` or `NotPrincipal` element."""

    everyone: bool = False
    accounts: frozenset[str] = frozenset()
    arns: frozenset[str] = frozenset()
    canonical_ids: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    """Unique ids, federated providers and services."""

    def match(self, who: Principal) -> Match:
        if who.arn and who.arn in self.arns:
            return Match.DIRECT
        if who.user_id and who.user_id in self.others:
            return Match.DIRECT
        if who.role_arn and (who.role_arn in self.arns or who.role_id in self.others):
            return Match.ROLE
        if self.everyone:
            return Match.EVERYONE
        if (who.account and who.account in self.accounts) or (
            who.id and who.id in self.canonical_ids
        ):
            return Match.DIRECT if who.is_root else Match.ACCOUNT
        return Match.NONE


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `number` counts from 1; a `negated_*` says that the element was a `Not…`.
    `principals` is None in policies of identities, which name none."""

    number: int
    sid: str
    effect: Effect
    actions: tuple[Pattern, ...]
    resources: tuple[Pattern, ...]
    principals: Principals | None = None
    conditions: tuple[Condition, ...] = ()
    negated_actions: bool = False
    negated_resources: bool = False
    negated_principals: bool = False

    @property
    def title(self) -> str:
        """How messages name it."""
        return f'statement "{self.sid}"' if self.sid else f"statement {self.number}"

    def match(self, context: RequestContext) -> Match:
        """Whether the statement applies, and how it names the principal."""
        if not self._names(context.action, self.actions, self.negated_actions, context.values):
            return Match.NONE
        if not self._names(
            context.resource, self.resources, self.negated_resources, context.values
        ):
            return Match.NONE
        match = Match.DIRECT
        if self.principals is not None:
            match = self.principals.match(context.principal)
            if self.negated_principals:
                match = Match.DIRECT if match is Match.NONE else Match.NONE
        if match is not Match.NONE and all(c.holds(context.values) for c in self.conditions):
            return match
        return Match.NONE

    @staticmethod
    def _names(text: str, patterns: tuple[Pattern, ...], negated: bool, values: Values) -> bool:
        return any(pattern.matches(text, values) for pattern in patterns) is not negated


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document. `name` is how messages call it."""

    name: str
    statements: tuple[Statement, ...]
    id: str = ""


def principal_arns(policy: Policy) -> frozenset[str]:
    """The ARNs of users, roles and sessions that a policy names as principals."""
    found = [each.principals.arns for each in policy.statements if each.principals is not None]
    return frozenset().union(*found)


def by_unique_ids(policy: Policy, ids: Mapping[str, str]) -> Policy:
    """The policy with unique ids in place of the ARNs that `ids` has."""

    def changed(principals: Principals) -> Principals:
        named = principals.arns & ids.keys()
        others = principals.others | {ids[arn] for arn in named}
        return replace(principals, arns=principals.arns - named, others=others)

    statements = [
        each if each.principals is None else replace(each, principals=changed(each.principals))
        for each in policy.statements
    ]
    return replace(policy, statements=tuple(statements))
