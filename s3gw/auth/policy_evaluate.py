"""The decision on a request, from all policies that speak about it.

    an explicit Deny anywhere                                             denied
    a bucket policy that allows the principal itself                      allowed
    the identity's policies (or a bucket policy that allows everyone,
      or the role of the session), and every policy that limits: the
      permissions boundary and the session policy                         allowed
    else                                                                  denied (implicitly)

A bucket policy that names the account only passes the decision on: the identity's own policies
must allow as well. The account itself (root) needs none and has no limits, but an explicit Deny
counts for it too. Source: IAM User Guide, "Policy evaluation logic" (one account), "Permissions
boundaries for IAM entities", "Session policies". AWS does not say how a boundary limits what a
bucket policy allows everyone; here it does, as for a role: a limit that a wildcard opened would be
none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from s3gw.auth.policy import Effect, Match, Policy, PrincipalType, RequestContext, Statement


class Reason(Enum):
    """Why a request was allowed or denied."""

    ROOT = "the account itself needs no policy"
    RESOURCE_ALLOW = "a resource-based policy allows it"
    IDENTITY_ALLOW = "an identity-based policy allows it"
    EXPLICIT_DENY = "explicit deny"
    NO_ALLOW = "no policy allows it"
    BOUNDARY = "no permissions boundary allows it"
    SESSION = "no session policy allows it"
    PUBLIC_RESTRICTED = "the bucket restricts public access"


class Kind(Enum):
    """Kinds of policies, as AWS's messages name them."""

    IDENTITY = "identity-based policy"
    RESOURCE = "resource-based policy"
    BOUNDARY = "permissions boundary"
    SESSION = "session policy"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the policy and statement that decided it, where one did."""

    allowed: bool
    reason: Reason
    kind: Kind | None = None
    policy: Policy | None = None
    statement: Statement | None = None

    def explain(self, context: RequestContext) -> str:
        """A sentence in the form of AWS's own, with the decisive statement."""
        can = "is" if self.allowed else "is not"
        who = context.principal.arn or context.principal.name
        head = (
            f"User: {who} {can} authorized to perform: {context.action} on resource: "
            f'"{context.resource}"'
        )
        if self.statement is not None and self.policy is not None and self.kind is not None:
            how = "" if self.allowed else "an explicit deny in "
            where = f"{self.statement.title} of {self.policy.name}"
            article = "an" if self.kind is Kind.IDENTITY else "a"
            return f"{head} with {how}{article} {self.kind.value} ({where})"
        if self.reason is Reason.NO_ALLOW:
            return f"{head} because no policy allows the {context.action} action"
        return f"{head} because {self.reason.value}"


@dataclass(frozen=True, slots=True)
class Permissions:
    """The policies of an identity. None for `boundary` and `session`: not limited. `session` is
    what a session was made with; several policies of one kind allow what any of them allows."""

    identity: tuple[Policy, ...] = ()
    boundary: tuple[Policy, ...] | None = None
    session: tuple[Policy, ...] | None = None


NO_PERMISSIONS = Permissions()


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement that applies, with how it names the principal."""

    policy: Policy
    statement: Statement
    match: Match


def decide(
    context: RequestContext,
    permissions: Permissions = NO_PERMISSIONS,
    resource_policies: Iterable[Policy] = (),
) -> Decision:
    """Whether the request is allowed. Explicit denials are looked for in every policy first."""
    found = applying(context, permissions, resource_policies)
    for kind, those in found.items():
        for each in those:
            if each.statement.effect is Effect.DENY:
                return _decided(False, Reason.EXPLICIT_DENY, kind, each)
    if context.principal.is_root:
        return Decision(True, Reason.ROOT)
    granting = found[Kind.RESOURCE]
    direct = next((each for each in granting if each.match is Match.DIRECT), None)
    if direct is not None:
        # What names a user does not name its sessions and service accounts: their limit stays.
        is_user = context.principal.type is PrincipalType.USER
        if is_user and permissions.session is not None and not found[Kind.SESSION]:
            return Decision(False, Reason.SESSION)
        return _decided(True, Reason.RESOURCE_ALLOW, Kind.RESOURCE, direct)
    reason, kind = Reason.RESOURCE_ALLOW, Kind.RESOURCE
    allowing = next((e for e in granting if e.match in (Match.EVERYONE, Match.ROLE)), None)
    if allowing is None and found[Kind.IDENTITY] and not context.principal.is_anonymous:
        reason, kind, allowing = Reason.IDENTITY_ALLOW, Kind.IDENTITY, found[Kind.IDENTITY][0]
    if allowing is None:
        return Decision(False, Reason.NO_ALLOW)
    if permissions.boundary is not None and not found[Kind.BOUNDARY]:
        return Decision(False, Reason.BOUNDARY)
    if permissions.session is not None and not found[Kind.SESSION]:
        return Decision(False, Reason.SESSION)
    return _decided(True, reason, kind, allowing)


def applying(
    context: RequestContext, permissions: Permissions, resource_policies: Iterable[Policy]
) -> dict[Kind, list[Finding]]:
    """The statements of each kind of policy that apply to the request."""
    return {
        Kind.RESOURCE: findings(context, resource_policies),
        Kind.IDENTITY: findings(context, permissions.identity),
        Kind.BOUNDARY: findings(context, permissions.boundary or ()),
        Kind.SESSION: findings(context, permissions.session or ()),
    }


def findings(context: RequestContext, policies: Iterable[Policy]) -> list[Finding]:
    """The statements that apply, in order."""
    return [
        Finding(policy, statement, match)
        for policy in policies
        for statement in policy.statements
        if (match := statement.match(context)) is not Match.NONE
    ]


def _decided(allowed: bool, reason: Reason, kind: Kind, finding: Finding) -> Decision:
    return Decision(allowed, reason, kind, finding.policy, finding.statement)
