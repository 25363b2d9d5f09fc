"""Whom the policies of buckets and the trust policies of roles name: users and roles are told by
their unique ids, not by their names.

As on AWS, a policy is about the user who had the name when it was put. A user who is deleted and
made again under the same name is another one, and has no access by it. The document is kept as it
was sent; beside it lies which id each ARN of the account's users, roles and sessions of roles stood
for, and that is what decides. Who asks for the policy sees the ARN that a user has now, who was
renamed or moved since, and the id of who is no more. A session has the id of its role with its own
name behind it: `AROA…:session`.

Identities of other accounts and federated users are not known here and stay texts; so do the ARNs
in conditions, which AWS compares as texts, too.

Source: IAM User Guide, "AWS JSON policy elements: Principal".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from s3gw import limits
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import Policy, principal_arns
from s3gw.auth.policy_parse import BAD_PRINCIPAL
from s3gw.identities import names
from s3gw.identities.principals import assumed_role_arn
from s3gw.identities.root import ACCOUNT_ID
from s3gw.metadata import keys
from s3gw.metadata.identity_records import RoleRecord, UserRecord
from s3gw.metadata.records import RecordFormatError, decode
from s3gw.metadata.store import Store, versioned

READ_AT_ONCE = 100
OURS = f"arn:aws:iam::{ACCOUNT_ID}:"
OUR_USERS = OURS + "user/"
OUR_SESSIONS = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/"

Named = tuple[str, str]  # ARN, id


class UnknownPrincipal(PolicyError):
    """A policy names somebody of the account who does not exist."""

    def __init__(self, arn: str) -> None:
        super().__init__(BAD_PRINCIPAL)
        self.arn = arn


async def unique_ids(store: Store, policy: Policy) -> dict[str, str]:
    """What is to be stored beside the policy: ARN → id. Raises UnknownPrincipal."""
    arns = sorted(arn for arn in principal_arns(policy) if arn.startswith((OURS, OUR_SESSIONS)))
    found = await ids_now(store, arns)
    for arn in arns:
        if arn not in found:
            raise UnknownPrincipal(arn)
    return found


def encoded(ids: Mapping[str, str]) -> bytes | None:
    """As it lies beside the policy of a bucket: JSON; None when it names nobody of the account."""
    return json.dumps(ids, sort_keys=True).encode() if ids else None


def decoded(stored: bytes | None) -> dict[str, str]:
    """ARN → id."""
    return msgspec.json.decode(stored, type=dict[str, str]) if stored else {}


async def ids_now(store: Store, arns: Iterable[str]) -> dict[str, str]:
    """ARN → id of the users, roles and sessions of roles that exist and have exactly this ARN."""
    found: dict[str, str] = {}
    asked = sorted(arns)
    for start in range(0, len(asked), READ_AT_ONCE):
        some = asked[start : start + READ_AT_ONCE]
        reading = await store.kv.get_many([_key(arn) for arn in some])
        for arn, item in zip(some, reading.items, strict=True):
            if arn.startswith(OUR_USERS):
                user = versioned(UserRecord, item).record
                if user is not None and names.arn(names.USER, user.path, user.name) == arn:
                    found[arn] = user.user_id
            else:
                role = versioned(RoleRecord, item).record
                if role is not None and (unique_id := _id_by_role(role, arn)):
                    found[arn] = unique_id
    return found


async def renamed(store: Store, named: Iterable[Named]) -> dict[Named, str]:
    """What is shown in place of the ARNs that are not those any more of whom they stood for (each
    with the id that lies beside its policy): the ARN that a user has now, else the id. One read
    where all are who they were."""
    asked = set(named)
    now = await ids_now(store, {arn for arn, _ in asked})
    others = {(arn, unique_id) for arn, unique_id in asked if now.get(arn) != unique_id}
    users = {unique_id for arn, unique_id in others if arn.startswith(OUR_USERS)}
    moved = await _arns_of_users(store, users) if users else {}
    return {(arn, unique_id): moved.get(unique_id, unique_id) for arn, unique_id in others}


def shown(document: str, ids: Mapping[str, str], others: Mapping[Named, str]) -> str:
    """The policy as who asks for it sees it: as it was put, if all it names are who they were.
    `ids` lie beside it; `others` is what `renamed` says of them."""
    instead = {
        arn: others[arn, unique_id] for arn, unique_id in ids.items() if (arn, unique_id) in others
    }
    if not instead:
        return document
    root = json.loads(document)
    statements = root["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for element in ("Principal", "NotPrincipal"):
            who = statement.get(element)
            if isinstance(who, dict) and "AWS" in who:
                who["AWS"] = _replaced(who["AWS"], instead)
    return json.dumps(root, ensure_ascii=False)


async def shown_roles(store: Store, roles: Sequence[RoleRecord]) -> list[RoleRecord]:
    """Roles with their trust policies as who asks for them sees them."""
    others = await renamed(store, (one for role in roles for one in role.principals.items()))
    return [
        msgspec.structs.replace(role, trust=shown(role.trust, role.principals, others))
        for role in roles
    ]


async def _arns_of_users(store: Store, wanted: Collection[str]) -> dict[str, str]:
    """Unique id → ARN of those of these users who exist; who cannot be read is left out."""
    found: dict[str, str] = {}
    start, end = keys.IDENTITY_USERS, keys.after_prefix(keys.IDENTITY_USERS)
    while True:
        page = await store.kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
        for item in page.items:
            try:
                user = decode(UserRecord, item.value)
            except RecordFormatError:
                continue  # logged by the view of identities
            if user.user_id in wanted:
                found[user.user_id] = names.arn(names.USER, user.path, user.name)
        if not page.more:
            return found
        start = page.items[-1].key + b"\x00"


def _replaced(value: Any, others: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [others.get(each, each) for each in value]
    return others.get(value, value)


def _key(arn: str) -> bytes:
    if arn.startswith(OUR_SESSIONS):
        return keys.identity_role(arn.split("/")[1])
    name = arn.rpartition("/")[2]
    return keys.identity_user(name) if arn.startswith(OUR_USERS) else keys.identity_role(name)


def _id_by_role(role: RoleRecord, arn: str) -> str:
    """The id of what the ARN names, the role or a session of it; "" when it is another's."""
    if not arn.startswith(OUR_SESSIONS):
        return role.role_id if names.arn(names.ROLE, role.path, role.name) == arn else ""
    session_name = arn.rpartition("/")[2]
    same = assumed_role_arn(role, session_name) == arn
    return f"{role.role_id}:{session_name}" if same else ""
