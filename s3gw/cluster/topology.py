"""Profiles and placement group records, as this process last saw them.

The table is a cache: every commit that publishes a blob is guarded by the revision of the
placement group's record that it was placed by, so a stale entry costs a retry, never a lost blob.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from erasure.scheme import Scheme
from placement.groups import pg_of
from s3gw import limits
from s3gw.kv.interface import KV, Item
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, PgRecord, ProfileRecord, decode


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile, decoded. `companion` is "" for a companion."""

    name: str
    scheme: Scheme
    stripe_bytes: int
    pg_count: int
    failure_domain: str
    companion: str
    storage_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group's record, and the engine revision it was read at."""

    profile: Profile
    number: int
    record: PgRecord
    revision: int

    @property
    def key(self) -> bytes:
        return keys.pg(self.profile.name, self.number)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(slot.node for slot in self.record.slots)


class UnknownProfile(Exception):
    """A record names a profile that this store does not have."""


def profile_in(item: Item) -> Profile:
    """The profile of a stored record."""
    name = item.key[len(keys.PROFILES) :].decode()
    record = decode(ProfileRecord, item.value)
    return Profile(
        name,
        Scheme.parse(record.scheme),
        record.stripe_bytes,
        record.pg_count,
        record.failure_domain,
        record.companion,
        record.storage_classes,
    )


class Topology:
    """Profiles by name, groups by profile and number."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self._profiles: dict[str, Profile] = {}
        self._groups: dict[tuple[str, int], Group] = {}
        self.revision = 0

    async def load(self) -> None:
        """Read everything: at start, and again when a watch may have missed something. Nobody
        sees a profile before its groups are read."""
        profiles = await self._scan(keys.PROFILES)
        names = [item.key[len(keys.PROFILES) :].decode() for item in profiles]
        groups = [item for name in names for item in await self._scan(keys.pgs(name))]
        for item in profiles:
            profile = profile_in(item)
            self._profiles[profile.name] = profile
        for item in groups:
            self.learn_group(item)

    async def _scan(self, prefix: bytes) -> list[Item]:
        items: list[Item] = []
        start, end = prefix, keys.after_prefix(prefix)
        while True:
            page = await self._kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
            items += page.items
            self.revision = page.revision
            if not page.more:
                return items
            start = page.items[-1].key + b"\x00"

    def learn_group(self, item: Item) -> None:
        """Take a record as read; an older one than is known is ignored."""
        name, number = keys.split_pg(item.key)
        known = self._groups.get((name, number))
        profile = self._profiles.get(name)
        if profile is None or (known and known.revision >= item.revision):
            return
        record = decode(PgRecord, item.value)
        self._groups[name, number] = Group(profile, number, record, item.revision)

    async def reread(self, group: Group) -> Group:
        """The group's record as it is now."""
        (item,) = (await self._kv.get_many([group.key])).items
        if item is not None:
            self.learn_group(item)
        return self._groups[group.profile.name, group.number]

    async def know(self, name: str) -> None:
        """See to it that a profile which another process has made is known here. Raises
        UnknownProfile, EngineError."""
        if name not in self._profiles:
            await self.load()
            self.profile(name)

    def of_class(self, storage_class: str) -> Profile | None:
        """The profile that claims a storage class."""
        for profile in self._profiles.values():
            if storage_class in profile.storage_classes:
                return profile
        return None

    def profiles(self) -> Iterable[Profile]:
        return list(self._profiles.values())

    def profile(self, name: str) -> Profile:
        try:
            return self._profiles[name]
        except KeyError:
            raise UnknownProfile(name) from None

    def companion(self, profile: Profile) -> Profile:
        return self.profile(profile.companion) if profile.companion else profile

    def group(self, profile: Profile, number: int) -> Group:
        return self._groups[profile.name, number]

    def group_of(self, profile_name: str, blob: bytes) -> Group:
        """The placement group that a blob belongs to."""
        profile = self.profile(profile_name)
        return self._groups[profile.name, pg_of(blob, profile.pg_count)]

    def location(self, ref: BlobRef) -> tuple[Scheme, tuple[str, ...], Group]:
        """The scheme a blob was encoded with, the node of each shard, and its group."""
        group = self.group_of(ref.profile, ref.blob)
        if ref.nodes:
            return Scheme.parse(ref.scheme), ref.nodes, group
        return group.profile.scheme, group.nodes, group
