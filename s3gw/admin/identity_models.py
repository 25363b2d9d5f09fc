"""What goes over the wire of the admin API about users, groups, keys, policies and roles.

Names have the form that IAM gives them; the store checks it, and says what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from s3gw.admin.models import PAGE_DEFAULT, Limit, Name
from s3gw.limits import IAM_DOCUMENT_BYTES_MAX

Status = Literal["Active", "Inactive"]
Document = Annotated[
    str, Meta(min_length=1, max_length=IAM_DOCUMENT_BYTES_MAX, description="a policy, as JSON")
]
PolicyName = Annotated[
    str, Meta(min_length=1, max_length=1024, description="name or ARN of a managed policy")
]
Path = Annotated[str, Meta(max_length=512, description="begins and ends with /")]
Description = Annotated[str, Meta(max_length=1000)]


# Paths and queries


class UserPath(Struct, forbid_unknown_fields=True):
    user: Name


class UserPolicyPath(Struct, forbid_unknown_fields=True):
    user: Name
    policy: Name


class GroupPath(Struct, forbid_unknown_fields=True):
    group: Name


class GroupPolicyPath(Struct, forbid_unknown_fields=True):
    group: Name
    policy: Name


class MemberPath(Struct, forbid_unknown_fields=True):
    group: Name
    user: Name


class RolePath(Struct, forbid_unknown_fields=True):
    role: Name


class RolePolicyPath(Struct, forbid_unknown_fields=True):
    role: Name
    policy: Name


class KeyPath(Struct, forbid_unknown_fields=True):
    key: Annotated[str, Meta(min_length=16, max_length=128, pattern="^[A-Za-z0-9_]+$")]


class PolicyPath(Struct, forbid_unknown_fields=True):
    policy: Name


class NamesQuery(Struct, forbid_unknown_fields=True):
    limit: Limit = PAGE_DEFAULT
    after: Annotated[str, Meta(max_length=128, description="the last name seen")] = ""


class ForceQuery(Struct, forbid_unknown_fields=True):
    force: Annotated[
        Literal["true", "false"], Meta(description="with all that would be in the way")
    ] = "false"


# Requests


class CreateUser(Struct, forbid_unknown_fields=True):
    name: Name
    path: Path = "/"
    tags: dict[str, str] = {}
    boundary: Annotated[str, Meta(max_length=1024)] = ""


class CreateGroup(Struct, forbid_unknown_fields=True):
    name: Name
    path: Path = "/"


class CreateRole(Struct, forbid_unknown_fields=True):
    """`trust` is the policy that says who may assume the role."""

    name: Name
    trust: Document
    path: Path = "/"
    description: Description = ""
    max_session_seconds: Annotated[int, Meta(ge=3600, le=43_200)] = 3600


class CreatePolicy(Struct, forbid_unknown_fields=True):
    name: Name
    document: Document
    path: Path = "/"
    description: Description = ""


class CreateAccessKey(Struct, forbid_unknown_fields=True):
    """An access key of a user. With `service` it is that of a service account, which `policy`
    limits further and `expires_ms` (Unix milliseconds, 0: never) ends."""

    user: Name
    service: bool = False
    policy: Annotated[str, Meta(max_length=IAM_DOCUMENT_BYTES_MAX)] = ""
    description: Description = ""
    expires_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0


class SetStatus(Struct, forbid_unknown_fields=True):
    status: Status


class SetDocument(Struct, forbid_unknown_fields=True):
    document: Document


class SetServicePolicy(Struct, forbid_unknown_fields=True):
    """ "" removes the limit."""

    policy: Annotated[str, Meta(max_length=IAM_DOCUMENT_BYTES_MAX)]


class NamePolicy(Struct, forbid_unknown_fields=True):
    policy: PolicyName


class SetBoundary(Struct, forbid_unknown_fields=True):
    """ "" removes the boundary."""

    policy: Annotated[str, Meta(max_length=1024, description="name or ARN of a managed policy")]


class AddMember(Struct, forbid_unknown_fields=True):
    user: Name


# Answers


class UserView(Struct):
    """A user. `policies` are inline, `attached` the ARNs of managed ones."""

    name: str
    arn: str
    user_id: str
    path: str
    status: Status
    created_ms: int
    groups: list[str]
    policies: dict[str, str]
    attached: list[str]
    boundary: str
    access_keys: list[str]
    service_accounts: list[str]
    tags: dict[str, str]


class UsersView(Struct):
    users: list[UserView]
    next: str


class GroupView(Struct):
    name: str
    arn: str
    group_id: str
    path: str
    created_ms: int
    members: list[str]
    policies: dict[str, str]
    attached: list[str]


class GroupsView(Struct):
    groups: list[GroupView]
    next: str


class RoleView(Struct):
    name: str
    arn: str
    role_id: str
    path: str
    created_ms: int
    description: str
    trust: str
    max_session_seconds: int
    policies: dict[str, str]
    attached: list[str]
    boundary: str
    tags: dict[str, str]


class RolesView(Struct):
    roles: list[RoleView]
    next: str


class KeyView(Struct):
    """An access key; its secret is shown when it is made, and never again."""

    access_key: str
    user: str
    status: Status
    created_ms: int
    service: bool
    description: str
    policy: str
    expires_ms: int


class KeysView(Struct):
    keys: list[KeyView]
    next: str


class KeyMade(Struct):
    """A new key with its secret, which is shown this once."""

    key: KeyView
    secret_key: str


class PolicyView(Struct):
    name: str
    arn: str
    path: str
    description: str
    built_in: bool
    version: int
    created_ms: int
    updated_ms: int
    document: str


class PoliciesView(Struct):
    policies: list[PolicyView]
    next: str
