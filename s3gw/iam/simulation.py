"""Questions about policies: `SimulateCustomPolicy`, `SimulatePrincipalPolicy`.

The answer is that of the very engine that requests are judged by. Every action is asked about every
resource. The condition keys are those that the caller gives: the simulation knows no time, address
or tags of its own, but for who the principal is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import product

from s3gw import limits
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import Policy, Principal, PrincipalType, RequestContext, principal_values
from s3gw.auth.policy_evaluate import Decision, Kind, Permissions, Reason, decide
from s3gw.auth.policy_parse import parse_identity_policy
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.errors import NoSuchEntity, ValidationError
from s3gw.iam.pages import page
from s3gw.identities import names
from s3gw.identities.errors import InvalidInput
from s3gw.identities.principals import user_principal
from s3gw.identities.root import ACCOUNT_ID, CANONICAL_ID

QUESTIONS_MAX = 10_000
# Of one page: statements times questions, about a second.
COMPARISONS_MAX = 500_000
SOURCE_TYPE = {
    Kind.IDENTITY: "IAM Policy",
    Kind.BOUNDARY: "IAM Permissions Boundary Policy",
    Kind.RESOURCE: "Resource Policy",
    Kind.SESSION: "IAM Policy",
}
NOBODY = Principal(CANONICAL_ID, "simulated", PrincipalType.USER, account=ACCOUNT_ID)


async def simulate_custom_policy(call: QueryCall) -> Result:
    return await _answers(call, NOBODY, await asyncio.to_thread(_given, call, ()))


async def simulate_principal_policy(call: QueryCall) -> Result:
    """The policies of a user, group or role, and those given besides."""
    source = call.parameters.text("PolicySourceArn")
    await call.services.view.refresh()
    principal, permissions = _known(call, source)
    given = await asyncio.to_thread(_given, call, permissions.identity)
    boundary = given.boundary if given.boundary is not None else permissions.boundary
    return await _answers(call, principal, Permissions(given.identity, boundary))


def _known(call: QueryCall, arn: str) -> tuple[Principal, Permissions]:
    """Whom an ARN names, with all its policies. Raises NoSuchEntity."""
    view = call.services.view
    for user in view.known.users.values():
        principal = user_principal(user)
        if principal.arn == arn:
            return principal, view.user_permissions(user)
    for role in view.known.roles.values():
        if names.arn(names.ROLE, role.path, role.name) == arn:
            return NOBODY, view.role_permissions(role)
    for group in view.known.groups.values():
        if names.arn(names.GROUP, group.path, group.name) == arn:
            return NOBODY, view.group_permissions(group)
    raise NoSuchEntity(f"The entity {arn} does not exist.")


def _given(call: QueryCall, others: Sequence[Policy]) -> Permissions:
    """The policies of the call, after others."""
    parameters = call.parameters
    boundaries = parameters.texts("PermissionsBoundaryPolicyInputList")
    return Permissions(
        (*others, *_parsed("PolicyInputList", parameters.texts("PolicyInputList"))),
        _parsed("PermissionsBoundaryPolicyInputList", boundaries) if boundaries else None,
    )


def _parsed(name: str, documents: Sequence[str]) -> tuple[Policy, ...]:
    found = []
    for number, document in enumerate(documents, 1):
        try:
            policy = parse_identity_policy(
                document.encode(), f"{name}.{number}", limit=limits.IAM_DOCUMENT_BYTES_MAX
            )
        except PolicyError as error:
            raise InvalidInput(f"{name}.{number}: {error}") from error
        found.append(policy)
    return tuple(found)


async def _answers(call: QueryCall, principal: Principal, permissions: Permissions) -> Result:
    parameters = call.parameters
    actions = parameters.texts("ActionNames")
    resources = parameters.texts("ResourceArns") or ["*"]
    if len(actions) * len(resources) > QUESTIONS_MAX:
        raise ValidationError(f"More than {QUESTIONS_MAX} pairs of action and resource.")
    for action in actions:
        if ":" not in action or "*" in action or "?" in action:
            raise InvalidInput(f"Invalid action name: {action}")
    values = principal_values(principal)
    for entry in parameters.structures("ContextEntries"):
        values[entry["ContextKeyName"].lower()] = tuple(entry.get("ContextKeyValues", ()))
    questions = [
        (f"{number:06}", RequestContext(principal, action, resource, values))
        for number, (action, resource) in enumerate(product(actions, resources))
    ]
    found, more = page(call, questions, lambda question: question[0])
    policies = (*permissions.identity, *(permissions.boundary or ()))
    if len(found) * sum(len(each.statements) for each in policies) > COMPARISONS_MAX:
        raise ValidationError("Too many statements for so many questions: ask for fewer MaxItems.")

    def judged() -> list[Result]:
        return [_result(context, decide(context, permissions)) for _, context in found]

    return {"EvaluationResults": await asyncio.to_thread(judged), **more}


def _result(context: RequestContext, decision: Decision) -> Result:
    answer = "allowed" if decision.allowed else "implicitDeny"
    if decision.reason is Reason.EXPLICIT_DENY:
        answer = "explicitDeny"
    matched = []
    if decision.policy is not None and decision.kind is not None:
        source = SOURCE_TYPE[decision.kind]
        matched = [{"SourcePolicyId": decision.policy.name, "SourcePolicyType": source}]
    bounded = decision.reason is Reason.BOUNDARY
    return {
        "EvalActionName": context.action,
        "EvalResourceName": context.resource,
        "EvalDecision": answer,
        "MatchedStatements": matched,
        "MissingContextValues": [],
        "PermissionsBoundaryDecisionDetail": (
            {"AllowedByPermissionsBoundary": False} if bounded else None
        ),
    }
