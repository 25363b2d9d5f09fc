"""Founding a store that is founded already changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from erasure.scheme import Scheme
from s3gw.cluster.founding import Founder, found_layout
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.records import PgRecord, ProfileRecord, decode
from tests.stores.memory_store import PROFILE, STRIPE_BYTES, MemoryCluster


async def test_a_founder_that_comes_late_leaves_profiles_and_groups_alone(
    memory_cluster: MemoryCluster,
) -> None:
    """A gateway with other settings that lost its lock before it began to write."""
    before = dict(memory_cluster.engine.items)
    await found_layout(
        memory_cluster.kv(),
        PROFILE,
        Scheme.parse(PROFILE),
        [Founder(f"d{number}", f"z{number}", 1) for number in range(6)],
        pg_count=64,
        stripe_bytes=2 * STRIPE_BYTES,
        now_ms=1,
    )
    assert memory_cluster.engine.items == before


@pytest.mark.parametrize(
    ("domain", "per_host", "per_zone"), [("drive", 3, 3), ("node", 1, 2), ("zone", 2, 2)]
)
async def test_the_first_profile_is_spread_over_the_domain_that_it_was_founded_with(
    domain: str, per_host: int, per_zone: int
) -> None:
    """Three zones: two of three hosts with two drives each, one of two hosts with three each."""
    hosts = [("a1", "a", 2), ("a2", "a", 2), ("a3", "a", 2)]
    hosts += [(name.replace("a", "b"), "b", drives) for name, _, drives in hosts]
    hosts += [("c1", "c", 3), ("c2", "c", 3)]
    places = {f"{h}-{n}": (h, zone) for h, zone, drives in hosts for n in range(drives)}
    kv = MemoryKV(MemoryStore())
    founders = [Founder(drive, zone, 1, host) for drive, (host, zone) in places.items()]
    await found_layout(
        kv,
        PROFILE,
        Scheme.parse("4+2"),
        founders,
        pg_count=64,
        stripe_bytes=STRIPE_BYTES,
        now_ms=1,
        failure_domain=domain,
    )
    items = (await kv.get_many([keys.profile(PROFILE), keys.profile(f"{PROFILE}.small")])).items
    assert [decode(ProfileRecord, item.value).failure_domain for item in items if item] == [
        domain,
        domain,
    ]
    page = await kv.scan(keys.pgs(PROFILE), keys.after_prefix(keys.pgs(PROFILE)), limit=1000)
    rows = [[slot.node for slot in decode(PgRecord, item.value).slots] for item in page.items]
    assert len(rows) == 64
    assert max(max(Counter(places[n][0] for n in row).values()) for row in rows) <= per_host
    assert max(max(Counter(places[n][1] for n in row).values()) for row in rows) <= per_zone
