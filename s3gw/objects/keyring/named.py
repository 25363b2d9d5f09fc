"""The built-in key store: named keys for SSE-KMS, kept in the metadata and wrapped under the master
key. A key has versions: the newest wraps, all open. Every change is guarded by the key's record.

A key has an id beside its name, which is in all that is wrapped under it: one that is made again
under the name of a deleted one is another key. When the time of one that is to be deleted is over
is said by a clock that does not jump ahead (`s3gw.objects.steady_clock`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import KV, At, Conflict, Delete, Guard, Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import KeyCopy, NamedKey
from s3gw.metadata.records import decode, encode
from s3gw.objects.content import sealing
from s3gw.objects.content.sealing import KEY_BYTES, NotAuthentic
from s3gw.objects.keyring.master import MasterKeys
from s3gw.objects.steady_clock import SteadyClock

ENABLED, DISABLED, PENDING = "enabled", "disabled", "pending"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
ID_BYTES = 8
VERSION_BYTES = 4
VERSIONS_MAX = 1000
KEYS_MAX = 10_000
SECONDS_PER_DAY = 86_400

Change = Callable[[NamedKey], NamedKey]


class KeyExists(Exception):
    """There is a key of that name already."""


@dataclass(frozen=True, slots=True)
class MasterGuard:
    """What a commit is guarded by that wraps something under the master key, and what is to be
    known again after one that was lost."""

    now: Callable[[], Guard]
    refresh: Callable[[Conflict], Awaitable[None]]


class NamedKeys:
    """The named keys of one store. `clock_ms` is Unix time in milliseconds, `monotonic` seconds."""

    def __init__(
        self,
        kv: KV,
        clock_ms: Callable[[], int],
        monotonic: Callable[[], float],
        master_guard: MasterGuard,
    ) -> None:
        self._kv = kv
        self._clock_ms = clock_ms
        self._steady = SteadyClock(clock_ms, monotonic)
        self._master_guard = master_guard

    async def find(self, name: str) -> tuple[NamedKey, int]:
        """A key and its revision. Raises KMSNotFoundException, also for one whose time is over,
        which is removed."""
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            (item,) = (await self._kv.get_many([keys.named_key(name)])).items
            if item is None:
                raise _not_found(name)
            key = decode(NamedKey, item.value)
            if not self._is_over(key):
                return key, item.revision
            if await self._remove(item.key, item.revision):
                raise _not_found(name)
        raise errors.OperationAborted("The key is changed too often by others.")

    def _is_over(self, key: NamedKey) -> bool:
        return key.state == PENDING and key.delete_after_ms <= self._steady.now_ms()

    async def _remove(self, key: bytes, revision: int) -> bool:
        """False when somebody has taken the deletion back, or was faster."""
        try:
            await self._kv.commit([At(key, revision)], [Delete(key)])
        except Conflict:
            return False
        return True

    async def all(self) -> list[tuple[str, NamedKey]]:
        """All keys by name."""
        end = keys.after_prefix(keys.NAMED_KEYS)
        page = await self._kv.scan(keys.NAMED_KEYS, end, limit=KEYS_MAX)
        found = []
        for item in page.items:
            key = decode(NamedKey, item.value)
            if self._is_over(key):
                await self._remove(item.key, item.revision)
            else:
                found.append((item.key[len(keys.NAMED_KEYS) :].decode(), key))
        return found

    async def create(self, name: str, master: MasterKeys, description: str = "") -> NamedKey:
        """A new key. Raises KeyExists, InvalidArgument for what is no name."""
        if not NAME.fullmatch(name):
            raise errors.InvalidArgument("This is not a name for a key.", ArgumentName="KeyId")
        key_id = os.urandom(ID_BYTES)
        version = master.wrap(os.urandom(KEY_BYTES), _context(name, key_id, 1))
        record = NamedKey(
            self._clock_ms(), ENABLED, (version,), description=description, key_id=key_id
        )
        key = keys.named_key(name)
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            with suppress(errors.KMSNotFoundException):
                await self.find(name)  # one whose time is over makes way
                raise KeyExists(name)
            guards = [At(key, 0), self._master_guard.now()]
            try:
                await self._kv.commit(guards, [Put(key, encode(record))])
            except Conflict as conflict:
                await self._master_guard.refresh(conflict)
            else:
                return record
        raise errors.OperationAborted("The keys are changed too often by others.")

    async def rotate(self, name: str, master: MasterKeys) -> NamedKey:
        """Another version, which wraps from now on. Raises KMSNotFoundException,
        KMSInvalidStateException."""

        def newer(key: NamedKey) -> NamedKey:
            if key.state == PENDING or len(key.versions) >= VERSIONS_MAX:
                raise errors.KMSInvalidStateException(f"Key '{name}' cannot be rotated.")
            context = _context(name, key.key_id, len(key.versions) + 1)
            version = master.wrap(os.urandom(KEY_BYTES), context)
            return msgspec.structs.replace(key, versions=(*key.versions, version))

        return await self._change(name, newer, wraps=True)

    async def set_state(self, name: str, state: str, *, days: int = 0) -> NamedKey:
        """Enable a key (which also takes back its deletion), disable it, or have it removed in so
        many days. Raises KMSNotFoundException."""
        after_ms = self._clock_ms() + days * SECONDS_PER_DAY * 1000 if state == PENDING else 0
        return await self._change(
            name, lambda key: msgspec.structs.replace(key, state=state, delete_after_ms=after_ms)
        )

    async def rewrap(self, name: str, master: MasterKeys) -> bool:
        """Wrap the versions of a key under the present master key; whether any was not. Raises
        KMSNotFoundException, MasterKeyMissing, NotAuthentic."""
        changed = False

        def anew(key: NamedKey) -> NamedKey:
            nonlocal changed
            versions = []
            for number, version in enumerate(key.versions, 1):
                context = _context(name, key.key_id, number)
                if version and not master.is_present(version):
                    version = master.wrap(master.unwrap(version, context), context)
                    changed = True
                versions.append(version)
            return msgspec.structs.replace(key, versions=tuple(versions))

        await self._change(name, anew, wraps=True)
        return changed

    async def _change(self, name: str, change: Change, *, wraps: bool = False) -> NamedKey:
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            before, revision = await self.find(name)
            after = change(before)
            if after == before:
                return after
            key = keys.named_key(name)
            guards: list[Guard] = [At(key, revision)]
            if wraps:
                guards.append(self._master_guard.now())
            try:
                await self._kv.commit(guards, [Put(key, encode(after))])
            except Conflict as conflict:
                await self._master_guard.refresh(conflict)
            else:
                return after
        raise errors.OperationAborted("The key is changed too often by others.")

    async def wrap(
        self, name: str, master: MasterKeys, data: bytes, context: bytes
    ) -> tuple[bytes, KeyCopy]:
        """`data` under the newest version of a key (key id (8), version (4), wrapped data), and a
        copy of that version. Raises KMSNotFoundException, KMSDisabledException,
        KMSInvalidStateException, MasterKeyMissing, NotAuthentic."""
        key = _usable(name, (await self.find(name))[0])
        copy = _copy(key, len(key.versions))
        secret = _secret(name, copy, master)
        number = copy.version.to_bytes(VERSION_BYTES, "big")
        return key.key_id + number + sealing.wrap(secret, data, context), copy

    async def unwrap(self, name: str, master: MasterKeys, wrapped: bytes, context: bytes) -> bytes:
        """Raises as `wrap`."""
        key = _usable(name, (await self.find(name))[0])
        key_id, number = _ids(wrapped)
        if key_id != key.key_id:
            raise _not_found(name)  # another one, which was deleted
        if not 1 <= number <= len(key.versions):
            raise NotAuthentic(f"key {name} has no version {number}")
        return opened_with(name, _copy(key, number), master, wrapped, context)

    async def require_usable(self, name: str, wrapped: bytes) -> None:
        """That what is wrapped so could be opened. Raises KMSNotFoundException,
        KMSDisabledException, KMSInvalidStateException."""
        key = _usable(name, (await self.find(name))[0])
        if _ids(wrapped)[0] != key.key_id:
            raise _not_found(name)

    async def copy_for(self, name: str, wrapped: bytes) -> KeyCopy | None:
        """A copy of the version that this is wrapped under; None when the key was deleted."""
        key_id, number = _ids(wrapped)
        try:
            key, _ = await self.find(name)
        except errors.KMSNotFoundException:
            return None
        if key_id != key.key_id or not 1 <= number <= len(key.versions):
            return None
        return _copy(key, number)

    async def is_newest(self, name: str, wrapped: bytes) -> bool:
        """Whether this is wrapped under the newest version that there is; of a key that was deleted
        there is none, and nobody opens it any more."""
        try:
            key, _ = await self.find(name)
        except errors.KMSNotFoundException:
            return True
        key_id, number = _ids(wrapped)
        return key_id != key.key_id or number == len(key.versions)


def opened_with(
    name: str, copy: KeyCopy, master: MasterKeys, wrapped: bytes, context: bytes
) -> bytes:
    """What is wrapped under the version of a key that this is a copy of. Raises MasterKeyMissing,
    NotAuthentic."""
    if _ids(wrapped) != (copy.key_id, copy.version):
        raise NotAuthentic(f"it is wrapped under another version of key {name}")
    secret = _secret(name, copy, master)
    return sealing.unwrap(secret, wrapped[ID_BYTES + VERSION_BYTES :], context)


def _ids(wrapped: bytes) -> tuple[bytes, int]:
    """Key id and version."""
    stop = ID_BYTES + VERSION_BYTES
    return wrapped[:ID_BYTES], int.from_bytes(wrapped[ID_BYTES:stop], "big")


def _copy(key: NamedKey, number: int) -> KeyCopy:
    return KeyCopy(key.key_id, number, key.versions[number - 1], key.created_ms)


def _secret(name: str, copy: KeyCopy, master: MasterKeys) -> bytes:
    if not copy.wrapped:
        raise NotAuthentic(f"version {copy.version} of key {name} was not recovered")
    return master.unwrap(copy.wrapped, _context(name, copy.key_id, copy.version))


def _context(name: str, key_id: bytes, version: int) -> bytes:
    return b"s3gw named key\x00" + version.to_bytes(VERSION_BYTES, "big") + key_id + name.encode()


def _usable(name: str, key: NamedKey) -> NamedKey:
    if key.state == DISABLED:
        raise errors.KMSDisabledException(f"Key '{name}' is disabled.")
    if key.state == PENDING:
        raise errors.KMSInvalidStateException(f"Key '{name}' is pending deletion.")
    return key


def _not_found(name: str) -> errors.S3Error:
    return errors.KMSNotFoundException(f"Key '{name}' does not exist")
