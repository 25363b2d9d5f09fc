"""What would be decided: the policy engine asked without a request.

Asked is the very engine that requests are judged by, about the policies, access control lists and
public access blocks that are stored, and about the object that is there. The condition keys of a
request are those that the caller names; beside them are those of the principal, of the object's
tags, the time, the region and the account. Keys that the policies ask for and that nobody named are
listed, since a request might have them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from s3gw import limits
from s3gw.admin.port import AdminPort, bad_request, not_found
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import (
    ANONYMOUS,
    Match,
    Policy,
    Principal,
    RequestContext,
    principal_values,
)
from s3gw.auth.policy_evaluate import (
    NO_PERMISSIONS,
    Decision,
    Kind,
    Permissions,
    Reason,
    applying,
)
from s3gw.auth.policy_parse import parse_identity_policy
from s3gw.buckets.names import is_well_formed
from s3gw.errors import NoSuchBucket
from s3gw.identities import names
from s3gw.identities.principals import role_principal, user_principal
from s3gw.identities.root import ACCOUNT_ID, CANONICAL_ID
from s3gw.identities.view import Identities
from s3gw.objects import publish
from s3gw.objects.buckets import find_bucket
from s3gw.operations.access import Access, Resource, resource_policies
from s3gw.operations.request_values import Found, existing_tag_values
from s3gw.wire.version_ids import sequence_named

QUESTIONS_MAX = 100
POLICIES_MAX = 20
S3_ARN = "arn:aws:s3:::"
USER_ARN = names.arn(names.USER, "/", "NAME")
NOBODY_NAMED = Principal(CANONICAL_ID, "simulated", account=ACCOUNT_ID)
"""Whoever has the policies of the question, where no principal is named."""

Action = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}:[A-Za-z0-9]{1,128}$")]
ResourceArn = Annotated[str, Meta(pattern=r"^(\*|arn:[^:]+:[^:]+:[^:]*:[^:]*:(.|\n)+)$")]
Key = Annotated[str, Meta(min_length=1, max_length=256)]
Values = Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=100)]


class SimulateRequest(Struct, forbid_unknown_fields=True):
    """Every action is asked about every resource. `principal` is `anonymous` or an ARN: of the
    root, a user, a role or a session of it. With `policies` (documents) these are what it has; they
    need no principal."""

    actions: Annotated[list[Action], Meta(min_length=1, max_length=QUESTIONS_MAX)]
    resources: Annotated[list[ResourceArn], Meta(min_length=1, max_length=QUESTIONS_MAX)]
    principal: Annotated[str, Meta(max_length=2048)] = ""
    policies: Annotated[list[dict[str, Any]], Meta(max_length=POLICIES_MAX)] = []
    context: Annotated[dict[Key, Values], Meta(max_length=100)] = {}


class Matched(Struct):
    """A statement that applies to the request."""

    kind: str
    policy: str
    statement: str
    effect: str


class Verdict(Struct):
    """The decision on one action and one resource. `decisive` is what decided it, where one
    statement did; `missing` are the condition keys that were asked for and are not known."""

    action: str
    resource: str
    decision: Literal["allowed", "explicitDeny", "implicitDeny"]
    reason: str
    message: str
    decisive: Matched | None
    matched: list[Matched]
    missing: list[str]


class Simulated(Struct):
    verdicts: list[Verdict]


async def simulate(port: AdminPort, body: SimulateRequest) -> Simulated:
    """What would be decided about each action and resource, and why. Nothing is changed."""
    if len(body.actions) * len(body.resources) > QUESTIONS_MAX:
        raise bad_request(f"body: at most {QUESTIONS_MAX} pairs of action and resource")
    who, permissions = _asked(port.identities, body)
    given = {name.lower(): tuple(values) for name, values in body.context.items()}
    verdicts = []
    for arn, action in product(dict.fromkeys(body.resources), dict.fromkeys(body.actions)):
        resource = await _resource(port, arn, given)
        values = _values(port, who, resource) | given
        context = RequestContext(who, action, arn, values)
        verdicts.append(_verdict(context, permissions, resource))
    return Simulated(verdicts)


def _asked(identities: Identities, body: SimulateRequest) -> tuple[Principal, Permissions]:
    """Who asks, with which policies. Raises Refusal."""
    own = tuple(_parsed(each, number) for number, each in enumerate(body.policies, 1))
    if not body.principal:
        if not own:
            raise bad_request("body: name a principal, policies, or both")
        return NOBODY_NAMED, Permissions(own)
    who, permissions = _known(identities, body.principal)
    if own and (who.is_anonymous or who.is_root):
        raise bad_request("body: policies are of users and roles")
    if own:
        permissions = Permissions(own, permissions.boundary, permissions.session)
    return who, permissions


def _known(identities: Identities, named: str) -> tuple[Principal, Permissions]:
    """Whom an ARN names, and its policies. Raises Refusal."""
    if named == "anonymous":
        return ANONYMOUS, NO_PERMISSIONS
    root = identities.root.principal
    if named in ("root", root.arn):
        return root, NO_PERMISSIONS
    for user in identities.known.users.values():
        principal = user_principal(user)
        if principal.arn == named:
            return principal, identities.user_permissions(user)
    for role in identities.known.roles.values():
        arn = names.arn(names.ROLE, role.path, role.name)
        session = role_principal(role, "simulated")
        prefix = session.arn.removesuffix("simulated")
        if named == arn:
            return session, identities.role_permissions(role)
        if named.startswith(prefix) and len(named) > len(prefix):
            session = role_principal(role, named.removeprefix(prefix))
            return session, identities.role_permissions(role)
    if not named.startswith("arn:"):
        raise bad_request(f"body: {named!r} is not an ARN such as {root.arn} or {USER_ARN}")
    raise not_found("NoSuchPrincipal", f"there is no user or role {named}")


def _parsed(document: dict[str, Any], number: int) -> Policy:
    try:
        return parse_identity_policy(
            msgspec.json.encode(document),
            f"policy {number} of the question",
            limit=limits.IAM_DOCUMENT_BYTES_MAX,
        )
    except PolicyError as error:
        raise bad_request(f"body: policy {number}: {error}") from error


async def _resource(port: AdminPort, arn: str, given: Found) -> Resource:
    """What an ARN names, as it is now. What is not there has no policies of its own."""
    bucket, _, key = arn.removeprefix(S3_ARN).partition("/")
    if not arn.startswith(S3_ARN) or not is_well_formed(bucket.encode()):
        return Resource()
    named = given.get("s3:versionid")
    version_id = named[0] if named else None
    try:
        if not 0 < len(key.encode()) <= limits.KEY_BYTES_MAX:
            return Resource(bucket, (await find_bucket(port.storage, bucket)).record)
        target = await publish.read_target(port.storage, bucket, key, sequence_named(version_id))
    except NoSuchBucket:
        return Resource(bucket, None, key)
    return Resource.of_target(target, version_id)


def _values(port: AdminPort, who: Principal, resource: Resource) -> Found:
    """The condition keys that every request has, and those of who asks and of the object."""
    now = datetime.fromtimestamp(port.clock(), UTC)
    values: Found = {
        "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:epochtime": (str(int(port.clock())),),
        "aws:requestedregion": (port.region,),
        "aws:resourceaccount": (ACCOUNT_ID,),
        "s3:resourceaccount": (ACCOUNT_ID,),
        "aws:viaawsservice": ("false",),
        "aws:principalisawsservice": ("false",),
        **principal_values(who),
    }
    if resource.record is not None:
        values |= existing_tag_values(resource.record.description.tags)
    return values


def _verdict(context: RequestContext, permissions: Permissions, resource: Resource) -> Verdict:
    decision = Access(ACCOUNT_ID).judge(context, permissions, resource)
    of_resource = resource_policies(resource)
    found = applying(context, permissions, of_resource)
    answer: Literal["allowed", "explicitDeny", "implicitDeny"]
    answer = "allowed" if decision.allowed else "implicitDeny"
    if decision.reason is Reason.EXPLICIT_DENY:
        answer = "explicitDeny"
    limits_of = (permissions.boundary or (), permissions.session or ())
    asked = [*of_resource, *permissions.identity, *limits_of[0], *limits_of[1]]
    return Verdict(
        action=context.action,
        resource=context.resource,
        decision=answer,
        reason=decision.reason.value,
        message=decision.explain(context),
        decisive=_decisive(decision),
        matched=[
            Matched(kind.value, each.policy.name, each.statement.title, each.statement.effect.value)
            for kind in Kind
            for each in found[kind]
        ],
        missing=_missing(context, asked),
    )


def _decisive(decision: Decision) -> Matched | None:
    kind, policy, statement = decision.kind, decision.policy, decision.statement
    if kind is None or policy is None or statement is None:
        return None
    return Matched(kind.value, policy.name, statement.title, statement.effect.value)


def _missing(context: RequestContext, policies: Iterable[Policy]) -> list[str]:
    """Condition keys of statements that would be about the request and that it does not have."""
    return sorted(
        {
            condition.key
            for policy in policies
            for statement in policy.statements
            for condition in statement.conditions
            if condition.key not in context.values
            and replace(statement, conditions=()).match(context) is not Match.NONE
        }
    )
