"""Whom a session stands for at this moment, and what it may do.

Looked up in the view at each change of identities, so that a session ends with the user or role it
is of, with the access key that asked for it, and with the identity provider that vouched for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from s3gw.auth.policy import Policy, Principal
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Permissions
from s3gw.errors import InvalidAccessKeyId, InvalidToken
from s3gw.identities.documents import compiled
from s3gw.identities.principals import federated_principal, role_principal, user_principal
from s3gw.identities.root import Root
from s3gw.identities.sessions import FEDERATED, ROLE, ROOT, USER, Session
from s3gw.metadata.identity_records import (
    AccessKeyRecord,
    OidcProviderRecord,
    RoleRecord,
    UserRecord,
)

SESSION_POLICY = "the session policy"


class Known(Protocol):
    """What is asked of `s3gw.identities.view.Identities`."""

    root: Root

    @property
    def roles(self) -> Mapping[str, RoleRecord]: ...

    @property
    def providers(self) -> Mapping[str, OidcProviderRecord]: ...

    def working_key(self, access_key: str) -> tuple[AccessKeyRecord, UserRecord]: ...

    def user_permissions(self, user: UserRecord) -> Permissions: ...

    def role_permissions(self, role: RoleRecord) -> Permissions: ...

    def managed_policy(self, policy_arn: str) -> Policy: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Whom a session stands for, until when (Unix milliseconds)."""

    principal: Principal
    permissions: Permissions
    expires_ms: int


def standing(known: Known, session: Session) -> Standing:
    """What a session is worth now. Raises InvalidToken when what it rests on is gone."""
    if session.provider and session.provider not in known.providers:
        raise InvalidToken()
    if session.kind == ROOT:
        return _of_root(known, session)
    if session.issuer_key:
        try:
            record, user = known.working_key(session.issuer_key)
        except InvalidAccessKeyId:
            raise InvalidToken() from None
        ends = min(session.expires_ms, record.expires_ms or session.expires_ms)
        if session.kind in (USER, FEDERATED):
            return _of_user(known, session, record, user, ends)
    elif not session.provider:
        raise InvalidToken()
    else:
        ends = session.expires_ms
    if session.kind != ROLE:
        raise InvalidToken()
    return _of_role(known, session, ends)


def _of_root(known: Known, session: Session) -> Standing:
    if session.issuer_key != known.root.access_key:
        raise InvalidToken()
    return Standing(known.root.principal, NO_PERMISSIONS, session.expires_ms)


def _of_role(known: Known, session: Session, ends: int) -> Standing:
    role = known.roles.get(session.name)
    if role is None or role.role_id != session.id:
        raise InvalidToken()
    permissions = _limited(known.role_permissions(role), _session_policies(known, session))
    return Standing(role_principal(role, session.session_name, session.claims), permissions, ends)


def _of_user(
    known: Known, session: Session, record: AccessKeyRecord, user: UserRecord, ends: int
) -> Standing:
    """The user itself, or whom it vouched for. What limits the service account that asked limits
    its session, too; who is vouched for may do nothing by the user's policies unless session
    policies allow it."""
    if user.user_id != session.id:
        raise InvalidToken()
    permissions = known.user_permissions(user)
    if session.kind == USER:
        own = (compiled(record.policy, SESSION_POLICY),) if record.policy else None
        return Standing(user_principal(user, session.claims), _limited(permissions, own), ends)
    if record.policy:
        raise InvalidToken()  # it was given to the service account since
    limit = _session_policies(known, session) or ()
    principal = federated_principal(session.session_name, session.claims)
    return Standing(principal, _limited(permissions, limit), ends)


def _limited(permissions: Permissions, session: tuple[Policy, ...] | None) -> Permissions:
    return Permissions(permissions.identity, permissions.boundary, session)


def _session_policies(known: Known, session: Session) -> tuple[Policy, ...] | None:
    """The session policies, inline and managed; None where the session was given none."""
    if not session.policy and not session.policy_arns:
        return None
    inline = (compiled(session.policy, SESSION_POLICY),) if session.policy else ()
    return (*inline, *(known.managed_policy(arn) for arn in session.policy_arns))
