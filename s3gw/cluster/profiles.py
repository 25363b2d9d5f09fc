"""Making further profiles while the store runs.

A profile with its companion is made on the nodes of the present layout: first the records of all
their placement groups, then, in one commit, the two profile records. So a profile that can be seen
is whole, and a crash before that leaves only group records that nobody reads; whoever makes a
profile of that name later replaces them. The last commit is guarded by the layout (a node that
leaves meanwhile would be in the groups), by the groups as they were written (another maker of the
same name may have written others over them), and by all other profiles.

No layout epoch is made: it would move groups of other profiles. The target of a profile that was
made after a layout is its groups as they are (`s3gw.cluster.epochs`); the next epoch has it.

**The metadata is to survive what the profile survives.** etcd's members are the operator's
business. On one machine the metadata journal lies on as many drives as were asked for at the start,
and a profile that survives more losses is refused until that number was raised.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from erasure.scheme import Scheme
from nodes.protocol import PROFILE_PATTERN
from placement.cluster_map import Node, NodeState
from placement.domains import FAILURE_DOMAINS, NODE, place
from placement.groups import minimum_pg_count
from placement.moves import Assignment
from s3gw import limits
from s3gw.cluster.epochs import OUT, SLOT_BYTES, Layout, current, eligible
from s3gw.cluster.founding import COMPANION_SUFFIX, GROUPS_PER_COMMIT
from s3gw.cluster.topology import Profile, Topology
from s3gw.kv.interface import (
    KV,
    At,
    Conflict,
    Delete,
    Empty,
    Guard,
    Item,
    NoneNewer,
    Put,
    Write,
)
from s3gw.metadata import keys
from s3gw.metadata.records import PgRecord, ProfileRecord, Slot, decode, encode

PG_COUNT_MIN = 64
PG_COUNT_MAX = 65_536
STRIPE_BYTES_MIN = 64 * limits.KIB
STRIPE_BYTES_MAX = 8 * limits.MIB
ATTEMPTS_MAX = 5
# A layout names the target of every slot in one record, which has to fit a commit.
LAYOUT_SLOT_BYTES_MAX = limits.COMMIT_BYTES_MAX - 256 * limits.KIB

_STORAGE_CLASS = re.compile(r"[A-Z][A-Z_]{0,31}")


class ProfileRefused(ValueError):
    """The profile cannot be made; the text says why."""


class ProfileConflict(Exception):
    """The layout or the profiles were changed all the time meanwhile: try again later."""


@runtime_checkable
class Journaled(Protocol):
    """An engine whose durability rests on drives of the store (0: on none)."""

    journal_copies: int


def list_profiles(topology: Topology) -> list[Profile]:
    """The profiles that a bucket may have, by name: all but the companions."""
    profiles = [profile for profile in topology.profiles() if profile.companion]
    return sorted(profiles, key=lambda profile: profile.name)


async def create_profile(
    kv: KV,
    topology: Topology,
    name: str,
    scheme_text: str,
    *,
    pg_count: int = 0,
    stripe_bytes: int = limits.MIB,
    failure_domain: str = NODE,
    now_ms: int,
    storage_classes: Sequence[str] = (),
) -> ProfileRecord:
    """Make a profile and its companion; if just this one is there already, that is no error.

    `pg_count` 0: as many groups as balance the present nodes. `now_ms` is not stored. Raises
    ProfileRefused, ProfileConflict, NoLayout, EngineError; after Unavailable it may be there or
    not, and may be made again.
    """
    scheme = check(kv, name, scheme_text, pg_count, stripe_bytes, failure_domain, storage_classes)
    wanted = ProfileRecord(
        str(scheme),
        stripe_bytes,
        pg_count,
        failure_domain,
        name + COMPANION_SUFFIX,
        tuple(sorted(set(storage_classes))),
    )
    for _ in range(ATTEMPTS_MAX):
        profiles = await _profiles(kv)
        made = profiles.records.get(name)
        if made is not None:
            if made != msgspec.structs.replace(wanted, pg_count=pg_count or made.pg_count):
                raise ProfileRefused(f"there is another profile {name}: {made.scheme}")
            await topology.load()
            return made
        layout = await current(kv)
        record = msgspec.structs.replace(
            wanted, pg_count=pg_count or _fitting_pg_count(layout, scheme)
        )
        _check_room(profiles, layout, name, scheme, record)
        if await _make(kv, layout, profiles.revision, name, scheme, record):
            await topology.load()
            return record
    raise ProfileConflict("layout or profiles were changed all the time; try again later")


async def claim_storage_classes(
    kv: KV, topology: Topology, name: str, storage_classes: Sequence[str]
) -> ProfileRecord:
    """Store new objects of these storage classes, and of no others, in a profile. Other processes
    follow when they next read all profiles. Raises ProfileRefused, ProfileConflict, EngineError."""
    _check_classes(storage_classes)
    for _ in range(ATTEMPTS_MAX):
        profiles = await _profiles(kv)
        before = profiles.records.get(name)
        if before is None or not before.companion:
            raise ProfileRefused(f"there is no profile {name}")
        classes = tuple(sorted(set(storage_classes)))
        _check_unclaimed(profiles, name, classes)
        after = msgspec.structs.replace(before, storage_classes=classes)
        guard = NoneNewer(keys.PROFILES, keys.after_prefix(keys.PROFILES), profiles.revision)
        try:
            await kv.commit([guard], [Put(keys.profile(name), encode(after))])
        except Conflict:
            continue
        await topology.load()
        return after
    raise ProfileConflict("profiles were changed all the time; try again later")


def check(
    kv: KV,
    name: str,
    scheme_text: str,
    pg_count: int,
    stripe_bytes: int,
    failure_domain: str,
    storage_classes: Sequence[str],
) -> Scheme:
    """What can be said without reading anything. Raises ProfileRefused."""
    try:
        scheme = Scheme.parse(scheme_text)
    except ValueError as error:
        raise ProfileRefused(str(error)) from None
    if scheme.tolerance < 1:
        raise ProfileRefused(f"scheme {scheme} survives no loss")
    companion = name + COMPANION_SUFFIX
    if not PROFILE_PATTERN.fullmatch(companion) or not PROFILE_PATTERN.fullmatch(name):
        raise ProfileRefused(
            f"{name!r} is no name of a profile: 1 to {32 - len(COMPANION_SUFFIX)} of a-z, 0-9 and "
            "+ . _ -, not beginning with one of these four"
        )
    if name.endswith(COMPANION_SUFFIX):
        raise ProfileRefused(f"names that end with {COMPANION_SUFFIX} are those of companions")
    if pg_count and not 1 <= pg_count <= PG_COUNT_MAX:
        raise ProfileRefused(f"the number of placement groups must be 1 to {PG_COUNT_MAX}")
    if not STRIPE_BYTES_MIN <= stripe_bytes <= STRIPE_BYTES_MAX:
        raise ProfileRefused(
            f"the stripe size must be {STRIPE_BYTES_MIN} to {STRIPE_BYTES_MAX} bytes"
        )
    if failure_domain not in FAILURE_DOMAINS:
        raise ProfileRefused(
            f"{failure_domain!r} is no failure domain; there are {', '.join(FAILURE_DOMAINS)}"
        )
    _check_classes(storage_classes)
    if isinstance(kv, Journaled) and 0 < kv.journal_copies <= scheme.tolerance:
        raise ProfileRefused(
            f"{scheme} survives {scheme.tolerance} losses, the metadata journal on "
            f"{kv.journal_copies} drives only {kv.journal_copies - 1}: start again with "
            f"journal_drives = {scheme.tolerance + 1}"
        )
    return scheme


def _check_classes(storage_classes: Sequence[str]) -> None:
    for storage_class in storage_classes:
        if not _STORAGE_CLASS.fullmatch(storage_class):
            raise ProfileRefused(f"{storage_class!r} is no storage class")


@dataclass(frozen=True, slots=True)
class _Profiles:
    """All profile records, by name, as of a revision."""

    records: dict[str, ProfileRecord]
    revision: int


async def _profiles(kv: KV) -> _Profiles:
    items, revision = await _scan(kv, keys.PROFILES)
    records = {
        item.key[len(keys.PROFILES) :].decode(): decode(ProfileRecord, item.value) for item in items
    }
    return _Profiles(records, revision)


async def _scan(kv: KV, prefix: bytes) -> tuple[list[Item], int]:
    """All items of a prefix, at one revision."""
    items: list[Item] = []
    start, end = prefix, keys.after_prefix(prefix)
    revision: int | None = None
    while True:
        page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX, revision=revision)
        revision = revision or page.revision
        items += page.items
        if not page.more:
            return items, revision
        start = page.items[-1].key + b"\x00"


def _fitting_pg_count(layout: Layout, scheme: Scheme) -> int:
    """The power of two that balances the layout's nodes; with a companion of few shards the same
    number does, for a group of it is spread over as many nodes."""
    enough = minimum_pg_count(len(layout.record.nodes), scheme.width)
    return min(PG_COUNT_MAX, max(PG_COUNT_MIN, 1 << (enough - 1).bit_length()))


def _check_room(
    profiles: _Profiles, layout: Layout, name: str, scheme: Scheme, record: ProfileRecord
) -> None:
    nodes = eligible(layout.record.nodes)
    if len(nodes) < scheme.width:
        raise ProfileRefused(
            f"{scheme} needs {scheme.width} nodes, and {len(nodes)} of the layout may hold shards"
        )
    if record.companion in profiles.records:
        raise ProfileRefused(f"there is a profile {record.companion} already")
    _check_unclaimed(profiles, name, record.storage_classes)
    slots = sum(
        Scheme.parse(other.scheme).width * other.pg_count for other in profiles.records.values()
    )
    slots += (scheme.width + scheme.companion().width) * record.pg_count
    if slots * SLOT_BYTES > LAYOUT_SLOT_BYTES_MAX:
        raise ProfileRefused(
            f"all profiles together would have {slots} slots, a layout has room for "
            f"{LAYOUT_SLOT_BYTES_MAX // SLOT_BYTES}: take fewer placement groups"
        )


def _check_unclaimed(profiles: _Profiles, name: str, storage_classes: Sequence[str]) -> None:
    for other, record in profiles.records.items():
        taken = set(record.storage_classes) & set(storage_classes) if other != name else set()
        if taken:
            raise ProfileRefused(f"profile {other} has the storage class {min(taken)} already")


async def _make(
    kv: KV, layout: Layout, read_at: int, name: str, scheme: Scheme, record: ProfileRecord
) -> bool:
    """False when something that it rests on was changed meanwhile."""
    small = msgspec.structs.replace(
        record, scheme=str(scheme.companion()), companion="", storage_classes=()
    )
    guards: list[Guard] = [
        At(keys.layout(layout.epoch), layout.revision),
        Empty(keys.layout(layout.epoch + 1), keys.after_prefix(keys.LAYOUTS)),
        NoneNewer(keys.PROFILES, keys.after_prefix(keys.PROFILES), read_at),
    ]
    try:
        groups: list[Guard] = []
        for profile, its_scheme in ((name, scheme), (record.companion, scheme.companion())):
            rows = await asyncio.to_thread(_assignment, layout, its_scheme, record)
            groups.append(await _write_groups(kv, profile, rows, guards))
        writes: list[Write] = [
            Put(keys.profile(record.companion), encode(small)),
            Put(keys.profile(name), encode(record)),
        ]
        await kv.commit([*guards, *groups], writes)
    except Conflict:
        return False
    return True


def _assignment(layout: Layout, scheme: Scheme, record: ProfileRecord) -> Assignment:
    return place(
        [
            Node(node.node, node.zone, node.weight, NodeState(node.state), node.host)
            for node in layout.record.nodes
            if node.state != OUT
        ],
        pg_count=record.pg_count,
        width=scheme.width,
        zone_limit=scheme.tolerance,
        failure_domain=record.failure_domain,
    )


async def _write_groups(
    kv: KV, profile: str, rows: Assignment, guards: Sequence[Guard]
) -> NoneNewer:
    """Write the group records of a profile that is not there yet, in place of what another attempt
    may have left. The guard returned holds as long as just these are there. Raises Conflict."""
    prefix = keys.pgs(profile)
    wanted = {
        keys.pg(profile, number): encode(PgRecord(1, tuple(Slot(node or "") for node in row)))
        for number, row in enumerate(rows)
    }
    for _ in range(ATTEMPTS_MAX):
        items, revision = await _scan(kv, prefix)
        there = {item.key: item.value for item in items}
        writes: list[Write] = [
            Put(key, value) for key, value in wanted.items() if there.get(key) != value
        ]
        writes += [Delete(key) for key in there if key not in wanted]
        if not writes:
            return NoneNewer(prefix, keys.after_prefix(prefix), revision)
        for first in range(0, len(writes), GROUPS_PER_COMMIT):
            await kv.commit(guards, writes[first : first + GROUPS_PER_COMMIT])
    raise ProfileConflict(f"another process makes a profile {profile} at this moment")
