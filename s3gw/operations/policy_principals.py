"""Whom a bucket's policy names: users and roles are told by their unique ids, not by their names.

As on AWS, a policy is about the user who had the name when it was put. A user who is deleted and
made again under the same name is another one, and has no access by it. The document is kept as it
was sent; beside it lies which id each ARN of the account's users and roles stood for, and that is
what decides. Who asks for the policy sees the id in place of an ARN that is nobody's any more or
another one's.

Sessions and identities of other accounts are not known here and stay texts; so do the ARNs in
conditions, which AWS compares as texts, too.

Source: IAM User Guide, "AWS JSON policy elements: Principal".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from s3gw import errors
from s3gw.auth.policy import Policy, principal_arns
from s3gw.auth.policy_parse import BAD_PRINCIPAL
from s3gw.identities import names
from s3gw.identities.root import ACCOUNT_ID
from s3gw.metadata import keys
from s3gw.metadata.identity_records import RoleRecord, UserRecord
from s3gw.metadata.store import versioned
from s3gw.objects.storage import Storage

READ_AT_ONCE = 100
OURS = f"arn:aws:iam::{ACCOUNT_ID}:"


async def unique_ids(storage: Storage, policy: Policy) -> bytes | None:
    """What is to be stored beside the policy: JSON, ARN → id; None when it names none of ours.
    Raises MalformedPolicy when somebody named does not exist."""
    arns = sorted(arn for arn in principal_arns(policy) if arn.startswith(OURS))
    found = await _ids_now(storage, arns)
    if len(found) < len(arns):
        raise errors.MalformedPolicy(BAD_PRINCIPAL)
    return json.dumps(found, sort_keys=True).encode() if found else None


async def shown(storage: Storage, document: bytes, stored: bytes | None) -> bytes:
    """The policy as who asks for it sees it: as it was put, if all it names are who they were."""
    ids = decoded(stored)
    now = await _ids_now(storage, sorted(ids))
    others = {arn: unique_id for arn, unique_id in ids.items() if now.get(arn) != unique_id}
    if not others:
        return document
    root = json.loads(document)
    statements = root["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for element in ("Principal", "NotPrincipal"):
            who = statement.get(element)
            if isinstance(who, dict) and "AWS" in who:
                who["AWS"] = _replaced(who["AWS"], others)
    return json.dumps(root, ensure_ascii=False).encode()


def decoded(stored: bytes | None) -> dict[str, str]:
    """ARN → id."""
    return msgspec.json.decode(stored, type=dict[str, str]) if stored else {}


def _replaced(value: Any, others: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [others.get(each, each) for each in value]
    return others.get(value, value)


async def _ids_now(storage: Storage, arns: Sequence[str]) -> dict[str, str]:
    """ARN → id of the users and roles that exist and have exactly this ARN."""
    found: dict[str, str] = {}
    for start in range(0, len(arns), READ_AT_ONCE):
        asked = arns[start : start + READ_AT_ONCE]
        reading = await storage.store.kv.get_many([_key(arn) for arn in asked])
        for arn, item in zip(asked, reading.items, strict=True):
            if arn.startswith(OURS + "user/"):
                user = versioned(UserRecord, item).record
                if user is not None and names.arn(names.USER, user.path, user.name) == arn:
                    found[arn] = user.user_id
            else:
                role = versioned(RoleRecord, item).record
                if role is not None and names.arn(names.ROLE, role.path, role.name) == arn:
                    found[arn] = role.role_id
    return found


def _key(arn: str) -> bytes:
    name = arn.rpartition("/")[2]
    of_user = arn.startswith(OURS + "user/")
    return keys.identity_user(name) if of_user else keys.identity_role(name)
