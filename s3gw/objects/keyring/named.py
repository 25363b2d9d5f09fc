"""The built-in key store: named keys for SSE-KMS, kept in the metadata and wrapped under the master
key. A key has versions: the newest wraps, all open. Every change is guarded by the key's record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import KV, At, Conflict, Delete, Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import NamedKey
from s3gw.metadata.records import decode, encode
from s3gw.objects.content import sealing
from s3gw.objects.content.sealing import KEY_BYTES, NotAuthentic
from s3gw.objects.keyring.master import MasterKeys

ENABLED, DISABLED, PENDING = "enabled", "disabled", "pending"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
VERSION_BYTES = 4
VERSIONS_MAX = 1000
KEYS_MAX = 10_000
SECONDS_PER_DAY = 86_400

Change = Callable[[NamedKey], NamedKey]


class KeyExists(Exception):
    """There is a key of that name already."""


class NamedKeys:
    """The named keys of one store. `clock_ms` is Unix time in milliseconds."""

    def __init__(self, kv: KV, clock_ms: Callable[[], int]) -> None:
        self._kv = kv
        self._clock_ms = clock_ms

    async def find(self, name: str) -> tuple[NamedKey, int]:
        """A key and its revision. Raises KMSNotFoundException, also for one whose time is over,
        which is removed."""
        (item,) = (await self._kv.get_many([keys.named_key(name)])).items
        if item is None:
            raise _not_found(name)
        key = decode(NamedKey, item.value)
        if key.state == PENDING and key.delete_after_ms <= self._clock_ms():
            await self._remove(item.key, item.revision)
            raise _not_found(name)
        return key, item.revision

    async def _remove(self, key: bytes, revision: int) -> None:
        try:
            await self._kv.commit([At(key, revision)], [Delete(key)])
        except Conflict:
            return  # somebody has taken the deletion back, or was faster

    async def all(self) -> list[tuple[str, NamedKey]]:
        """All keys by name."""
        end = keys.after_prefix(keys.NAMED_KEYS)
        page = await self._kv.scan(keys.NAMED_KEYS, end, limit=KEYS_MAX)
        now_ms = self._clock_ms()
        found = []
        for item in page.items:
            key = decode(NamedKey, item.value)
            if key.state == PENDING and key.delete_after_ms <= now_ms:
                await self._remove(item.key, item.revision)
            else:
                found.append((item.key[len(keys.NAMED_KEYS) :].decode(), key))
        return found

    async def create(self, name: str, master: MasterKeys, description: str = "") -> NamedKey:
        """A new key. Raises KeyExists, InvalidArgument for what is no name."""
        if not NAME.fullmatch(name):
            raise errors.InvalidArgument("This is not a name for a key.", ArgumentName="KeyId")
        version = master.wrap(os.urandom(KEY_BYTES), _context(name, 1))
        record = NamedKey(self._clock_ms(), ENABLED, (version,), description=description)
        key = keys.named_key(name)
        with suppress(errors.KMSNotFoundException):
            await self.find(name)  # one whose time is over makes way
        try:
            await self._kv.commit([At(key, 0)], [Put(key, encode(record))])
        except Conflict:
            raise KeyExists(name) from None
        return record

    async def rotate(self, name: str, master: MasterKeys) -> NamedKey:
        """Another version, which wraps from now on. Raises KMSNotFoundException,
        KMSInvalidStateException."""

        def newer(key: NamedKey) -> NamedKey:
            if key.state == PENDING or len(key.versions) >= VERSIONS_MAX:
                raise errors.KMSInvalidStateException(f"Key '{name}' cannot be rotated.")
            context = _context(name, len(key.versions) + 1)
            version = master.wrap(os.urandom(KEY_BYTES), context)
            return msgspec.structs.replace(key, versions=(*key.versions, version))

        return await self._change(name, newer)

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
                context = _context(name, number)
                if not master.is_present(version):
                    version = master.wrap(master.unwrap(version, context), context)
                    changed = True
                versions.append(version)
            return msgspec.structs.replace(key, versions=tuple(versions))

        await self._change(name, anew)
        return changed

    async def _change(self, name: str, change: Change) -> NamedKey:
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            before, revision = await self.find(name)
            after = change(before)
            if after == before:
                return after
            key = keys.named_key(name)
            try:
                await self._kv.commit([At(key, revision)], [Put(key, encode(after))])
            except Conflict:
                continue
            return after
        raise errors.OperationAborted("The key is changed too often by others.")

    async def wrap(self, name: str, master: MasterKeys, data: bytes, context: bytes) -> bytes:
        """`data` under the newest version of a key: version (4), wrapped data. Raises
        KMSNotFoundException, KMSDisabledException, KMSInvalidStateException, MasterKeyMissing,
        NotAuthentic."""
        key = _usable(name, (await self.find(name))[0])
        number = len(key.versions)
        secret = master.unwrap(key.versions[-1], _context(name, number))
        return number.to_bytes(VERSION_BYTES, "big") + sealing.wrap(secret, data, context)

    async def unwrap(self, name: str, master: MasterKeys, wrapped: bytes, context: bytes) -> bytes:
        """Raises as `wrap`."""
        key = _usable(name, (await self.find(name))[0])
        number = int.from_bytes(wrapped[:VERSION_BYTES], "big")
        if not 1 <= number <= len(key.versions):
            raise NotAuthentic(f"key {name} has no version {number}")
        secret = master.unwrap(key.versions[number - 1], _context(name, number))
        return sealing.unwrap(secret, wrapped[VERSION_BYTES:], context)

    async def is_newest(self, name: str, wrapped: bytes) -> bool:
        """Whether this is wrapped under the newest version that there is; of a key that was deleted
        there is none, and nobody opens it any more."""
        try:
            key, _ = await self.find(name)
        except errors.KMSNotFoundException:
            return True
        return int.from_bytes(wrapped[:VERSION_BYTES], "big") == len(key.versions)


def _context(name: str, version: int) -> bytes:
    return b"s3gw named key\x00" + version.to_bytes(VERSION_BYTES, "big") + name.encode()


def _usable(name: str, key: NamedKey) -> NamedKey:
    if key.state == DISABLED:
        raise errors.KMSDisabledException(f"Key '{name}' is disabled.")
    if key.state == PENDING:
        raise errors.KMSInvalidStateException(f"Key '{name}' is pending deletion.")
    return key


def _not_found(name: str) -> errors.S3Error:
    return errors.KMSNotFoundException(f"Key '{name}' does not exist")
