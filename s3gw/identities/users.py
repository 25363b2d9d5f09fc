"""Users and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from s3gw import limits
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes, read_all
from s3gw.identities.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    NoSuchEntity,
)
from s3gw.identities.managed import require_policy
from s3gw.metadata import keys
from s3gw.metadata.identity_records import (
    ACTIVE,
    INACTIVE,
    AccessKeyRecord,
    GroupRecord,
    UserRecord,
)

STATUSES = (ACTIVE, INACTIVE)


def user_key(name: str) -> bytes:
    """Raises ValidationError."""
    return keys.identity_user(names.check_name(names.USER, name))


def group_key(name: str) -> bytes:
    """Raises ValidationError."""
    return keys.identity_group(names.check_name(names.GROUP, name))


async def user_of(change: Change, name: str) -> UserRecord:
    """Raises NoSuchEntity."""
    return found_user(await change.get(UserRecord, user_key(name)), name)


async def group_of(change: Change, name: str) -> GroupRecord:
    """Raises NoSuchEntity."""
    return found_group(await change.get(GroupRecord, group_key(name)), name)


def found_user(record: UserRecord | None, name: str) -> UserRecord:
    """The record, if it is of this very name. Raises NoSuchEntity."""
    if record is None or record.name != name:
        raise NoSuchEntity.of("user", name)
    return record


def found_group(record: GroupRecord | None, name: str) -> GroupRecord:
    """The record, if it is of this very name. Raises NoSuchEntity."""
    if record is None or record.name != name:
        raise NoSuchEntity.of("group", name)
    return record


def check_status(status: str) -> str:
    """Raises InvalidInput."""
    if status not in STATUSES:
        raise InvalidInput("The status must be Active or Inactive.")
    return status


class Users(Changes):
    """Users, and who is in which group."""

    async def create_user(
        self,
        name: str,
        *,
        path: str = "/",
        tags: Mapping[str, str] | None = None,
        boundary: str = "",
    ) -> UserRecord:
        """Raises EntityAlreadyExists, LimitExceeded, ValidationError, InvalidInput; NoSuchEntity
        for the boundary."""
        names.check_name(names.USER, name)
        record = UserRecord(
            name,
            names.new_id(names.USER_ID),
            names.check_path(path),
            self.clock_ms(),
            boundary=boundary,
            tags=names.check_tags(tags or {}),
        )

        async def decide(change: Change) -> UserRecord:
            if await change.get(UserRecord, user_key(name)) is not None:
                raise EntityAlreadyExists.of("User", name)
            if len(await change.all(UserRecord, keys.IDENTITY_USERS)) >= limits.IAM_USERS_MAX:
                raise LimitExceeded(
                    f"Cannot exceed quota for UsersPerAccount: {limits.IAM_USERS_MAX}"
                )
            if boundary:
                await require_policy(change, boundary)
            change.put(user_key(name), record)
            return record

        return await self.change(decide)

    async def get_user(self, name: str) -> UserRecord:
        """Raises NoSuchEntity."""
        return found_user((await self.store.get(UserRecord, user_key(name))).record, name)

    async def list_users(self) -> list[UserRecord]:
        """All, by name."""
        return await read_all(self.store, UserRecord, keys.IDENTITY_USERS)

    async def change_user(self, name: str, make: Callable[[UserRecord], UserRecord]) -> UserRecord:
        """Replace the record by what `make` makes of it. Raises NoSuchEntity and what `make`
        raises."""

        async def decide(change: Change) -> UserRecord:
            before = await user_of(change, name)
            after = make(before)
            if after != before:
                change.put(user_key(name), after)
            return after

        return await self.change(decide)

    async def set_user_status(self, name: str, status: str) -> UserRecord:
        """While a user is "Inactive" none of its keys and sessions works. Raises NoSuchEntity,
        InvalidInput."""
        check_status(status)
        return await self.change_user(name, lambda user: replace(user, status=status))

    async def set_user_tags(self, name: str, tags: Mapping[str, str]) -> UserRecord:
        """Replace all tags. Raises NoSuchEntity, InvalidInput, LimitExceeded."""
        checked = names.check_tags(tags)
        return await self.change_user(name, lambda user: replace(user, tags=checked))

    async def update_user(
        self, name: str, *, new_name: str | None = None, new_path: str | None = None
    ) -> UserRecord:
        """Give a user another name or path. Its unique id, keys and policies stay; what names its
        ARN elsewhere does not follow. Raises NoSuchEntity, EntityAlreadyExists, ValidationError."""
        target = names.check_name(names.USER, new_name) if new_name is not None else name
        path = names.check_path(new_path) if new_path is not None else None

        async def decide(change: Change) -> UserRecord:
            before = await user_of(change, name)
            after = replace(before, name=target, path=before.path if path is None else path)
            if after == before:
                return before
            old, new = user_key(name), user_key(target)
            if new != old:
                if await change.get(UserRecord, new) is not None:
                    raise EntityAlreadyExists.of("User", target)
                change.delete(old)
            change.put(new, after)
            if target != name:
                for access_key in (*before.access_keys, *before.service_accounts):
                    key = keys.identity_key(access_key)
                    held = await change.get(AccessKeyRecord, key)
                    if held is not None:
                        change.put(key, replace(held, user=target))
            return after

        return await self.change(decide)

    async def delete_user(self, name: str, *, force: bool = False) -> None:
        """Remove a user that has nothing any more; with `force` its keys, policies and memberships
        go with it. Raises NoSuchEntity, DeleteConflict."""

        async def decide(change: Change) -> None:
            user = await user_of(change, name)
            if not force:
                _refuse_in_use(user)
            for access_key in (*user.access_keys, *user.service_accounts):
                change.delete(keys.identity_key(access_key))
            change.delete(user_key(name))

        await self.change(decide)

    async def add_user_to_group(self, group: str, user: str) -> None:
        """Again is no error. Raises NoSuchEntity, LimitExceeded."""

        async def decide(change: Change) -> None:
            await group_of(change, group)
            record = await user_of(change, user)
            if group in record.groups:
                return
            if len(record.groups) >= limits.IAM_GROUPS_PER_USER_MAX:
                raise LimitExceeded(
                    f"Cannot exceed quota for GroupsPerUser: {limits.IAM_GROUPS_PER_USER_MAX}"
                )
            joined = replace(record, groups=tuple(sorted((*record.groups, group))))
            change.put(user_key(user), joined)

        await self.change(decide)

    async def remove_user_from_group(self, group: str, user: str) -> None:
        """Raises NoSuchEntity, also when the user is not in the group."""

        async def decide(change: Change) -> None:
            await group_of(change, group)
            record = await user_of(change, user)
            if group not in record.groups:
                raise NoSuchEntity(f"User {user} is not in group {group}.")
            left = tuple(each for each in record.groups if each != group)
            change.put(user_key(user), replace(record, groups=left))

        await self.change(decide)


def _refuse_in_use(user: UserRecord) -> None:
    in_use = (
        (user.access_keys or user.service_accounts, "delete access keys"),
        (user.policies, "delete policies"),
        (user.attached, "detach all policies"),
        (user.groups, "remove user from all groups"),
    )
    for held, what in in_use:
        if held:
            raise DeleteConflict(f"Cannot delete entity, must {what} first.")


class Groups(Changes):
    """Groups of users."""

    async def create_group(self, name: str, *, path: str = "/") -> GroupRecord:
        """Raises EntityAlreadyExists, LimitExceeded, ValidationError."""
        names.check_name(names.GROUP, name)
        record = GroupRecord(
            name, names.new_id(names.GROUP_ID), names.check_path(path), self.clock_ms()
        )

        async def decide(change: Change) -> GroupRecord:
            if await change.get(GroupRecord, group_key(name)) is not None:
                raise EntityAlreadyExists.of("Group", name)
            most = limits.IAM_GROUPS_MAX
            if len(await change.all(GroupRecord, keys.IDENTITY_GROUPS)) >= most:
                raise LimitExceeded(f"Cannot exceed quota for GroupsPerAccount: {most}")
            change.put(group_key(name), record)
            return record

        return await self.change(decide)

    async def get_group(self, name: str) -> GroupRecord:
        """Raises NoSuchEntity."""
        found = await self.store.get(GroupRecord, group_key(name))
        return found_group(found.record, name)

    async def list_groups(self) -> list[GroupRecord]:
        """All, by name."""
        return await read_all(self.store, GroupRecord, keys.IDENTITY_GROUPS)

    async def members_of(self, name: str) -> list[UserRecord]:
        """The users in a group, by name. Raises NoSuchEntity."""
        await self.get_group(name)
        users = await read_all(self.store, UserRecord, keys.IDENTITY_USERS)
        return [user for user in users if name in user.groups]

    async def update_group_path(self, name: str, path: str) -> GroupRecord:
        """Give a group another path; its name is fixed. Raises NoSuchEntity, ValidationError."""
        names.check_path(path)

        async def decide(change: Change) -> GroupRecord:
            group = replace(await group_of(change, name), path=path)
            change.put(group_key(name), group)
            return group

        return await self.change(decide)

    async def delete_group(self, name: str, *, force: bool = False) -> None:
        """Remove a group without members and policies; with `force` its policies go with it.
        Raises NoSuchEntity, DeleteConflict."""

        async def decide(change: Change) -> None:
            group = await group_of(change, name)
            users = await change.all(UserRecord, keys.IDENTITY_USERS)
            if any(name in user.groups for user in users):
                raise DeleteConflict("Cannot delete entity, must remove users from group first.")
            if group.policies and not force:
                raise DeleteConflict("Cannot delete entity, must delete policies first.")
            if group.attached and not force:
                raise DeleteConflict("Cannot delete entity, must detach all policies first.")
            change.delete(group_key(name))

        await self.change(decide)
