"""Users, groups, keys, policies and roles: what the admin API does with them.

What IAM calls them and how they behave is in `s3gw.identities`; here they get the form of this API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from s3gw.admin import identity_models as models
from s3gw.admin.models import Done
from s3gw.admin.port import AdminPort, bad_request
from s3gw.identities import names
from s3gw.identities.attachments import Holder
from s3gw.identities.documents import BUILT_IN
from s3gw.identities.managed import arn_of, built_in
from s3gw.metadata.identity_records import (
    AccessKeyRecord,
    GroupRecord,
    ManagedPolicyRecord,
    RoleRecord,
    UserRecord,
)

T = TypeVar("T")


def _page(
    records: Sequence[T], name_of: Callable[[T], str], query: models.NamesQuery
) -> tuple[list[T], str]:
    """The records behind `after`, in the order of folded names, and the name to go on after."""
    after = query.after.lower()
    left = [each for each in records if not after or name_of(each).lower() > after]
    shown = left[: query.limit]
    return shown, name_of(shown[-1]) if len(left) > len(shown) else ""


# Users


def _user_view(user: UserRecord) -> models.UserView:
    return models.UserView(
        user.name,
        names.arn(names.USER, user.path, user.name),
        user.user_id,
        user.path,
        "Active" if user.status == "Active" else "Inactive",
        user.created_ms,
        list(user.groups),
        user.policies,
        list(user.attached),
        user.boundary,
        list(user.access_keys),
        list(user.service_accounts),
        user.tags,
    )


async def list_users(port: AdminPort, query: models.NamesQuery) -> models.UsersView:
    """Users by name, `limit` at a time."""
    users = await port.identity_store.list_users()
    shown, after = _page(users, lambda user: user.name, query)
    return models.UsersView([_user_view(user) for user in shown], after)


async def create_user(port: AdminPort, body: models.CreateUser) -> models.UserView:
    """A user without keys and policies."""
    boundary = await _arn(port, body.boundary) if body.boundary else ""
    user = await port.identity_store.create_user(
        body.name, path=body.path, tags=body.tags, boundary=boundary
    )
    return _user_view(user)


async def show_user(port: AdminPort, path: models.UserPath) -> models.UserView:
    """One user."""
    return _user_view(await port.identity_store.get_user(path.user))


async def delete_user(port: AdminPort, path: models.UserPath, query: models.ForceQuery) -> Done:
    """A user that has keys, policies or groups goes only with `force`, and they with it."""
    await port.identity_store.delete_user(path.user, force=query.force == "true")
    return Done()


async def set_user_status(
    port: AdminPort, path: models.UserPath, body: models.SetStatus
) -> models.UserView:
    """While a user is Inactive none of its keys works."""
    return _user_view(await port.identity_store.set_user_status(path.user, body.status))


# Groups


async def _group_view(port: AdminPort, group: GroupRecord) -> models.GroupView:
    members = await port.identity_store.members_of(group.name)
    return _shown_group(group, [user.name for user in members])


def _shown_group(group: GroupRecord, members: list[str]) -> models.GroupView:
    return models.GroupView(
        group.name,
        names.arn(names.GROUP, group.path, group.name),
        group.group_id,
        group.path,
        group.created_ms,
        members,
        group.policies,
        list(group.attached),
    )


async def list_groups(port: AdminPort, query: models.NamesQuery) -> models.GroupsView:
    """Groups by name, `limit` at a time."""
    groups = await port.identity_store.list_groups()
    shown, after = _page(groups, lambda group: group.name, query)
    members: dict[str, list[str]] = {group.name: [] for group in shown}
    for user in await port.identity_store.list_users():
        for name in user.groups:
            if name in members:
                members[name].append(user.name)
    return models.GroupsView([_shown_group(group, members[group.name]) for group in shown], after)


async def create_group(port: AdminPort, body: models.CreateGroup) -> models.GroupView:
    """A group without members and policies."""
    group = await port.identity_store.create_group(body.name, path=body.path)
    return _shown_group(group, [])


async def show_group(port: AdminPort, path: models.GroupPath) -> models.GroupView:
    """One group, with its members."""
    return await _group_view(port, await port.identity_store.get_group(path.group))


async def delete_group(port: AdminPort, path: models.GroupPath, query: models.ForceQuery) -> Done:
    """A group with members stays; one with policies goes only with `force`."""
    await port.identity_store.delete_group(path.group, force=query.force == "true")
    return Done()


async def add_member(
    port: AdminPort, path: models.GroupPath, body: models.AddMember
) -> models.GroupView:
    """Put a user into a group; again is no error."""
    await port.identity_store.add_user_to_group(path.group, body.user)
    return await show_group(port, path)


async def remove_member(port: AdminPort, path: models.MemberPath) -> Done:
    """Take a user out of a group."""
    await port.identity_store.remove_user_from_group(path.group, path.user)
    return Done()


# Roles


def _role_view(role: RoleRecord) -> models.RoleView:
    return models.RoleView(
        role.name,
        names.arn(names.ROLE, role.path, role.name),
        role.role_id,
        role.path,
        role.created_ms,
        role.description,
        role.trust,
        role.max_session_seconds,
        role.policies,
        list(role.attached),
        role.boundary,
        role.tags,
    )


async def list_roles(port: AdminPort, query: models.NamesQuery) -> models.RolesView:
    """Roles by name, `limit` at a time."""
    roles = await port.identity_store.list_roles()
    found, after = _page(roles, lambda role: role.name, query)
    shown = await port.identity_store.shown_roles(found)
    return models.RolesView([_role_view(role) for role in shown], after)


async def create_role(port: AdminPort, body: models.CreateRole) -> models.RoleView:
    """A role without policies."""
    role = await port.identity_store.create_role(
        body.name,
        body.trust,
        path=body.path,
        description=body.description,
        max_session_seconds=body.max_session_seconds,
    )
    return _role_view(role)


async def show_role(port: AdminPort, path: models.RolePath) -> models.RoleView:
    """One role."""
    return _role_view(await port.identity_store.shown_role(path.role))


async def delete_role(port: AdminPort, path: models.RolePath, query: models.ForceQuery) -> Done:
    """A role with policies goes only with `force`. Its sessions end."""
    await port.identity_store.delete_role(path.role, force=query.force == "true")
    return Done()


async def set_trust(
    port: AdminPort, path: models.RolePath, body: models.SetDocument
) -> models.RoleView:
    """Say anew who may assume a role."""
    role = await port.identity_store.update_assume_role_policy(path.role, body.document)
    return _role_view(role)


# Policies of users, groups and roles: `kind` is the name of the path's first parameter.


async def _holder_view(port: AdminPort, kind: str, name: str) -> Any:
    holder: Holder = await port.identity_store.holder(kind, name)
    if isinstance(holder, UserRecord):
        return _user_view(holder)
    if isinstance(holder, RoleRecord):
        (shown,) = await port.identity_store.shown_roles([holder])
        return _role_view(shown)
    return await _group_view(port, holder)


def putting_policy(kind: str) -> Callable[..., Any]:
    """The handler for a kind."""

    async def put_inline(port: AdminPort, path: Any, body: models.SetDocument) -> Any:
        """Give it a policy of its own, or replace the one of this name."""
        name = getattr(path, kind)
        await port.identity_store.put_inline_policy(kind, name, path.policy, body.document)
        return await _holder_view(port, kind, name)

    return put_inline


def deleting_policy(kind: str) -> Callable[..., Any]:
    """The handler for a kind."""

    async def delete_inline(port: AdminPort, path: Any) -> Done:
        """Remove a policy of its own."""
        await port.identity_store.delete_inline_policy(kind, getattr(path, kind), path.policy)
        return Done()

    return delete_inline


def attaching(kind: str) -> Callable[..., Any]:
    """The handler for a kind."""

    async def attach(port: AdminPort, path: Any, body: models.NamePolicy) -> Any:
        """Attach a managed policy; again is no error."""
        name = getattr(path, kind)
        await port.identity_store.attach_policy(kind, name, await _arn(port, body.policy))
        return await _holder_view(port, kind, name)

    return attach


def detaching(kind: str) -> Callable[..., Any]:
    """The handler for a kind."""

    async def detach(port: AdminPort, path: Any, body: models.NamePolicy) -> Any:
        """Take a managed policy off."""
        name = getattr(path, kind)
        await port.identity_store.detach_policy(kind, name, await _arn(port, body.policy))
        return await _holder_view(port, kind, name)

    return detach


def bounding(kind: str) -> Callable[..., Any]:
    """The handler for a kind."""

    async def bound(port: AdminPort, path: Any, body: models.SetBoundary) -> Any:
        """Limit it to what a managed policy allows, or ("") no longer."""
        name = getattr(path, kind)
        if body.policy:
            await port.identity_store.put_boundary(kind, name, await _arn(port, body.policy))
        else:
            await port.identity_store.delete_boundary(kind, name)
        return await _holder_view(port, kind, name)

    return bound


# Managed policies


async def _arn(port: AdminPort, name_or_arn: str) -> str:
    """The ARN of a managed policy. Raises NoSuchEntity."""
    return arn_of(await port.identity_store.named_policy(name_or_arn))


def _policy_view(policy: ManagedPolicyRecord) -> models.PolicyView:
    return models.PolicyView(
        policy.name,
        arn_of(policy),
        policy.path,
        policy.description,
        policy.name in BUILT_IN,
        policy.version,
        policy.created_ms,
        policy.updated_ms,
        policy.document,
    )


async def list_policies(port: AdminPort, query: models.NamesQuery) -> models.PoliciesView:
    """Managed policies by name, those that are built in among them, `limit` at a time."""
    found = [*map(built_in, BUILT_IN), *await port.identity_store.list_policies()]
    found.sort(key=lambda policy: policy.name.lower())
    shown, after = _page(found, lambda policy: policy.name, query)
    return models.PoliciesView([_policy_view(policy) for policy in shown], after)


async def create_policy(port: AdminPort, body: models.CreatePolicy) -> models.PolicyView:
    """A managed policy."""
    policy = await port.identity_store.create_policy(
        body.name, body.document, path=body.path, description=body.description
    )
    return _policy_view(policy)


async def show_policy(port: AdminPort, path: models.PolicyPath) -> models.PolicyView:
    """One managed policy."""
    return _policy_view(await port.identity_store.named_policy(path.policy))


async def set_policy(
    port: AdminPort, path: models.PolicyPath, body: models.SetDocument
) -> models.PolicyView:
    """Replace its document, which takes effect wherever it is attached."""
    arn = await _arn(port, path.policy)
    return _policy_view(await port.identity_store.update_policy(arn, body.document))


async def delete_policy(port: AdminPort, path: models.PolicyPath) -> Done:
    """Remove a policy that is attached nowhere."""
    await port.identity_store.delete_policy(await _arn(port, path.policy))
    return Done()


# Access keys


def _key_view(key: AccessKeyRecord) -> models.KeyView:
    return models.KeyView(
        key.access_key,
        key.user,
        "Active" if key.status == "Active" else "Inactive",
        key.created_ms,
        key.service,
        key.description,
        key.policy,
        key.expires_ms,
    )


async def list_keys(port: AdminPort, query: models.NamesQuery) -> models.KeysView:
    """The access keys of all users, `limit` at a time."""
    found = await port.identity_store.list_all_access_keys()
    found.sort(key=lambda key: key.access_key.lower())
    shown, after = _page(found, lambda key: key.access_key, query)
    return models.KeysView([_key_view(key) for key in shown], after)


async def list_keys_of_user(port: AdminPort, path: models.UserPath) -> models.KeysView:
    """The access keys of a user, and those of its service accounts."""
    found = await port.identity_store.list_access_keys(path.user)
    return models.KeysView([_key_view(key) for key in found], "")


async def create_key(port: AdminPort, body: models.CreateAccessKey) -> models.KeyMade:
    """An access key of a user, or a service account's, with its secret, which is shown this
    once."""
    store = port.identity_store
    if body.service:
        key, secret = await store.create_service_account(
            body.user,
            policy=body.policy,
            description=body.description,
            expires_ms=body.expires_ms,
        )
    elif body.policy or body.description or body.expires_ms:
        raise bad_request("policy, description and expires_ms are of service accounts")
    else:
        key, secret = await store.create_access_key(body.user)
    return models.KeyMade(_key_view(key), secret)


async def show_key(port: AdminPort, path: models.KeyPath) -> models.KeyView:
    """One access key, without its secret."""
    return _key_view(await port.identity_store.get_access_key(path.key))


async def set_key_status(
    port: AdminPort, path: models.KeyPath, body: models.SetStatus
) -> models.KeyView:
    """An Inactive key signs nothing."""
    return _key_view(await port.identity_store.update_access_key(path.key, body.status))


async def set_key_policy(
    port: AdminPort, path: models.KeyPath, body: models.SetServicePolicy
) -> models.KeyView:
    """Say anew what limits a service account."""
    return _key_view(await port.identity_store.set_service_policy(path.key, body.policy))


async def rotate_key(port: AdminPort, path: models.KeyPath) -> models.KeyMade:
    """Put a new key in the place of one, which stops working at once."""
    key, secret = await port.identity_store.rotate_access_key(path.key)
    return models.KeyMade(_key_view(key), secret)


async def delete_key(port: AdminPort, path: models.KeyPath) -> Done:
    """Remove an access key."""
    await port.identity_store.delete_access_key(path.key)
    return Done()
