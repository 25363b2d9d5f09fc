"""The rows of users, groups, keys, policies and roles."""

from __future__ import annotations

from s3gw.admin import identities
from s3gw.admin import identity_models as models
from s3gw.admin.models import Done
from s3gw.admin.row import Handler, Row, StructType


def _listing(plural: str, handler: Handler, answer: StructType) -> Row:
    return Row(
        "GET",
        f"/admin/{plural}",
        f"list{plural.capitalize()}",
        f"{plural.capitalize()} by name",
        handler,
        answer,
        query_type=models.NamesQuery,
    )


def _making(kind: str, plural: str, handler: Handler, answer: StructType, body: StructType) -> Row:
    article = "an access" if kind == "key" else "a"
    return Row(
        "POST",
        f"/admin/{plural}",
        f"create{kind.capitalize()}",
        f"Make {article} {kind}",
        handler,
        answer,
        body_type=body,
        conflicts=True,
    )


def _single(kind: str, plural: str, show: Handler, answer: StructType, path: StructType) -> Row:
    return Row(
        "GET",
        f"/admin/{plural}/{{{kind}}}",
        f"get{kind.capitalize()}",
        f"One {kind}",
        show,
        answer,
        path_type=path,
    )


def _removing(
    kind: str, plural: str, handler: Handler, path: StructType, query: StructType | None
) -> Row:
    return Row(
        "DELETE",
        f"/admin/{plural}/{{{kind}}}",
        f"delete{kind.capitalize()}",
        f"Remove a {kind}",
        handler,
        Done,
        path_type=path,
        query_type=query,
        conflicts=True,
    )


def _setting(
    kind: str,
    plural: str,
    name: str,
    operation: str,
    summary: str,
    handler: Handler,
    answer: StructType,
    path: StructType,
    body: StructType | None,
    method: str = "POST",
) -> Row:
    return Row(
        method,
        f"/admin/{plural}/{{{kind}}}/{name}",
        operation,
        summary,
        handler,
        answer,
        path_type=path,
        body_type=body,
        conflicts=True,
    )


def _policies_of(
    kind: str, plural: str, view: StructType, path: StructType, policy_path: StructType
) -> tuple[Row, ...]:
    """Inline policies, and managed ones that are attached."""
    of = kind.capitalize()
    return (
        _setting(
            kind,
            plural,
            "policies/{policy}",
            f"put{of}Policy",
            f"Give a {kind} a policy of its own",
            identities.putting_policy(kind),
            view,
            policy_path,
            models.SetDocument,
            "PUT",
        ),
        _setting(
            kind,
            plural,
            "policies/{policy}",
            f"delete{of}Policy",
            f"Remove a policy of a {kind}'s own",
            identities.deleting_policy(kind),
            Done,
            policy_path,
            None,
            "DELETE",
        ),
        _setting(
            kind,
            plural,
            "attach",
            f"attach{of}Policy",
            f"Attach a managed policy to a {kind}",
            identities.attaching(kind),
            view,
            path,
            models.NamePolicy,
        ),
        _setting(
            kind,
            plural,
            "detach",
            f"detach{of}Policy",
            f"Take a managed policy off a {kind}",
            identities.detaching(kind),
            view,
            path,
            models.NamePolicy,
        ),
    )


def _boundary_of(kind: str, plural: str, view: StructType, path: StructType) -> Row:
    return _setting(
        kind,
        plural,
        "boundary",
        f"set{kind.capitalize()}Boundary",
        f"Limit a {kind} to what a managed policy allows",
        identities.bounding(kind),
        view,
        path,
        models.SetBoundary,
    )


USERS: tuple[Row, ...] = (
    _listing("users", identities.list_users, models.UsersView),
    _making("user", "users", identities.create_user, models.UserView, models.CreateUser),
    _single("user", "users", identities.show_user, models.UserView, models.UserPath),
    _removing("user", "users", identities.delete_user, models.UserPath, models.ForceQuery),
    _setting(
        "user",
        "users",
        "status",
        "setUserStatus",
        "Disable a user with all of its keys, or enable it",
        identities.set_user_status,
        models.UserView,
        models.UserPath,
        models.SetStatus,
    ),
    Row(
        "GET",
        "/admin/users/{user}/keys",
        "listUserKeys",
        "The access keys of a user and of its service accounts",
        identities.list_keys_of_user,
        models.KeysView,
        path_type=models.UserPath,
    ),
    *_policies_of("user", "users", models.UserView, models.UserPath, models.UserPolicyPath),
    _boundary_of("user", "users", models.UserView, models.UserPath),
)
GROUPS: tuple[Row, ...] = (
    _listing("groups", identities.list_groups, models.GroupsView),
    _making("group", "groups", identities.create_group, models.GroupView, models.CreateGroup),
    _single("group", "groups", identities.show_group, models.GroupView, models.GroupPath),
    _removing("group", "groups", identities.delete_group, models.GroupPath, models.ForceQuery),
    _setting(
        "group",
        "groups",
        "members",
        "addGroupMember",
        "Put a user into a group",
        identities.add_member,
        models.GroupView,
        models.GroupPath,
        models.AddMember,
    ),
    _setting(
        "group",
        "groups",
        "members/{user}",
        "removeGroupMember",
        "Take a user out of a group",
        identities.remove_member,
        Done,
        models.MemberPath,
        None,
        "DELETE",
    ),
    *_policies_of("group", "groups", models.GroupView, models.GroupPath, models.GroupPolicyPath),
)
KEYS: tuple[Row, ...] = (
    _listing("keys", identities.list_keys, models.KeysView),
    _making("key", "keys", identities.create_key, models.KeyMade, models.CreateAccessKey),
    _single("key", "keys", identities.show_key, models.KeyView, models.KeyPath),
    _removing("key", "keys", identities.delete_key, models.KeyPath, None),
    _setting(
        "key",
        "keys",
        "status",
        "setKeyStatus",
        "Disable an access key, or enable it",
        identities.set_key_status,
        models.KeyView,
        models.KeyPath,
        models.SetStatus,
    ),
    _setting(
        "key",
        "keys",
        "policy",
        "setKeyPolicy",
        "Say anew what limits a service account",
        identities.set_key_policy,
        models.KeyView,
        models.KeyPath,
        models.SetServicePolicy,
        "PUT",
    ),
    _setting(
        "key",
        "keys",
        "rotate",
        "rotateKey",
        "Put a new access key in the place of one",
        identities.rotate_key,
        models.KeyMade,
        models.KeyPath,
        None,
    ),
)
POLICIES: tuple[Row, ...] = (
    _listing("policies", identities.list_policies, models.PoliciesView),
    _making("policy", "policies", identities.create_policy, models.PolicyView, models.CreatePolicy),
    _single("policy", "policies", identities.show_policy, models.PolicyView, models.PolicyPath),
    Row(
        "PUT",
        "/admin/policies/{policy}",
        "setPolicy",
        "Replace the document of a policy",
        identities.set_policy,
        models.PolicyView,
        path_type=models.PolicyPath,
        body_type=models.SetDocument,
        conflicts=True,
    ),
    _removing("policy", "policies", identities.delete_policy, models.PolicyPath, None),
)
ROLES: tuple[Row, ...] = (
    _listing("roles", identities.list_roles, models.RolesView),
    _making("role", "roles", identities.create_role, models.RoleView, models.CreateRole),
    _single("role", "roles", identities.show_role, models.RoleView, models.RolePath),
    _removing("role", "roles", identities.delete_role, models.RolePath, models.ForceQuery),
    _setting(
        "role",
        "roles",
        "trust",
        "setRoleTrust",
        "Say anew who may assume a role",
        identities.set_trust,
        models.RoleView,
        models.RolePath,
        models.SetDocument,
        "PUT",
    ),
    *_policies_of("role", "roles", models.RoleView, models.RolePath, models.RolePolicyPath),
    _boundary_of("role", "roles", models.RoleView, models.RolePath),
)
IDENTITY_ROWS = (*USERS, *GROUPS, *KEYS, *POLICIES, *ROLES)
EXAMPLES = {
    "user": "alice",
    "group": "readers",
    "key": "AKIAAAAAAAAAAAAAAAAA",
    "policy": "reads",
    "role": "backup",
}
