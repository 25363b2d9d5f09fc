"""Making a store: its identity, its profile with the companion, its first layout.

Each step is a commit that loses quietly against a process doing the same, so that any number of
processes may found one store at once. The layout's record is written last: its presence says that
all placement groups are there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from erasure.scheme import Scheme
from placement.cluster_map import Node
from placement.domains import NODE, place
from s3gw.config import Config
from s3gw.kv.interface import KV, At, Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    LayoutNode,
    LayoutRecord,
    PgRecord,
    ProfileRecord,
    Slot,
    StoreRecord,
    decode,
    encode,
)

COMPANION_SUFFIX = ".small"
FIRST_EPOCH = 1
GROUPS_PER_COMMIT = 100


@dataclass(frozen=True, slots=True)
class Founder:
    """A node of the first layout. `weight` is its capacity in bytes; `host` as in LayoutNode."""

    node: str
    zone: str
    weight: int
    host: str = ""


def scheme_of(config: Config) -> Scheme:
    """The scheme of the default profile."""
    return Scheme.parse(config.profile)


def profile_name(scheme: str) -> str:
    """The name of the profile of a scheme that was given no other. A name is part of paths.

    >>> profile_name("4+2"), profile_name("8+4/2")
    ('4+2', '8+4-2')
    """
    return scheme.replace("/", "-")


async def found_store(kv: KV, now_ms: int, store_id: str = "") -> StoreRecord:
    """The store's record; made, with this id if one is given, by the first process to ask."""
    while True:
        (item,) = (await kv.get_many([keys.STORE])).items
        if item is not None:
            return decode(StoreRecord, item.value)
        record = StoreRecord(
            store_id=store_id or os.urandom(8).hex(),
            created_ms=now_ms,
            incarnation=1,
            sequence_offset=0,
            fence_secret=os.urandom(32),
            token_secret=os.urandom(32),
            cluster_secret=os.urandom(32),
        )
        try:
            await kv.commit([At(keys.STORE, 0)], [Put(keys.STORE, encode(record))])
        except Conflict:
            continue
        return record


async def layout_exists(kv: KV) -> bool:
    """Whether the first layout was made."""
    (item,) = (await kv.get_many([keys.layout(FIRST_EPOCH)])).items
    return item is not None


async def found_layout(
    kv: KV,
    name: str,
    scheme: Scheme,
    founders: Sequence[Founder],
    *,
    pg_count: int,
    stripe_bytes: int,
    now_ms: int,
    failure_domain: str = NODE,
) -> None:
    """Make profile `name`, its companion and all their placement groups, then the layout. No two
    shards of a group are in one `failure_domain` (placement.domains) while there are enough.

    Only one process may do this at a time (the caller holds a lock); after a crash it is done
    again, with the nodes of that moment.
    """
    companion = f"{name}{COMPANION_SUFFIX}"
    profiles = (
        (name, scheme, companion),
        (companion, scheme.companion(), ""),
    )
    for profile, its_scheme, its_companion in profiles:
        record = ProfileRecord(
            str(its_scheme), stripe_bytes, pg_count, failure_domain, its_companion
        )
        try:
            await kv.commit(
                [At(keys.layout(FIRST_EPOCH), 0)], [Put(keys.profile(profile), encode(record))]
            )
        except Conflict:
            return  # the layout is there: this profile is in use
        await _found_groups(kv, profile, its_scheme, founders, pg_count, failure_domain)
    layout = LayoutRecord(
        now_ms,
        tuple(LayoutNode(f.node, f.zone, f.weight, host=f.host) for f in founders),
        (name, companion),
    )
    key = keys.layout(FIRST_EPOCH)
    try:
        await kv.commit([At(key, 0)], [Put(key, encode(layout))])
    except Conflict:
        return  # another process founded the same store


async def _found_groups(
    kv: KV,
    profile: str,
    scheme: Scheme,
    founders: Sequence[Founder],
    pg_count: int,
    failure_domain: str,
) -> None:
    assignment = place(
        [Node(f.node, f.zone, f.weight, host=f.host) for f in founders],
        pg_count=pg_count,
        width=scheme.width,
        zone_limit=scheme.tolerance,
        failure_domain=failure_domain,
    )
    layout = keys.layout(FIRST_EPOCH)
    for first in range(0, pg_count, GROUPS_PER_COMMIT):
        writes = [
            Put(
                keys.pg(profile, number),
                encode(PgRecord(1, tuple(Slot(node or "") for node in assignment[number]))),
            )
            for number in range(first, min(first + GROUPS_PER_COMMIT, pg_count))
        ]
        try:
            await kv.commit([At(layout, 0)], list(writes))
        except Conflict:
            return  # the layout is there: these groups are in use
