"""Identities as policies see them: the principals of users and sessions.

All are of the one account, which owns what they make.
"""

from __future__ import annotations

from collections.abc import Mapping

from s3gw.auth.patterns import Values
from s3gw.auth.policy import Principal, PrincipalType
from s3gw.identities import names
from s3gw.identities.root import ACCOUNT_ID, CANONICAL_ID
from s3gw.metadata.identity_records import RoleRecord, UserRecord

PRINCIPAL_TAG = "aws:principaltag/"
NO_CLAIMS: Values = {}


def principal_tags(tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The condition keys of an identity's tags."""
    return {PRINCIPAL_TAG + name.lower(): (value,) for name, value in tags.items()}


def user_principal(user: UserRecord, claims: Values = NO_CLAIMS) -> Principal:
    """A user, with what its session adds."""
    return Principal(
        CANONICAL_ID,
        user.name,
        PrincipalType.USER,
        account=ACCOUNT_ID,
        arn=names.arn(names.USER, user.path, user.name),
        user_id=user.user_id,
        claims={**principal_tags(user.tags), **claims},
    )


def role_principal(role: RoleRecord, session_name: str, claims: Values = NO_CLAIMS) -> Principal:
    """The session of a role. Tags of the session stand before those of the role."""
    return Principal(
        CANONICAL_ID,
        session_name,
        PrincipalType.ROLE_SESSION,
        account=ACCOUNT_ID,
        arn=assumed_role_arn(role, session_name),
        user_id=f"{role.role_id}:{session_name}",
        role_arn=names.arn(names.ROLE, role.path, role.name),
        claims={**principal_tags(role.tags), **claims},
    )


def assumed_role_arn(role: RoleRecord, session_name: str) -> str:
    """The ARN of the session of a role, which has no path."""
    return f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{role.name}/{session_name}"


def federated_principal(name: str, claims: Values = NO_CLAIMS) -> Principal:
    """Somebody a user vouches for."""
    return Principal(
        CANONICAL_ID,
        name,
        PrincipalType.FEDERATED,
        account=ACCOUNT_ID,
        arn=federated_user_arn(name),
        user_id=f"{ACCOUNT_ID}:{name}",
        claims=claims,
    )


def federated_user_arn(name: str) -> str:
    """The ARN of somebody a user vouches for."""
    return f"arn:aws:sts::{ACCOUNT_ID}:federated-user/{name}"
