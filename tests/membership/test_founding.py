"""Founding a store that is founded already changes nothing."""

from __future__ import annotations

from erasure.scheme import Scheme
from s3gw.cluster.founding import Founder, found_layout
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
