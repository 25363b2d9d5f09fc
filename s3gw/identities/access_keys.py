"""Access keys of users, and service accounts.

A user has at most two keys, so that one can be replaced while the other is in use; as many service
accounts as it needs besides, each with one key of its own. A service account acts as its user. A
policy of its own limits it further, wherever the user's permissions come from: what it does is what
both allow.

The secret is shown once, when the key is made, and kept sealed.
"""

from __future__ import annotations

from msgspec.structs import replace

from s3gw import limits
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes, read_all
from s3gw.identities.documents import check_document
from s3gw.identities.errors import InvalidInput, LimitExceeded, NoSuchEntity
from s3gw.identities.users import check_status, user_key, user_of
from s3gw.metadata import keys
from s3gw.metadata.identity_records import ACTIVE, AccessKeyRecord, UserRecord
from s3gw.metadata.records import decode


def access_key_key(access_key: str) -> bytes:
    """Raises ValidationError."""
    return keys.identity_key(names.check_access_key(access_key))


async def key_of(change: Change, access_key: str, user: str | None) -> AccessKeyRecord:
    """The record; of this user, where one is named. Raises NoSuchEntity."""
    return _found(await change.get(AccessKeyRecord, access_key_key(access_key)), access_key, user)


def _found(record: AccessKeyRecord | None, access_key: str, user: str | None) -> AccessKeyRecord:
    if record is None or user not in (None, record.user):
        raise NoSuchEntity.of("Access Key", access_key)
    return record


class AccessKeys(Changes):
    """Access keys and service accounts."""

    async def create_access_key(self, user: str) -> tuple[AccessKeyRecord, str]:
        """A new key of a user, with its secret. Raises NoSuchEntity, LimitExceeded."""
        record, secret = self._made(user)

        async def decide(change: Change) -> tuple[AccessKeyRecord, str]:
            owner = await user_of(change, user)
            most = limits.IAM_ACCESS_KEYS_PER_USER_MAX
            if len(owner.access_keys) >= most:
                raise LimitExceeded(f"Cannot exceed quota for AccessKeysPerUser: {most}")
            held = (*owner.access_keys, record.access_key)
            change.put(user_key(user), replace(owner, access_keys=held))
            change.put(access_key_key(record.access_key), record)
            return record, secret

        return await self.change(decide)

    async def create_service_account(
        self, user: str, *, policy: str = "", description: str = "", expires_ms: int = 0
    ) -> tuple[AccessKeyRecord, str]:
        """A key that acts as the user, limited by `policy` if there is one, until `expires_ms` (0:
        for ever). Raises NoSuchEntity, LimitExceeded, MalformedPolicyDocument, InvalidInput."""
        if policy:
            check_document(policy, "session policy", limits.IAM_SESSION_POLICY_CHARACTERS_MAX)
        if expires_ms and expires_ms <= self.clock_ms():
            raise InvalidInput("The end of the service account is not in the future.")
        record, secret = self._made(user)
        record = replace(
            record,
            service=True,
            description=names.check_description(description),
            policy=policy,
            expires_ms=expires_ms,
        )

        async def decide(change: Change) -> tuple[AccessKeyRecord, str]:
            owner = await user_of(change, user)
            most = limits.IAM_SERVICE_ACCOUNTS_PER_USER_MAX
            if len(owner.service_accounts) >= most:
                raise LimitExceeded(f"Cannot exceed quota for ServiceAccountsPerUser: {most}")
            held = (*owner.service_accounts, record.access_key)
            change.put(user_key(user), replace(owner, service_accounts=held))
            change.put(access_key_key(record.access_key), record)
            return record, secret

        return await self.change(decide)

    def _made(self, user: str) -> tuple[AccessKeyRecord, str]:
        access_key, secret = names.new_access_key(), names.new_secret()
        sealed = self.seal.seal(secret.encode(), access_key.encode())
        return AccessKeyRecord(access_key, user, sealed, self.clock_ms()), secret

    async def get_access_key(self, access_key: str) -> AccessKeyRecord:
        """Raises NoSuchEntity, ValidationError."""
        found = await self.store.get(AccessKeyRecord, access_key_key(access_key))
        return _found(found.record, access_key, None)

    async def list_access_keys(self, user: str) -> list[AccessKeyRecord]:
        """The keys of a user and then of its service accounts, in the order they were made. Raises
        NoSuchEntity."""
        owner = (await self.store.get(UserRecord, user_key(user))).record
        if owner is None or owner.name != user:
            raise NoSuchEntity.of("user", user)
        held = (*owner.access_keys, *owner.service_accounts)
        reading = await self.store.kv.get_many([keys.identity_key(each) for each in held])
        return [decode(AccessKeyRecord, item.value) for item in reading.items if item is not None]

    async def list_all_access_keys(self) -> list[AccessKeyRecord]:
        """The keys of all users."""
        return await read_all(self.store, AccessKeyRecord, keys.IDENTITY_KEYS)

    async def update_access_key(
        self, access_key: str, status: str, *, user: str | None = None
    ) -> AccessKeyRecord:
        """Let a key work ("Active") or not ("Inactive"). Raises NoSuchEntity, InvalidInput."""
        check_status(status)

        async def decide(change: Change) -> AccessKeyRecord:
            before = await key_of(change, access_key, user)
            after = replace(before, status=status)
            if after != before:
                change.put(access_key_key(access_key), after)
            return after

        return await self.change(decide)

    async def set_service_policy(self, access_key: str, policy: str) -> AccessKeyRecord:
        """Replace what limits a service account; "" lets it do all that its user may. Raises
        NoSuchEntity, InvalidInput, MalformedPolicyDocument, LimitExceeded."""
        if policy:
            check_document(policy, "session policy", limits.IAM_SESSION_POLICY_CHARACTERS_MAX)

        async def decide(change: Change) -> AccessKeyRecord:
            before = await key_of(change, access_key, None)
            if not before.service:
                raise InvalidInput("Only the key of a service account has a policy of its own.")
            after = replace(before, policy=policy)
            if after != before:
                change.put(access_key_key(access_key), after)
            return after

        return await self.change(decide)

    async def rotate_access_key(self, access_key: str) -> tuple[AccessKeyRecord, str]:
        """A new key in place of one, with its secret: same user, policy, description and end. The
        old one stops working at once, the new one is active. Raises NoSuchEntity."""

        async def decide(change: Change) -> tuple[AccessKeyRecord, str]:
            before = await key_of(change, access_key, None)
            made, secret = self._made(before.user)
            after = replace(
                before,
                access_key=made.access_key,
                secret=made.secret,
                created_ms=made.created_ms,
                status=ACTIVE,
            )
            owner = await user_of(change, before.user)
            change.put(user_key(owner.name), _with_keys(owner, access_key, made.access_key))
            change.delete(access_key_key(access_key))
            change.put(access_key_key(made.access_key), after)
            return after, secret

        return await self.change(decide)

    async def delete_access_key(self, access_key: str, *, user: str | None = None) -> None:
        """Raises NoSuchEntity."""

        async def decide(change: Change) -> None:
            record = await key_of(change, access_key, user)
            owner = await user_of(change, record.user)
            change.put(user_key(owner.name), _with_keys(owner, access_key))
            change.delete(access_key_key(access_key))

        await self.change(decide)


def _with_keys(user: UserRecord, old: str, *new: str) -> UserRecord:
    """The user with other keys in the place of one."""

    def exchanged(held: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(key for each in held for key in (new if each == old else (each,)))

    return replace(
        user,
        access_keys=exchanged(user.access_keys),
        service_accounts=exchanged(user.service_accounts),
    )
