"""Layouts are staged, previewed and applied; what is applied is what was computed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3gw import limits
from s3gw.cluster import layouts
from s3gw.cluster.epochs import KEEPS_SHARDS, STATES
from s3gw.cluster.layouts import (
    Add,
    Change,
    LayoutConflict,
    LayoutRefused,
    Plan,
    Remove,
    SetState,
    SetWeight,
    SetZone,
)
from s3gw.kv.interface import Delete, Put, Unavailable
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, NodeRecord, PgRecord, Repair, Slot, encode
from tests.stores.memory_store import PROFILE, MemoryCluster, Process
from tests.stores.operations import blob_of, copy, delete, put

SMALL = f"{PROFILE}.small"


async def apply(process: Process, nodes: Sequence[LayoutNode], **options: bool) -> int:
    layout = await layouts.current(process.kv)
    return await layouts.apply(
        process.kv,
        process.topology,
        nodes,
        reason="test",
        now_ms=1,
        expected_epoch=layout.epoch,
        **options,
    )


async def change(process: Process, *changes: Change, **options: bool) -> int:
    """Apply changes to the layout, without a draft."""
    layout = await layouts.current(process.kv)
    return await apply(process, layouts.changed(layout.record.nodes, changes), **options)


async def settle(process: Process) -> None:
    """Let every placement group lie where the layout wants it."""
    layout = await layouts.current(process.kv)
    await process.topology.load()
    for profile in process.topology.profiles():
        for number in range(profile.pg_count):
            group = process.topology.group(profile, number)
            slots = layout.target(profile.name, number)
            if slots is not None:
                record = PgRecord(group.record.revision + 1, tuple(map(Slot, slots)))
                await process.kv.commit([], [Put(group.key, encode(record))])
    await process.topology.load()


async def test_the_first_layout_leaves_groups_as_they_were_made(memory_store: Process) -> None:
    layout = await layouts.current(memory_store.kv)
    assert layout.epoch == 1
    assert layout.target(PROFILE, 0) is None
    assert layout.node("d3") == LayoutNode("d3", "z3", 1)
    assert layout.node("other") is None


async def test_a_store_without_a_layout_says_so() -> None:
    with pytest.raises(layouts.NoLayout):
        await layouts.current(MemoryCluster().kv())


async def test_changes_are_gathered_previewed_and_applied(memory_store: Process) -> None:
    kv, topology = memory_store.kv, memory_store.topology
    assert await layouts.draft(kv) is None
    await layouts.stage(kv, [Add("d8", "z8", 1)])
    draft = await layouts.stage(kv, [SetState("d0", "draining")])
    assert await layouts.draft(kv) == draft
    plan = await layouts.plan(kv, topology, draft.nodes)
    assert (plan.epoch, plan.refusals, plan.tolerance_during, plan.tolerance_after) == (1, (), 2, 2)
    assert plan.moves > 0
    assert await apply(memory_store, draft.nodes) == 2
    assert await layouts.draft(kv) is None
    layout = await layouts.current(kv)
    assert layout.record.nodes == draft.nodes
    for profile in plan.profiles:
        for number, row in enumerate(profile.assignment):
            assert layout.target(profile.profile, number) == tuple(node or "" for node in row)
            assert "d0" not in row
    with pytest.raises(IndexError):
        layout.target(PROFILE, memory_store.profile().pg_count)


async def test_a_plan_says_how_many_bytes_move(memory_store: Process) -> None:
    data = bytes(400_000)
    await put(memory_store, "k", data)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    layout = await layouts.current(memory_store.kv)
    nodes = layouts.changed(layout.record.nodes, [SetState(group.nodes[0], "draining")])
    plan = await layouts.plan(memory_store.kv, memory_store.topology, nodes)
    large = next(profile for profile in plan.profiles if profile.profile == PROFILE)
    moved = sum(
        1
        for old, new in zip(group.nodes, large.assignment[group.number], strict=True)
        if old != new
    )
    assert moved >= 1
    assert plan.bytes == large.bytes == moved * len(data) // 4


async def test_a_plan_says_what_tolerance_is_left_and_what_is_wrong(memory_store: Process) -> None:
    kv, topology = memory_store.kv, memory_store.topology
    layout = await layouts.current(kv)
    live = {f"d{number}" for number in range(1, 8)}
    lost = await layouts.plan(kv, topology, layout.record.nodes, live=live)
    assert (lost.tolerance_during, lost.tolerance_after) == (1, 1)
    assert "node d0 is active and does not answer" in lost.warnings
    out = layouts.changed(layout.record.nodes, [SetState("d0", "out")])
    healed = await layouts.plan(kv, topology, out, live=live)
    assert (healed.tolerance_during, healed.tolerance_after) == (1, 2)
    few = [SetState(f"d{number}", "draining") for number in range(3)]
    five = await layouts.plan(kv, topology, layouts.changed(layout.record.nodes, few))
    assert any("slots stay empty" in warning for warning in five.warnings)
    assert five.tolerance_after == 1
    one = [SetZone(f"d{number}", "same") for number in range(6)]
    crowded = await layouts.plan(kv, topology, layouts.changed(layout.record.nodes, one))
    assert not crowded.profiles[0].zone_rule
    assert any("in one zone" in warning for warning in crowded.warnings)
    heavy = await layouts.plan(
        kv, topology, layouts.changed(layout.record.nodes, [SetWeight("d1", 1000)])
    )
    assert any("larger than the others" in warning for warning in heavy.warnings)


async def test_liveness_is_read_from_registrations_where_there_are_any(
    memory_store: Process,
) -> None:
    layout = await layouts.current(memory_store.kv)
    for number in range(6):
        value = encode(NodeRecord("a", "z", "h", 1, 1, "n", "0", 0))
        await memory_store.kv.commit([], [Put(keys.node(f"d{number}"), value)])
    plan = await layouts.plan(memory_store.kv, memory_store.topology, layout.record.nodes)
    assert [warning for warning in plan.warnings if "does not answer" in warning] == [
        "node d6 is active and does not answer",
        "node d7 is active and does not answer",
    ]


async def test_a_draft_is_changed_by_one_at_a_time_and_only_on_the_present_layout(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = memory_store.kv
    await layouts.stage(kv, [SetWeight("d0", 2)])
    stale = await layouts.draft(kv)
    await layouts.stage(kv, [SetWeight("d1", 2)])

    async def read_before(kv: object) -> layouts.Draft | None:
        return stale

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "draft", read_before)
        with pytest.raises(LayoutConflict):
            await layouts.stage(kv, [SetWeight("d2", 2)])
    await change(memory_store, SetWeight("d7", 3))
    draft = await layouts.draft(kv)
    assert draft is not None
    assert draft.stale
    with pytest.raises(LayoutConflict, match="based on epoch 1"):
        await layouts.stage(kv, [SetWeight("d2", 2)])
    with pytest.raises(LayoutConflict):
        await layouts.apply(
            kv,
            memory_store.topology,
            draft.nodes,
            reason="",
            now_ms=1,
            expected_epoch=draft.epoch,
        )
    await layouts.discard(kv)
    await layouts.discard(kv)
    assert (await layouts.stage(kv, [SetWeight("d2", 2)])).epoch == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([Add("d0", "z", 1)], "has a node d0 already"),
        ([Remove("other")], "has no node other"),
        ([SetState("other", "out")], "has no node other"),
        ([SetState("d0", "gone")], "is no state of a node"),
        ([SetWeight("d0", -1)], "the weight of node d0"),
        ([SetZone("d0", "")], "the zone ''"),
        ([Add("a\nb", "z", 1)], "printable characters"),
        ([Add("x" * 200, "z", 1)], "printable characters"),
        ([Add("x", "z", 1, host="h" * 200)], "too long a name"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_and_nothing_is_staged(
    memory_store: Process, changes: list[Change], text: str
) -> None:
    with pytest.raises(LayoutRefused, match=text):
        await layouts.stage(memory_store.kv, [SetWeight("d1", 7), *changes])
    assert await layouts.draft(memory_store.kv) is None


async def test_a_node_is_removed_only_when_nothing_lies_on_it_any_more(
    memory_store: Process,
) -> None:
    with pytest.raises(LayoutRefused, match="holds shards of"):
        await change(memory_store, Remove("d0"))
    await change(memory_store, SetState("d0", "draining"))
    with pytest.raises(LayoutRefused, match="drain it and wait"):
        await change(memory_store, Remove("d0"))
    await settle(memory_store)
    assert await change(memory_store, Remove("d0")) == 3
    assert (await layouts.current(memory_store.kv)).node("d0") is None


async def test_a_node_from_which_shards_are_still_copied_is_not_removed(
    memory_store: Process,
) -> None:
    await change(memory_store, SetState("d0", "draining"))
    await settle(memory_store)
    group = memory_store.topology.group(memory_store.profile(), 0)
    slots = (Slot(group.nodes[0], ("d0",)), *group.record.slots[1:])
    record = PgRecord(group.record.revision + 1, slots)
    await memory_store.kv.commit([], [Put(group.key, encode(record))])
    with pytest.raises(LayoutRefused, match="node d0 holds shards of 1 slots"):
        await change(memory_store, Remove("d0"))
    assert await change(memory_store, Remove("d0"), force=True) == 3


async def test_a_node_that_may_be_given_shards_is_not_removed(memory_store: Process) -> None:
    await change(memory_store, Add("d8", "z8", 0))
    await settle(memory_store)
    with pytest.raises(LayoutRefused, match="node d8 is active: drain it first"):
        await change(memory_store, Remove("d8"))
    await change(memory_store, SetState("d8", "draining"))
    await change(memory_store, Remove("d8"))


async def test_a_node_with_shards_that_were_written_around_others_is_not_removed(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many references to them have been dropped."""
    monkeypatch.setattr("s3gw.cluster.layout_plan.REFERENCES_PER_READ", 2)
    process = memory_store
    for number in (0, 1):
        node = process.directory.get(f"d{number}")
        assert node is not None
        node.live = False
    await put(process, "k", bytes(70_000))
    while not (around := (await blob_of(process, "k")).nodes):
        await put(process, "k", bytes(70_000))
    for number in range(4):
        await copy(process, "k", f"copy{number}")
        await delete(process, f"copy{number}")
    ref = await blob_of(process, "k")
    group = process.topology.group_of(ref.profile, ref.blob)
    spare = next(node for node in around if node not in group.nodes)
    await change(process, SetState(spare, "draining"))
    await settle(process)
    with pytest.raises(LayoutRefused, match="written around other nodes"):
        await change(process, Remove(spare))


async def test_a_long_repair_queue_is_waited_for_before_a_node_is_removed(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(memory_store, SetState("d0", "draining"))
    await settle(memory_store)
    monkeypatch.setattr("s3gw.cluster.layout_plan.QUEUE_CHECKED_MAX", 1)
    for number in range(2):
        key = keys.repair(1, PROFILE, 0, bytes([number]) * 16)
        entry = Repair(PROFILE, 0, bytes([number]) * 16, "test", 1)
        await memory_store.kv.commit([], [Put(key, encode(entry))])
    with pytest.raises(LayoutRefused, match="wait for repair"):
        await change(memory_store, Remove("d0"))


async def test_a_layout_with_too_few_nodes_is_refused(memory_store: Process) -> None:
    few = [SetState(f"d{number}", "draining") for number in range(6)]
    with pytest.raises(LayoutRefused, match="2 nodes may hold shards, 3 are needed"):
        await change(memory_store, *few)
    assert await change(memory_store, *few, force=True) == 2


async def test_a_group_that_moves_while_a_node_is_removed_is_looked_at_again(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(memory_store, SetState("d0", "draining"))
    await settle(memory_store)
    group = memory_store.topology.group(memory_store.profile(), 3)
    moved = PgRecord(group.record.revision + 1, (Slot("d0"), *group.record.slots[1:]))
    commit = memory_store.kv.commit

    async def move_first(guards: list[object], writes: list[object]) -> int:
        monkeypatch.undo()
        await commit([], [Put(group.key, encode(moved))])
        return await commit(guards, writes)  # type: ignore[arg-type]

    monkeypatch.setattr(memory_store.kv, "commit", move_first)
    with pytest.raises(LayoutRefused, match="node d0 holds shards of 1 slots"):
        await change(memory_store, Remove("d0"))


async def test_of_two_who_apply_at_once_one_wins(
    memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read the layout before either commits."""
    first, second = [await memory_cluster.process() for _ in range(2)]
    commit = second.kv.commit

    async def other_first(guards: list[object], writes: list[object]) -> int:
        monkeypatch.undo()
        await change(first, SetWeight("d0", 5))
        return await commit(guards, writes)  # type: ignore[arg-type]

    monkeypatch.setattr(second.kv, "commit", other_first)
    with pytest.raises(LayoutConflict, match="at epoch 2, not 1"):
        await change(second, SetWeight("d0", 6))
    node = (await layouts.current(second.kv)).node("d0")
    assert node is not None
    assert node.weight == 5


class LosesAnswers(MemoryKV):
    """The first commit takes effect, and its answer is lost."""

    lost = False

    async def commit(self, guards, writes):  # type: ignore[no-untyped-def]
        revision = await super().commit(guards, writes)
        if not self.lost:
            self.lost = True
            raise Unavailable("the answer was lost")
        return revision


async def test_a_layout_whose_outcome_was_unknown_is_made_once(
    memory_cluster: MemoryCluster,
) -> None:
    process = await memory_cluster.process(LosesAnswers(memory_cluster.engine))
    assert await change(process, SetWeight("d0", 5)) == 2
    assert (await layouts.current(process.kv)).epoch == 2


async def test_a_layout_that_does_not_fit_a_commit_is_refused(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "RECORD_BYTES_MAX", 300)
    with pytest.raises(LayoutRefused, match="does not fit"):
        await change(memory_store, SetWeight("d0", 5))
    with pytest.raises(LayoutRefused, match="too large"):
        await layouts.stage(memory_store.kv, [Add("x" * 100, "y" * 100, 1)])
    assert layouts.RECORD_BYTES_MAX < limits.COMMIT_BYTES_MAX


async def test_old_layouts_are_removed_but_for_the_first(memory_store: Process) -> None:
    for weight in range(layouts.EPOCHS_KEPT + 5):
        await change(memory_store, SetWeight("d0", weight + 2))
    page = await memory_store.kv.scan(
        keys.LAYOUTS, keys.after_prefix(keys.LAYOUTS), limit=1000, keys_only=True
    )
    last = layouts.EPOCHS_KEPT + 6
    epochs = [int.from_bytes(item.key[len(keys.LAYOUTS) :]) for item in page.items]
    assert epochs == [1, *range(last - layouts.EPOCHS_KEPT + 1, last + 1)]


async def test_a_profile_whose_groups_are_not_there_yet_is_left_out(memory_store: Process) -> None:
    group = memory_store.topology.group(memory_store.profile(SMALL), 5)
    await memory_store.kv.commit([], [Delete(group.key)])
    fresh = await memory_store.cluster.process()
    await change(fresh, SetState("d0", "draining"))
    layout = await layouts.current(fresh.kv)
    assert layout.target(PROFILE, 0) is not None
    assert layout.target(SMALL, 0) is None


NODES = [f"d{number}" for number in range(12)]
CHANGES = st.one_of(
    st.builds(
        Add, st.sampled_from(NODES), st.sampled_from(["z1", "z2", "z3", "z4"]), st.integers(0, 9)
    ),
    st.builds(Remove, st.sampled_from(NODES)),
    st.builds(SetState, st.sampled_from(NODES), st.sampled_from(STATES)),
    st.builds(SetWeight, st.sampled_from(NODES), st.integers(0, 9)),
    st.builds(SetZone, st.sampled_from(NODES), st.sampled_from(["z1", "z2", "z3", "z4"])),
)


def check_plan(plan: Plan) -> None:
    """No group has a node twice, and only nodes that may hold shards have any."""
    holds = {node.node for node in plan.nodes if node.state in KEEPS_SHARDS}
    takes = {node.node for node in plan.nodes if node.state == "active" and node.weight}
    for profile in plan.profiles:
        for row in profile.assignment:
            present = [node for node in row if node is not None]
            assert len(set(present)) == len(present)
            assert set(present) <= holds
            assert None not in row or takes <= set(present)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(CHANGES, max_size=4), st.booleans()), max_size=6))
def test_any_sequence_of_changes_gives_a_sound_layout(
    rounds: list[tuple[list[Change], bool]],
) -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(8)
        await cluster.found()
        process = await cluster.process()
        for changes, moves_end in rounds:
            before = await layouts.current(process.kv)
            try:
                draft = await layouts.stage(process.kv, changes)
                plan = await layouts.plan(process.kv, process.topology, draft.nodes)
                epoch = await apply(process, draft.nodes)
            except LayoutRefused:
                await layouts.discard(process.kv)
                assert (await layouts.current(process.kv)).epoch == before.epoch
                continue
            check_plan(plan)
            layout = await layouts.current(process.kv)
            assert layout.epoch == epoch == before.epoch + 1
            for profile in plan.profiles:
                decoded = tuple(
                    layout.target(profile.profile, number)
                    for number in range(len(profile.assignment))
                )
                assert decoded == tuple(
                    tuple(node or "" for node in row) for row in profile.assignment
                )
            if moves_end:
                await settle(process)

    asyncio.run(scenario())
