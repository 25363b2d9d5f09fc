"""Making profiles while the store runs: whole or not seen, whatever stops or races."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from erasure.scheme import Scheme
from s3gw.cluster import layouts
from s3gw.cluster.profiles import (
    ProfileConflict,
    ProfileRefused,
    claim_storage_classes,
    create_profile,
    list_profiles,
)
from s3gw.cluster.topology import Topology
from s3gw.kv.interface import KV, Put, Unavailable
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import SqliteKV
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, ProfileRecord
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import MemoryCluster

WIDE = "5+3"


async def make(kv: KV, name: str = "wide", scheme: str = WIDE, **options: object) -> ProfileRecord:
    topology = Topology(kv)
    await topology.load()
    return await create_profile(kv, topology, name, scheme, now_ms=1, **options)  # type: ignore[arg-type]


async def check_whole(kv: KV, name: str, nodes: set[str]) -> None:
    """The profile and its companion have all their groups, each on nodes of the layout."""
    topology = Topology(kv)
    await topology.load()
    profile = topology.profile(name)
    companion = topology.companion(profile)
    assert companion.scheme == profile.scheme.companion()
    for one in (profile, companion):
        page = await kv.scan(keys.pgs(one.name), keys.after_prefix(keys.pgs(one.name)), limit=1000)
        assert len(page.items) == one.pg_count
        load: Counter[str] = Counter()
        for number in range(one.pg_count):
            group = topology.group(one, number)
            assert len(group.nodes) == len(set(group.nodes)) == one.scheme.width
            assert set(group.nodes) <= nodes
            load.update(group.nodes)
        fair = one.pg_count * one.scheme.width / len(nodes)
        assert all(abs(load[node] - fair) <= 1 for node in nodes)


async def test_a_profile_is_made_with_its_companion_and_all_groups(
    memory_cluster: MemoryCluster,
) -> None:
    kv = memory_cluster.kv()
    record = await make(kv, storage_classes=("STANDARD_IA",))
    assert (record.scheme, record.companion, record.pg_count) == (WIDE, "wide.small", 64)
    await check_whole(kv, "wide", set(memory_cluster.drives))
    topology = Topology(kv)
    await topology.load()
    assert [profile.name for profile in list_profiles(topology)] == ["4+2", "wide"]
    claiming = topology.of_class("STANDARD_IA")
    assert claiming is not None
    assert claiming.name == "wide"
    assert topology.of_class("STANDARD") is None


async def test_a_profile_of_local_reconstruction_is_made() -> None:
    cluster = MemoryCluster(14)
    await cluster.found()
    record = await make(cluster.kv(), "archive", "8+4/2")
    assert record.scheme == "8+4/2"
    await check_whole(cluster.kv(), "archive", set(cluster.drives))


async def test_no_group_of_another_profile_moves(memory_cluster: MemoryCluster) -> None:
    before = dict(memory_cluster.engine.items)
    await make(memory_cluster.kv())
    after = memory_cluster.engine.items
    assert {key: after[key] for key in before} == before
    layout = await layouts.current(memory_cluster.kv())
    assert layout.target("wide", 0) is None


async def test_the_same_again_is_no_error_and_another_is(memory_cluster: MemoryCluster) -> None:
    kv = memory_cluster.kv()
    record = await make(kv)
    before = dict(memory_cluster.engine.items)
    assert await make(kv) == record
    assert await make(kv, pg_count=64) == record
    assert memory_cluster.engine.items == before
    for options in ({"pg_count": 128}, {"stripe_bytes": 2**17}, {"failure_domain": "drive"}):
        with pytest.raises(ProfileRefused, match="another profile"):
            await make(kv, **options)
    with pytest.raises(ProfileRefused, match="another profile"):
        await make(kv, scheme="4+3")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"scheme": "8+3"}, "needs 11 nodes, and 8"),
        ({"scheme": "8+4/2"}, "needs 12 nodes, and 8"),
        ({"scheme": "eight"}, "not a scheme"),
        ({"scheme": "4+0"}, "no parity"),
        ({"scheme": "1+0"}, "survives no loss"),
        ({"name": "Wide"}, "no name"),
        ({"name": ""}, "no name"),
        ({"name": "a/b"}, "no name"),
        ({"name": "a" * 30}, "no name"),
        ({"name": "a.small"}, "companions"),
        ({"pg_count": -1}, "placement groups"),
        ({"pg_count": 70_000}, "placement groups"),
        ({"pg_count": 65_536}, "room"),
        ({"stripe_bytes": 1000}, "stripe size"),
        ({"failure_domain": "rack"}, "failure domain"),
        ({"storage_classes": ("standard",)}, "storage class"),
    ],
)
async def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    memory_cluster: MemoryCluster, options: dict[str, object], why: str
) -> None:
    before = dict(memory_cluster.engine.items)
    with pytest.raises(ProfileRefused, match=why):
        await make(memory_cluster.kv(), **options)  # type: ignore[arg-type]
    assert memory_cluster.engine.items == before


async def test_a_draining_node_is_in_no_group_and_counts_for_none() -> None:
    cluster = MemoryCluster(9)
    await cluster.found()
    kv = cluster.kv()
    await apply_states(kv, {"d0": "draining"})
    await make(kv)
    await check_whole(kv, "wide", set(cluster.drives) - {"d0"})
    with pytest.raises(ProfileRefused, match="needs 9 nodes, and 8"):
        await make(kv, "wider", "6+3")


async def apply_states(kv: KV, states: dict[str, str]) -> None:
    topology = Topology(kv)
    await topology.load()
    layout = await layouts.current(kv)
    nodes = [
        LayoutNode(n.node, n.zone, n.weight, states.get(n.node, n.state), n.host)
        for n in layout.record.nodes
    ]
    await layouts.apply(kv, topology, nodes, reason="test", now_ms=1, expected_epoch=layout.epoch)


async def test_the_next_layout_has_the_new_profile(memory_cluster: MemoryCluster) -> None:
    kv = memory_cluster.kv()
    await make(kv, "flat", "3+2")
    await apply_states(kv, {"d3": "draining"})
    layout = await layouts.current(kv)
    for name in ("flat", "flat.small"):
        for number in range(64):
            target = layout.target(name, number)
            assert target is not None
            assert "d3" not in target


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_crash_at_any_commit_leaves_no_half_profile(mode: Mode) -> None:
    for commits in range(6):
        cluster = MemoryCluster(9)
        await cluster.found()
        fuse = Fuse()
        fuse.arm(commits, mode)
        crashed = False
        try:
            await make(CrashingKV(cluster.kv(), fuse), pg_count=128)
        except (Crashed, Unavailable):
            crashed = True
        assert crashed == (commits < 5)
        topology = Topology(cluster.kv())
        await topology.load()
        names = {profile.name for profile in topology.profiles()}
        if "wide" in names:
            await check_whole(cluster.kv(), "wide", set(cluster.drives))
        # Another maker of the name, with fewer groups and another scheme, if there is room.
        if "wide" in names:
            await make(cluster.kv(), pg_count=128)
        else:
            assert "wide.small" not in names
            await make(cluster.kv(), scheme="4+3", pg_count=64)
        await check_whole(cluster.kv(), "wide", set(cluster.drives))


async def test_of_two_makers_of_one_name_one_wins_and_the_groups_are_its_own() -> None:
    for _ in range(5):
        cluster = MemoryCluster(9)
        await cluster.found()
        results = await asyncio.gather(
            make(cluster.kv(), scheme="5+3", pg_count=256),
            make(cluster.kv(), scheme="4+3", pg_count=192),
            return_exceptions=True,
        )
        made = [result for result in results if isinstance(result, ProfileRecord)]
        others = [result for result in results if not isinstance(result, ProfileRecord)]
        assert len(made) <= 1
        assert all(isinstance(other, ProfileRefused | ProfileConflict) for other in others)
        if made:
            await check_whole(cluster.kv(), "wide", set(cluster.drives))
            topology = Topology(cluster.kv())
            await topology.load()
            assert topology.profile("wide").scheme == Scheme.parse(made[0].scheme)


async def test_equal_makers_both_succeed() -> None:
    cluster = MemoryCluster(9)
    await cluster.found()
    first, second = await asyncio.gather(make(cluster.kv()), make(cluster.kv()))
    assert first == second
    await check_whole(cluster.kv(), "wide", set(cluster.drives))


async def test_a_layout_made_meanwhile_is_the_one_that_counts() -> None:
    cluster = MemoryCluster(9)
    await cluster.found()
    await asyncio.gather(
        make(cluster.kv(), pg_count=512), apply_states(cluster.kv(), {"d4": "draining"})
    )
    layout = await layouts.current(cluster.kv())
    topology = Topology(cluster.kv())
    await topology.load()
    profile = topology.profile("wide")
    for number in range(profile.pg_count):
        target = layout.target("wide", number) or topology.group(profile, number).nodes
        assert "d4" not in target


async def test_a_storage_class_has_one_profile(memory_cluster: MemoryCluster) -> None:
    kv = memory_cluster.kv()
    await make(kv, storage_classes=("STANDARD_IA", "GLACIER"))
    with pytest.raises(ProfileRefused, match="GLACIER already"):
        await make(kv, "flat", "3+2", storage_classes=("GLACIER",))
    await make(kv, "flat", "3+2")
    topology = Topology(kv)
    with pytest.raises(ProfileRefused, match="GLACIER already"):
        await claim_storage_classes(kv, topology, "flat", ["GLACIER"])
    with pytest.raises(ProfileRefused, match="no profile"):
        await claim_storage_classes(kv, topology, "flat.small", ["GLACIER"])
    await claim_storage_classes(kv, topology, "wide", ["STANDARD_IA"])
    await claim_storage_classes(kv, topology, "flat", ["GLACIER"])
    claimed = topology.of_class("GLACIER")
    assert claimed is not None
    assert claimed.name == "flat"


async def test_on_one_machine_the_journal_must_survive_as_much(tmp_path: Path) -> None:
    drives = [tmp_path / f"drive-{number}" for number in range(6)]
    for drive in drives:
        drive.mkdir()
    kv = await SqliteKV.open(tmp_path / "metadata", Journal(drives, 3))
    try:
        topology = Topology(kv)
        with pytest.raises(ProfileRefused, match="journal_drives = 4"):
            await create_profile(kv, topology, "wide", "3+3", now_ms=1)
        # As much as the journal: it is the layout that is missing in this store.
        with pytest.raises(layouts.NoLayout):
            await create_profile(kv, topology, "flat", "4+2", now_ms=1)
    finally:
        await kv.close()


async def test_a_journal_opened_with_more_copies_is_widened(tmp_path: Path) -> None:
    drives = [tmp_path / f"drive-{number}" for number in range(6)]
    for drive in drives:
        drive.mkdir()
    for copies in (3, 4):
        kv = await SqliteKV.open(tmp_path / "metadata", Journal(drives, copies))
        assert kv.journal_copies == copies
        await kv.commit([], [Put(b"a", b"b")])
        await kv.close()
    assert sum((drive / "journal").is_dir() for drive in drives) >= 4
