"""Roles: permissions that whoever its trust policy names may assume for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from s3gw import limits
from s3gw.auth.policy import Policy
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes, read_all
from s3gw.identities.documents import parsed_trust
from s3gw.identities.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ValidationError,
)
from s3gw.identities.managed import require_policy
from s3gw.identities.policy_principals import UnknownPrincipal, shown_roles, unique_ids
from s3gw.metadata import keys
from s3gw.metadata.identity_records import RoleRecord


def role_key(name: str) -> bytes:
    """Raises ValidationError."""
    return keys.identity_role(names.check_name(names.ROLE, name))


async def role_of(change: Change, name: str) -> RoleRecord:
    """Raises NoSuchEntity."""
    return _found(await change.get(RoleRecord, role_key(name)), name)


def _found(record: RoleRecord | None, name: str) -> RoleRecord:
    if record is None or record.name != name:
        raise NoSuchEntity.of("role", name)
    return record


def check_session_seconds(seconds: int) -> int:
    """The longest session of a role. Raises ValidationError."""
    least, most = limits.ROLE_SESSION_SECONDS_MIN, limits.ROLE_SESSION_SECONDS_MAX
    if not least <= seconds <= most:
        raise ValidationError(
            "1 validation error detected: Value at 'maxSessionDuration' failed to satisfy "
            f"constraint: Member must have value between {least} and {most}"
        )
    return seconds


class Roles(Changes):
    """Roles with their trust policies."""

    async def create_role(
        self,
        name: str,
        trust: str,
        *,
        path: str = "/",
        description: str = "",
        max_session_seconds: int = limits.ROLE_SESSION_SECONDS_MIN,
        boundary: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> RoleRecord:
        """Raises EntityAlreadyExists, LimitExceeded, MalformedPolicyDocument, ValidationError,
        InvalidInput; NoSuchEntity for the boundary."""
        key = role_key(name)
        policy = parsed_trust(trust, name)
        record = RoleRecord(
            name,
            names.new_id(names.ROLE_ID),
            names.check_path(path),
            self.clock_ms(),
            trust,
            names.check_description(description),
            check_session_seconds(max_session_seconds),
            boundary=boundary,
            tags=names.check_tags(tags or {}),
        )

        async def decide(change: Change) -> RoleRecord:
            if await change.get(RoleRecord, key) is not None:
                raise EntityAlreadyExists.of("Role", name)
            if len(await change.all(RoleRecord, keys.IDENTITY_ROLES)) >= limits.IAM_ROLES_MAX:
                raise LimitExceeded(
                    f"Cannot exceed quota for RolesPerAccount: {limits.IAM_ROLES_MAX}"
                )
            if boundary:
                await require_policy(change, boundary)
            made = replace(record, principals=await self._principals(policy))
            change.put(key, made)
            return made

        return await self.change(decide)

    async def get_role(self, name: str) -> RoleRecord:
        """Raises NoSuchEntity."""
        return _found((await self.store.get(RoleRecord, role_key(name))).record, name)

    async def shown_role(self, name: str) -> RoleRecord:
        """The role, its trust policy as `shown_roles` has it. Raises NoSuchEntity."""
        return (await self.shown_roles([await self.get_role(name)]))[0]

    async def shown_roles(self, roles: Sequence[RoleRecord]) -> list[RoleRecord]:
        """The roles as who asks for them sees them: a principal of a trust policy who is gone is
        named by its id."""
        return await shown_roles(self.store, roles)

    async def list_roles(self) -> list[RoleRecord]:
        """All, by name."""
        return await read_all(self.store, RoleRecord, keys.IDENTITY_ROLES)

    async def update_assume_role_policy(self, name: str, trust: str) -> RoleRecord:
        """Replace the trust policy. Raises NoSuchEntity, MalformedPolicyDocument, LimitExceeded."""
        policy = parsed_trust(trust, name)

        async def decide(change: Change) -> RoleRecord:
            role = await role_of(change, name)
            role = replace(role, trust=trust, principals=await self._principals(policy))
            change.put(role_key(name), role)
            return role

        return await self.change(decide)

    async def _principals(self, policy: Policy) -> dict[str, str]:
        """Whom a trust policy names, for a change that is being decided. Raises
        MalformedPolicyDocument."""
        try:
            return await unique_ids(self.store, policy)
        except UnknownPrincipal as error:
            raise MalformedPolicyDocument(f'{error}: "AWS":"{error.arn}"') from error

    async def update_role(
        self, name: str, *, description: str | None = None, max_session_seconds: int | None = None
    ) -> RoleRecord:
        """Raises NoSuchEntity, ValidationError."""
        if description is not None:
            names.check_description(description)
        if max_session_seconds is not None:
            check_session_seconds(max_session_seconds)

        async def decide(change: Change) -> RoleRecord:
            role = await role_of(change, name)
            if description is not None:
                role = replace(role, description=description)
            if max_session_seconds is not None:
                role = replace(role, max_session_seconds=max_session_seconds)
            change.put(role_key(name), role)
            return role

        return await self.change(decide)

    async def change_role(self, name: str, make: Callable[[RoleRecord], RoleRecord]) -> RoleRecord:
        """Replace the record by what `make` makes of it. Raises NoSuchEntity and what `make`
        raises."""

        async def decide(change: Change) -> RoleRecord:
            before = await role_of(change, name)
            after = make(before)
            if after != before:
                change.put(role_key(name), after)
            return after

        return await self.change(decide)

    async def set_role_tags(self, name: str, tags: Mapping[str, str]) -> RoleRecord:
        """Replace all tags. Raises NoSuchEntity, InvalidInput, LimitExceeded."""
        checked = names.check_tags(tags)
        return await self.change_role(name, lambda role: replace(role, tags=checked))

    async def delete_role(self, name: str, *, force: bool = False) -> None:
        """Remove a role without policies; with `force` they go with it. Its sessions end. Raises
        NoSuchEntity, DeleteConflict."""

        async def decide(change: Change) -> None:
            role = await role_of(change, name)
            if role.policies and not force:
                raise DeleteConflict("Cannot delete entity, must delete policies first.")
            if role.attached and not force:
                raise DeleteConflict("Cannot delete entity, must detach all policies first.")
            change.delete(role_key(name))

        await self.change(decide)
