"""Identities as one process knows them: who signs with which key, and what they may do.

Every request asks, so everything is in memory and costs a look-up. The view is a copy of all of
`identity/` at one revision. It is made anew whenever `identity/generation` has changed, which the
watch tells at once; since a watch is only a hint, the generation is also read twice a second. So a
change takes effect in every process within a second, whatever becomes of the watch. While the
engine does not answer the view stays as it is, but then no request is served either. Only records
that have changed are decoded, and requests are served meanwhile, from the copy before.

Root is not among them: the configuration makes it, it wins over all, and its key is not looked up.

What cannot be read (a record or a policy that a newer version wrote) never allows: its user is
unknown, or everything is denied to whoever has that policy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from s3gw.auth.policy import Policy, Principal
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Permissions
from s3gw.errors import ExpiredToken, InvalidAccessKeyId, InvalidToken
from s3gw.identities import names
from s3gw.identities.changes import ACCESS_KEY_SECRETS
from s3gw.identities.documents import BUILT_IN, BUILT_IN_ARNS, compiled, denying
from s3gw.identities.managed import arn_of
from s3gw.identities.principals import user_principal
from s3gw.identities.root import Root
from s3gw.identities.sealing import Seal, Unsealable
from s3gw.identities.session_access import standing
from s3gw.identities.sessions import Sealer
from s3gw.kv.interface import KV, EngineError, Item
from s3gw.metadata import keys
from s3gw.metadata.identity_records import (
    ACTIVE,
    AccessKeyRecord,
    GroupRecord,
    ManagedPolicyRecord,
    OidcProviderRecord,
    RoleRecord,
    UserRecord,
)
from s3gw.metadata.records import RecordFormatError, StoreRecord, decode

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
WATCH_AGAIN_SECONDS = 1.0
SESSIONS_KEPT_MAX = 4096
# Records that are sorted in before others on the event loop have their turn: a few milliseconds.
STEP_ITEMS = 500
# Small enough that the engine's answer is made into items as fast. Not smaller: for each page etcd
# goes over all that is left of the range.
PAGE_ITEMS = 1000

KINDS: tuple[tuple[bytes, type[msgspec.Struct]], ...] = (
    (keys.IDENTITY_USERS, UserRecord),
    (keys.IDENTITY_GROUPS, GroupRecord),
    (keys.IDENTITY_KEYS, AccessKeyRecord),
    (keys.IDENTITY_POLICIES, ManagedPolicyRecord),
    (keys.IDENTITY_ROLES, RoleRecord),
    (keys.IDENTITY_PROVIDERS, OidcProviderRecord),
)


@dataclass(slots=True)
class Snapshot:
    """All identities at one revision: users, groups and roles by name, keys by their id, policies
    and providers by ARN. `records` are what they were read as, by key."""

    records: dict[bytes, tuple[int, msgspec.Struct | None]] = field(default_factory=dict)
    generation: int = 0
    users: dict[str, UserRecord] = field(default_factory=dict)
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    keys: dict[str, AccessKeyRecord] = field(default_factory=dict)
    policies: dict[str, ManagedPolicyRecord] = field(default_factory=dict)
    roles: dict[str, RoleRecord] = field(default_factory=dict)
    providers: dict[str, OidcProviderRecord] = field(default_factory=dict)

    def add(self, record: msgspec.Struct) -> None:
        """Sort a record in."""
        match record:
            case UserRecord():
                self.users[record.name] = record
            case GroupRecord():
                self.groups[record.name] = record
            case AccessKeyRecord():
                self.keys[record.access_key] = record
            case ManagedPolicyRecord():
                self.policies[arn_of(record)] = record
            case RoleRecord():
                self.roles[record.name] = record
            case OidcProviderRecord():
                self.providers[names.provider_arn(record.url)] = record


@dataclass(frozen=True, slots=True)
class Credential:
    """An access key that works: its secret, and what it stands for."""

    secret: str = field(repr=False)
    principal: Principal
    permissions: Permissions
    expires_ms: int = 0


class Identities:
    """The identities that one process knows. `load` comes first, `follow` keeps it up to date."""

    def __init__(
        self,
        kv: KV,
        root: Root,
        identity: StoreRecord,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.root = root
        self.sealer = Sealer(identity.token_secret)
        self._kv = kv
        self._seal = Seal(identity.cluster_secret, ACCESS_KEY_SECRETS)
        self._clock_ms = clock_ms
        self._poll_seconds = poll_seconds
        self._root = Credential(root.secret_key, root.principal, NO_PERMISSIONS)
        self._credentials: dict[str, Credential] = {}
        self._sessions: dict[str, tuple[str, Credential]] = {}
        self._loading = asyncio.Lock()
        self.known = Snapshot()

    # What the pipeline asks.

    def signing_secret(self, access_key: str, session_token: str | None) -> str:
        """The secret that a request with this key is signed with. Raises InvalidAccessKeyId,
        InvalidToken, ExpiredToken."""
        return self._credential(access_key, session_token, self._clock_ms()).secret

    def identify(self, access_key: str, session_token: str | None) -> tuple[Principal, Permissions]:
        """Whom a key stands for, and the policies that speak about them. Raises as
        `signing_secret`."""
        return self._identified(access_key, session_token, self._clock_ms())

    def identify_again(
        self, access_key: str, session_token: str | None
    ) -> Callable[[], tuple[Principal, Permissions]]:
        """`identify` for one request that begins now, to be asked again while it goes on: what has
        only ended by its time since then does not end the request."""
        return partial(self._identified, access_key, session_token, self._clock_ms())

    def _identified(
        self, access_key: str, session_token: str | None, at_ms: int
    ) -> tuple[Principal, Permissions]:
        credential = self._credential(access_key, session_token, at_ms)
        return credential.principal, credential.permissions

    def _credential(self, access_key: str, session_token: str | None, at_ms: int) -> Credential:
        if session_token is not None:
            return self._session_credential(access_key, session_token, at_ms)
        if access_key == self.root.access_key:
            return self._root
        found = self._credentials.get(access_key)
        if found is None:
            found = self._credentials[access_key] = self._made_credential(access_key)
        if found.expires_ms and at_ms >= found.expires_ms:
            raise InvalidAccessKeyId(AWSAccessKeyId=access_key)
        return found

    def _made_credential(self, access_key: str) -> Credential:
        record, user = self.working_key(access_key)
        try:
            secret = self._seal.open(record.secret, access_key.encode()).decode()
        except Unsealable as error:
            log.warning("the secret of access key %s cannot be opened: %s", access_key, error)
            raise InvalidAccessKeyId(AWSAccessKeyId=access_key) from error
        permissions = self.user_permissions(user)
        if record.policy:
            own = compiled(record.policy, f"the policy of service account {access_key}")
            permissions = Permissions(permissions.identity, permissions.boundary, (own,))
        return Credential(secret, user_principal(user), permissions, record.expires_ms)

    def _session_credential(self, access_key: str, token: str, at_ms: int) -> Credential:
        """What a session token stands for, together with the access key that it was made with."""
        found = self._sessions.get(token)
        if found is None:
            session = self.sealer.open(token, at_ms)
            now = standing(self, session)
            made = Credential(session.secret_key, now.principal, now.permissions, now.expires_ms)
            if len(self._sessions) >= SESSIONS_KEPT_MAX:
                self._sessions.clear()
            found = self._sessions[token] = (session.access_key, made)
        if found[0] != access_key:
            raise InvalidToken()
        if at_ms >= found[1].expires_ms:
            raise ExpiredToken()
        return found[1]

    # What sessions are made from and checked against.

    @property
    def roles(self) -> Mapping[str, RoleRecord]:
        """Roles by name."""
        return self.known.roles

    @property
    def providers(self) -> Mapping[str, OidcProviderRecord]:
        """OpenID Connect providers by ARN."""
        return self.known.providers

    def working_key(self, access_key: str) -> tuple[AccessKeyRecord, UserRecord]:
        """A key that is active, and its user, who is too. Raises InvalidAccessKeyId."""
        record = self.known.keys.get(access_key)
        user = self.known.users.get(record.user) if record is not None else None
        if record is None or user is None or record.status != ACTIVE or user.status != ACTIVE:
            raise InvalidAccessKeyId(AWSAccessKeyId=access_key)
        if access_key not in user.access_keys and access_key not in user.service_accounts:
            raise InvalidAccessKeyId(AWSAccessKeyId=access_key)
        return record, user

    def user_permissions(self, user: UserRecord) -> Permissions:
        """The policies of a user and of its groups, and its boundary."""
        policies = list(self._own_policies(user, f"user {user.name}"))
        for name in user.groups:
            group = self.known.groups.get(name)
            if group is None:
                policies.append(denying(f"group {name}, which cannot be read"))
            else:
                policies += self._own_policies(group, f"group {name}")
        return Permissions(tuple(policies), self._boundary(user.boundary))

    def role_permissions(self, role: RoleRecord) -> Permissions:
        """The policies of a role, and its boundary."""
        policies = tuple(self._own_policies(role, f"role {role.name}"))
        return Permissions(policies, self._boundary(role.boundary))

    def group_permissions(self, group: GroupRecord) -> Permissions:
        """The policies of a group."""
        return Permissions(tuple(self._own_policies(group, f"group {group.name}")))

    def managed_policy(self, policy_arn: str) -> Policy:
        """A managed policy, compiled; one that does not exist denies everything."""
        name = BUILT_IN_ARNS.get(policy_arn)
        if name is not None:
            return compiled(BUILT_IN[name], policy_arn)
        record = self.known.policies.get(policy_arn)
        if record is None:
            return denying(f"{policy_arn}, which cannot be read")
        return compiled(record.document, policy_arn)

    def _own_policies(
        self, holder: UserRecord | GroupRecord | RoleRecord, whose: str
    ) -> Iterator[Policy]:
        for name, document in holder.policies.items():
            yield compiled(document, f"policy {name} of {whose}")
        for policy_arn in holder.attached:
            yield self.managed_policy(policy_arn)

    def _boundary(self, policy_arn: str) -> tuple[Policy, ...] | None:
        return (self.managed_policy(policy_arn),) if policy_arn else None

    # How it is kept up to date.

    async def load(self) -> None:
        """Read all identities. Raises EngineError."""
        async with self._loading:
            await self._load()

    async def _load(self) -> None:
        before, after = self.known.records, Snapshot()
        async for items in self._steps():
            for item in items:
                if item.key == keys.IDENTITY_GENERATION:
                    after.generation = item.revision
                    continue
                known = before.get(item.key)
                if known is None or known[0] != item.revision:
                    known = (item.revision, _decoded(item))
                after.records[item.key] = known
                if known[1] is not None:
                    after.add(known[1])
            await asyncio.sleep(0)
        self.known = after
        self._credentials = {}
        self._sessions = {}

    async def _steps(self) -> AsyncIterator[Sequence[Item]]:
        """All items of `identity/` at one revision, a few at a time."""
        start, end, revision = keys.IDENTITIES, keys.after_prefix(keys.IDENTITIES), None
        while True:
            page = await self._kv.scan(start, end, limit=PAGE_ITEMS, revision=revision)
            for first in range(0, len(page.items), STEP_ITEMS):
                yield page.items[first : first + STEP_ITEMS]
            if not page.more:
                return
            start, revision = page.items[-1].key + b"\x00", page.revision

    async def refresh(self) -> None:
        """Load if anything has changed. Raises EngineError."""
        async with self._loading:  # what another has just loaded is not loaded again
            (item,) = (await self._kv.get_many([keys.IDENTITY_GENERATION])).items
            if (item.revision if item is not None else 0) != self.known.generation:
                await self._load()

    async def catch_up(self) -> None:
        """`refresh` after a change of this process; when the engine does not answer, `follow` will
        see the change."""
        try:
            await self.refresh()
        except EngineError as error:
            log.warning("identities could not be read after a change: %s", error)

    async def follow(self) -> None:
        """Keep up with all changes, for ever."""
        changed = asyncio.Event()
        watching = asyncio.create_task(self._watch(changed))
        try:
            while not watching.done():
                try:
                    async with asyncio.timeout(self._poll_seconds):
                        await changed.wait()
                except TimeoutError:
                    pass
                changed.clear()
                try:
                    await self.refresh()
                except EngineError as error:
                    log.warning("identities could not be read: %s", error)
            watching.result()
        finally:
            watching.cancel()

    async def _watch(self, changed: asyncio.Event) -> None:
        while True:
            try:
                revision = (await self._kv.get_many([])).revision
                events: Any = self._kv.watch(keys.IDENTITY_GENERATION, after_revision=revision)
                async with aclosing(events):
                    changed.set()  # what came before the watch
                    async for _ in events:
                        changed.set()
            except EngineError as error:
                log.info("identities are not watched: %s", error)
            await asyncio.sleep(WATCH_AGAIN_SECONDS)


def _decoded(item: Item) -> msgspec.Struct | None:
    for prefix, kind in KINDS:
        if item.key.startswith(prefix):
            try:
                record: msgspec.Struct = decode(kind, item.value)
            except RecordFormatError:
                log.exception("an identity cannot be read: %r", item.key)
                return None
            return record
    log.error("an identity of an unknown kind is left out: %r", item.key)
    return None
