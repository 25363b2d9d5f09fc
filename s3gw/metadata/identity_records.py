"""The records of identities: who may sign requests, and with what permissions.

The form is that of `s3gw.metadata.records`: fields are only ever appended. Names keep the case that
they were given; keys fold it, as names that differ by case alone are the same name. Policies are
JSON as it was sent; managed ones are named by ARN. Unique ids (AIDA…, AROA…) are never used twice,
so that a name given to somebody else later is told from the one before.
"""

from __future__ import annotations

import msgspec

ACTIVE, INACTIVE = "Active", "Inactive"


class UserRecord(msgspec.Struct, array_like=True, frozen=True):
    """A user. `policies` are inline, by name; `attached` and `boundary` are ARNs. `access_keys` and
    `service_accounts` are the ids of its keys. While `status` is "Inactive" none of them works."""

    name: str
    user_id: str
    path: str
    created_ms: int
    status: str = ACTIVE
    groups: tuple[str, ...] = ()
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()
    boundary: str = ""
    access_keys: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group: policies that its members have. Who is a member is in the records of users."""

    name: str
    group_id: str
    path: str
    created_ms: int
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()


class AccessKeyRecord(msgspec.Struct, array_like=True, frozen=True):
    """An access key of `user`. `secret` is sealed (s3gw.identities.sealing). A `service` account's
    key may have a `policy` that limits it, as that of a session does, and an end (`expires_ms`, 0:
    none)."""

    access_key: str
    user: str
    secret: bytes
    created_ms: int
    status: str = ACTIVE
    service: bool = False
    description: str = ""
    policy: str = ""
    expires_ms: int = 0

    def __repr__(self) -> str:
        return f"AccessKeyRecord(access_key={self.access_key!r}, user={self.user!r})"


class ManagedPolicyRecord(msgspec.Struct, array_like=True, frozen=True):
    """A policy that users, groups and roles can have attached. `version` grows with each change."""

    name: str
    policy_id: str
    path: str
    created_ms: int
    document: str
    description: str = ""
    updated_ms: int = 0
    version: int = 1
    tags: dict[str, str] = {}


class RoleRecord(msgspec.Struct, array_like=True, frozen=True):
    """A role: `trust` is the policy that says who may assume it; `principals` are the unique ids of
    the users, roles and sessions that it names, by ARN, as they were when it was put. The rest is
    as of a user."""

    name: str
    role_id: str
    path: str
    created_ms: int
    trust: str
    description: str = ""
    max_session_seconds: int = 3600
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()
    boundary: str = ""
    tags: dict[str, str] = {}
    principals: dict[str, str] = {}


class OidcProviderRecord(msgspec.Struct, array_like=True, frozen=True):
    """An OpenID Connect provider whose tokens roles may trust. `url` begins with https://;
    `thumbprints` are kept, not used: certificates are verified as the system does."""

    url: str
    created_ms: int
    client_ids: tuple[str, ...] = ()
    thumbprints: tuple[str, ...] = ()
    tags: dict[str, str] = {}
