"""Managed policies: documents of their own, which users, groups and roles have attached.

Those that are built in (s3gw.identities.documents) belong to the account `aws` and cannot be
changed; no other policy may have the name of one, so that a name alone says which is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from s3gw import limits
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes, read_all
from s3gw.identities.documents import BUILT_IN, BUILT_IN_ARNS, check_document
from s3gw.identities.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    LimitExceeded,
    NoSuchEntity,
)
from s3gw.identities.root import ACCOUNT_ID
from s3gw.metadata import keys
from s3gw.metadata.identity_records import (
    GroupRecord,
    ManagedPolicyRecord,
    RoleRecord,
    UserRecord,
)


def arn_of(policy: ManagedPolicyRecord) -> str:
    """The ARN of a managed policy of this account, or of one that is built in."""
    account = names.AWS_ACCOUNT if policy.name in BUILT_IN else ACCOUNT_ID
    return names.arn(names.POLICY, policy.path, policy.name, account)


def built_in(name: str) -> ManagedPolicyRecord:
    """A built-in policy as a record."""
    return ManagedPolicyRecord(name, f"{names.POLICY_ID}{name.upper()}", "/", 0, BUILT_IN[name])


def policy_key(policy_arn: str) -> bytes:
    """The key of a policy of this account. Raises ValidationError, NoSuchEntity."""
    account, name = names.policy_of_arn(policy_arn)
    if account != ACCOUNT_ID:
        raise _no_such_policy(policy_arn)
    return keys.identity_policy(names.check_name(names.POLICY, name))


async def policy_of(change: Change, policy_arn: str) -> ManagedPolicyRecord:
    """The policy, to be changed. Raises NoSuchEntity, ValidationError."""
    record = await change.get(ManagedPolicyRecord, policy_key(policy_arn))
    return _found(record, policy_arn)


async def require_policy(change: Change, policy_arn: str) -> None:
    """The managed policy exists. Raises NoSuchEntity, ValidationError."""
    if policy_arn not in BUILT_IN_ARNS:
        await policy_of(change, policy_arn)


def _found(record: ManagedPolicyRecord | None, policy_arn: str) -> ManagedPolicyRecord:
    if record is None or arn_of(record) != policy_arn:
        raise _no_such_policy(policy_arn)
    return record


def _no_such_policy(policy_arn: str) -> NoSuchEntity:
    return NoSuchEntity(f"Policy {policy_arn} does not exist or is not attachable.")


class Managed(Changes):
    """Managed policies."""

    async def create_policy(
        self,
        name: str,
        document: str,
        *,
        path: str = "/",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ManagedPolicyRecord:
        """Raises EntityAlreadyExists, LimitExceeded, MalformedPolicyDocument, ValidationError,
        InvalidInput."""
        names.check_name(names.POLICY, name)
        check_document(document, name, limits.IAM_MANAGED_POLICY_CHARACTERS_MAX)
        now_ms = self.clock_ms()
        record = ManagedPolicyRecord(
            name,
            names.new_id(names.POLICY_ID),
            names.check_path(path),
            now_ms,
            document,
            names.check_description(description),
            now_ms,
            tags=names.check_tags(tags or {}),
        )
        key = keys.identity_policy(name)
        reserved = {each.lower() for each in BUILT_IN}

        async def decide(change: Change) -> ManagedPolicyRecord:
            taken = name.lower() in reserved
            if taken or await change.get(ManagedPolicyRecord, key) is not None:
                raise EntityAlreadyExists(f"A policy called {name} already exists.")
            most = limits.IAM_POLICIES_MAX
            if len(await change.all(ManagedPolicyRecord, keys.IDENTITY_POLICIES)) >= most:
                raise LimitExceeded(f"Cannot exceed quota for PoliciesPerAccount: {most}")
            change.put(key, record)
            return record

        return await self.change(decide)

    async def get_policy(self, policy_arn: str) -> ManagedPolicyRecord:
        """Built-in ones too. Raises NoSuchEntity, ValidationError."""
        name = BUILT_IN_ARNS.get(policy_arn)
        if name is not None:
            return built_in(name)
        found = await self.store.get(ManagedPolicyRecord, policy_key(policy_arn))
        return _found(found.record, policy_arn)

    async def named_policy(self, name_or_arn: str) -> ManagedPolicyRecord:
        """The policy of an ARN, or of a name alone. Raises NoSuchEntity, ValidationError."""
        if name_or_arn.startswith("arn:"):
            return await self.get_policy(name_or_arn)
        if name_or_arn in BUILT_IN:
            return built_in(name_or_arn)
        key = keys.identity_policy(names.check_name(names.POLICY, name_or_arn))
        record = (await self.store.get(ManagedPolicyRecord, key)).record
        if record is None or record.name != name_or_arn:
            raise NoSuchEntity.of("policy", name_or_arn)
        return record

    async def list_policies(self) -> list[ManagedPolicyRecord]:
        """Those of this account, by name."""
        return await read_all(self.store, ManagedPolicyRecord, keys.IDENTITY_POLICIES)

    async def update_policy(self, policy_arn: str, document: str) -> ManagedPolicyRecord:
        """Replace the document, which takes effect wherever the policy is attached. Raises
        NoSuchEntity, MalformedPolicyDocument, LimitExceeded, ValidationError."""
        check_document(document, policy_arn, limits.IAM_MANAGED_POLICY_CHARACTERS_MAX)

        async def decide(change: Change) -> ManagedPolicyRecord:
            before = await policy_of(change, policy_arn)
            if document == before.document:
                return before
            after = replace(
                before, document=document, updated_ms=self.clock_ms(), version=before.version + 1
            )
            change.put(policy_key(policy_arn), after)
            return after

        return await self.change(decide)

    async def change_policy(
        self, policy_arn: str, make: Callable[[ManagedPolicyRecord], ManagedPolicyRecord]
    ) -> ManagedPolicyRecord:
        """Replace what is said of the policy by what `make` makes of it. Raises NoSuchEntity,
        ValidationError and what `make` raises."""

        async def decide(change: Change) -> ManagedPolicyRecord:
            before = await policy_of(change, policy_arn)
            after = make(before)
            if after != before:
                change.put(policy_key(policy_arn), after)
            return after

        return await self.change(decide)

    async def delete_policy(self, policy_arn: str) -> None:
        """Raises NoSuchEntity; DeleteConflict while it is attached or a boundary."""

        async def decide(change: Change) -> None:
            await policy_of(change, policy_arn)
            for kind, prefix in (
                (UserRecord, keys.IDENTITY_USERS),
                (GroupRecord, keys.IDENTITY_GROUPS),
                (RoleRecord, keys.IDENTITY_ROLES),
            ):
                for record in await change.all(kind, prefix):
                    assert isinstance(record, UserRecord | GroupRecord | RoleRecord)
                    if policy_arn in record.attached:
                        raise DeleteConflict("Cannot delete a policy attached to entities.")
                    if policy_arn == getattr(record, "boundary", ""):
                        raise DeleteConflict("Cannot delete a policy used as a boundary.")
            change.delete(policy_key(policy_arn))

        await self.change(decide)

    async def entities_of(
        self, policy_arn: str
    ) -> tuple[list[UserRecord], list[GroupRecord], list[RoleRecord]]:
        """Whoever has the policy attached. Raises NoSuchEntity, ValidationError."""
        await self.get_policy(policy_arn)
        users = await read_all(self.store, UserRecord, keys.IDENTITY_USERS)
        groups = await read_all(self.store, GroupRecord, keys.IDENTITY_GROUPS)
        roles = await read_all(self.store, RoleRecord, keys.IDENTITY_ROLES)
        return (
            [each for each in users if policy_arn in each.attached],
            [each for each in groups if policy_arn in each.attached],
            [each for each in roles if policy_arn in each.attached],
        )
