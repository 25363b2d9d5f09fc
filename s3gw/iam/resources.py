"""What actions are done to, as ARNs: the column `on` of the action table.

An ARN has the path of what it names, which a request does not say, so that is looked up. What is
not there (yet) has the ARN that it would have with the path `/`: whoever may not do a thing is told
so, whether it exists or not. Source: Service Authorization Reference, "Actions, resources, and
condition keys for AWS Identity and Access Management" and "… for AWS Security Token Service".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from s3gw.auth.policy import PrincipalType
from s3gw.iam.call import QueryCall
from s3gw.iam.errors import ValidationError
from s3gw.iam.parameters import Parameters
from s3gw.identities import names
from s3gw.identities.errors import NoSuchEntity
from s3gw.identities.principals import federated_user_arn
from s3gw.identities.root import ACCOUNT_ID

NAMED = {"UserName": names.USER, "GroupName": names.GROUP, "RoleName": names.ROLE}
NO_USER = "Must specify userName when calling with non-User credentials"


async def with_stored_names(call: QueryCall) -> Parameters:
    """The call's parameters, with the names of users, groups and roles as they were given to them.
    IAM does not tell names apart by case, but the ARNs that policies name do: whoever may not touch
    `admin` may not touch `ADMIN` either. Raises ValidationError."""
    if call.action.on.startswith("new-"):
        return call.parameters
    stored = {
        parameter: await call.store.stored_name(kind, call.parameters.text(parameter))
        for parameter, kind in NAMED.items()
        if parameter in call.parameters
    }
    return call.parameters.replaced(stored) if stored else call.parameters


def user_name(call: QueryCall) -> str:
    """The user whom the call is about: the one it names, or who asks. Raises ValidationError."""
    named = call.parameters.optional("UserName")
    if named is not None:
        return named
    if call.principal.type is not PrincipalType.USER:
        raise ValidationError(NO_USER)
    return call.principal.name


def about_root(call: QueryCall) -> bool:
    """The account asks about itself: it is no user, and has no name."""
    return call.principal.is_root and "UserName" not in call.parameters


async def user(call: QueryCall) -> str:
    if about_root(call):
        return call.principal.arn
    return await _user_arn(call, user_name(call))


async def key_owner(call: QueryCall) -> str:
    try:
        record = await call.store.get_access_key(call.parameters.text("AccessKeyId"))
    except NoSuchEntity:
        return names.arn(names.USER, "/", "*")
    return await _user_arn(call, record.user)


async def _user_arn(call: QueryCall, name: str) -> str:
    try:
        found = await call.store.get_user(name)
    except NoSuchEntity:
        return names.arn(names.USER, "/", name)
    add_tags(call, found.tags)
    _add_boundary(call, found.boundary)
    return names.arn(names.USER, found.path, name)


def add_tags(call: QueryCall, tags: Mapping[str, str]) -> None:
    """The tags of what the call is about, as condition keys."""
    for name, value in tags.items():
        for prefix in ("aws:resourcetag/", "iam:resourcetag/"):
            call.values[prefix + name.lower()] = (value,)


def _add_boundary(call: QueryCall, boundary: str) -> None:
    """The boundary of what the call is about, as a condition key, unless the call sets another:
    whoever is to manage only those who have a certain boundary is asked for it."""
    if boundary:
        call.values.setdefault("iam:permissionsboundary", (boundary,))


async def group(call: QueryCall) -> str:
    name = call.parameters.text("GroupName")
    try:
        path = (await call.store.get_group(name)).path
    except NoSuchEntity:
        path = "/"
    return names.arn(names.GROUP, path, name)


async def role(call: QueryCall) -> str:
    name = call.parameters.text("RoleName")
    try:
        found = await call.store.get_role(name)
    except NoSuchEntity:
        return names.arn(names.ROLE, "/", name)
    add_tags(call, found.tags)
    _add_boundary(call, found.boundary)
    return names.arn(names.ROLE, found.path, name)


async def policy(call: QueryCall) -> str:
    arn = call.parameters.text("PolicyArn")
    names.policy_of_arn(arn)
    return arn


async def provider(call: QueryCall) -> str:
    return call.parameters.text("OpenIDConnectProviderArn")


async def new_provider(call: QueryCall) -> str:
    return names.provider_arn(call.parameters.text("Url"))


async def simulated(call: QueryCall) -> str:
    return call.parameters.text("PolicySourceArn")


async def account(_call: QueryCall) -> str:
    return "*"


async def federated_user(call: QueryCall) -> str:
    return federated_user_arn(call.parameters.text("Name"))


def new(kind: str, parameter: str) -> Callable[[QueryCall], Awaitable[str]]:
    """What the call is to make."""

    async def resource(call: QueryCall) -> str:
        path = call.parameters.optional("Path") or "/"
        return names.arn(kind, path, call.parameters.text(parameter))

    return resource


def all_of(kind: str) -> Callable[[QueryCall], Awaitable[str]]:
    """All of a kind below the path that the call names."""

    async def resource(call: QueryCall) -> str:
        return f"arn:aws:iam::{ACCOUNT_ID}:{kind}{call.parameters.optional('PathPrefix') or '/'}"

    return resource


RESOURCES: dict[str, Callable[[QueryCall], Awaitable[str]]] = {
    "account": account,
    "federated-user": federated_user,
    "group": group,
    "groups": all_of(names.GROUP),
    "key-owner": key_owner,
    "new-group": new(names.GROUP, "GroupName"),
    "new-policy": new(names.POLICY, "PolicyName"),
    "new-provider": new_provider,
    "new-role": new(names.ROLE, "RoleName"),
    "new-user": new(names.USER, "UserName"),
    "policies": all_of(names.POLICY),
    "policy": policy,
    "provider": provider,
    "providers": all_of(names.PROVIDER),
    "role": role,
    "roles": all_of(names.ROLE),
    "simulated": simulated,
    "user": user,
    "users": all_of(names.USER),
}


def values(call: QueryCall) -> dict[str, tuple[str, ...]]:
    """The condition keys that the parameters of a call are."""
    parameters = call.parameters
    found: dict[str, tuple[str, ...]] = {}
    for parameter, key in (
        ("PolicyArn", "iam:policyarn"),
        ("PermissionsBoundary", "iam:permissionsboundary"),
        ("RoleSessionName", "sts:rolesessionname"),
        ("ExternalId", "sts:externalid"),
        ("SourceIdentity", "sts:sourceidentity"),
    ):
        if parameter in parameters:
            found[key] = (parameters.text(parameter),)
    if "DurationSeconds" in parameters:
        found["sts:durationseconds"] = (str(parameters.integer("DurationSeconds")),)
    tags = parameters.tags()
    tag_keys = (*tags, *parameters.texts("TagKeys"))
    if tag_keys:
        found["aws:tagkeys"] = tag_keys
    found |= {f"aws:requesttag/{name.lower()}": (value,) for name, value in tags.items()}
    if transitive := parameters.texts("TransitiveTagKeys"):
        found["sts:transitivetagkeys"] = tuple(transitive)
    return found
