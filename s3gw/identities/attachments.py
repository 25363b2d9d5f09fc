"""The policies of users, groups and roles: inline, attached, and the permissions boundary; and the
tags of users and roles.

`kind` is "user", "group" or "role"; `name` is whose.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from s3gw import limits
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes
from s3gw.identities.documents import check_document, check_inline
from s3gw.identities.errors import InvalidInput, LimitExceeded, NoSuchEntity
from s3gw.identities.managed import require_policy
from s3gw.identities.names import GROUP, ROLE, USER
from s3gw.identities.roles import role_key, role_of
from s3gw.identities.users import group_key, group_of, user_key, user_of
from s3gw.metadata.identity_records import GroupRecord, RoleRecord, UserRecord

Holder = UserRecord | GroupRecord | RoleRecord

_INLINE_MAX = {
    USER: limits.IAM_USER_INLINE_CHARACTERS_MAX,
    GROUP: limits.IAM_GROUP_INLINE_CHARACTERS_MAX,
    ROLE: limits.IAM_ROLE_INLINE_CHARACTERS_MAX,
}
_READ: dict[str, Callable[[Change, str], Awaitable[Holder]]] = {
    USER: user_of,
    GROUP: group_of,
    ROLE: role_of,
}
_KEY: dict[str, Callable[[str], bytes]] = {USER: user_key, GROUP: group_key, ROLE: role_key}
_RECORD: dict[str, type[Holder]] = {USER: UserRecord, GROUP: GroupRecord, ROLE: RoleRecord}


class Attachments(Changes):
    """Policies of users, groups and roles."""

    async def _change_holder(
        self, kind: str, name: str, make: Callable[[Change, Holder], Awaitable[Holder]]
    ) -> None:
        async def decide(change: Change) -> None:
            before = await _READ[kind](change, name)
            after = await make(change, before)
            if after != before:
                change.put(_KEY[kind](name), after)

        await self.change(decide)

    async def put_inline_policy(self, kind: str, name: str, policy: str, document: str) -> None:
        """Give it a policy of its own, or replace the one of this name. Raises NoSuchEntity,
        MalformedPolicyDocument, LimitExceeded, ValidationError."""
        names.check_name(names.POLICY, policy)
        check_document(document, policy, _INLINE_MAX[kind])

        async def make(_change: Change, holder: Holder) -> Holder:
            policies = {**holder.policies, policy: document}
            check_inline(policies, f"{kind} {name}", _INLINE_MAX[kind])
            return replace(holder, policies=dict(sorted(policies.items())))

        await self._change_holder(kind, name, make)

    async def get_inline_policy(self, kind: str, name: str, policy: str) -> str:
        """Its document. Raises NoSuchEntity."""
        holder = await self.holder(kind, name)
        if policy not in holder.policies:
            raise _no_inline(kind, policy)
        return holder.policies[policy]

    async def stored_name(self, kind: str, name: str) -> str:
        """The name as the user, group or role has it, that is called so in any case; `name` itself
        where there is none. Raises ValidationError."""
        found = await self.store.get(_RECORD[kind], _KEY[kind](name))
        return name if found.record is None else found.record.name

    async def holder(self, kind: str, name: str) -> Holder:
        """The user, group or role. Raises NoSuchEntity."""
        return await _READ[kind](Change(self.store, 0), name)

    async def delete_inline_policy(self, kind: str, name: str, policy: str) -> None:
        """Raises NoSuchEntity."""

        async def make(_change: Change, holder: Holder) -> Holder:
            if policy not in holder.policies:
                raise _no_inline(kind, policy)
            left = {each: text for each, text in holder.policies.items() if each != policy}
            return replace(holder, policies=left)

        await self._change_holder(kind, name, make)

    async def attach_policy(self, kind: str, name: str, policy_arn: str) -> None:
        """Attach a managed policy; again is no error. Raises NoSuchEntity, LimitExceeded,
        ValidationError."""

        async def make(change: Change, holder: Holder) -> Holder:
            await require_policy(change, policy_arn)
            if policy_arn in holder.attached:
                return holder
            most = limits.IAM_ATTACHED_POLICIES_MAX
            if len(holder.attached) >= most:
                raise LimitExceeded(
                    f"Cannot exceed quota for PoliciesPer{kind.capitalize()}: {most}"
                )
            return replace(holder, attached=(*holder.attached, policy_arn))

        await self._change_holder(kind, name, make)

    async def detach_policy(self, kind: str, name: str, policy_arn: str) -> None:
        """Raises NoSuchEntity, also when it is not attached."""

        async def make(_change: Change, holder: Holder) -> Holder:
            if policy_arn not in holder.attached:
                raise NoSuchEntity(f"Policy {policy_arn} was not found.")
            left = tuple(each for each in holder.attached if each != policy_arn)
            return replace(holder, attached=left)

        await self._change_holder(kind, name, make)

    async def put_boundary(self, kind: str, name: str, policy_arn: str) -> None:
        """What a user or role may do at most. Raises NoSuchEntity, ValidationError,
        InvalidInput."""

        async def make(change: Change, holder: Holder) -> Holder:
            await require_policy(change, policy_arn)
            return replace(_bounded(holder), boundary=policy_arn)

        await self._change_holder(kind, name, make)

    async def delete_boundary(self, kind: str, name: str) -> None:
        """Raises NoSuchEntity, also when there is none; InvalidInput."""

        async def make(_change: Change, holder: Holder) -> Holder:
            bounded = _bounded(holder)
            if not bounded.boundary:
                raise NoSuchEntity(f"The {kind} {name} has no permissions boundary.")
            return replace(bounded, boundary="")

        await self._change_holder(kind, name, make)

    async def tags_of(self, kind: str, name: str) -> dict[str, str]:
        """Of a user or role. Raises NoSuchEntity, InvalidInput."""
        return _tagged(await self.holder(kind, name)).tags

    async def change_tags(
        self, kind: str, name: str, make: Callable[[dict[str, str]], dict[str, str]]
    ) -> None:
        """Replace the tags of a user or role by what `make` makes of them. Raises NoSuchEntity,
        InvalidInput and what `make` raises."""

        async def changed(_change: Change, holder: Holder) -> Holder:
            tagged = _tagged(holder)
            return replace(tagged, tags=make(tagged.tags))

        await self._change_holder(kind, name, changed)


def _bounded(holder: Holder) -> UserRecord | RoleRecord:
    if isinstance(holder, GroupRecord):
        raise InvalidInput("A group has no permissions boundary.")
    return holder


def _tagged(holder: Holder) -> UserRecord | RoleRecord:
    if isinstance(holder, GroupRecord):
        raise InvalidInput("A group has no tags.")
    return holder


def _no_inline(kind: str, policy: str) -> NoSuchEntity:
    return NoSuchEntity(f"The {kind} policy with name {policy} cannot be found.")
