"""Groups move to the layout's target: added, drained, lost and returning nodes."""

from __future__ import annotations

from collections import Counter

from s3gw.cluster.layouts import DRAINING, OUT, Add, Remove, SetState, SetWeight
from s3gw.cluster.tunables import Throttle
from s3gw.metadata.records import Slot
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.group_move import GroupMove, planned_slots
from s3gw.workers.progress import Meter
from tests.stores.memory_store import Process
from tests.stores.operations import delete, put
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import World, rebalancer


def load_of(process: Process) -> Counter[str]:
    return Counter(
        node
        for profile in process.topology.profiles()
        for number in range(profile.pg_count)
        for node in process.topology.group(profile, number).nodes
    )


def everywhere(node: str) -> bool:
    return True


def nowhere(node: str) -> bool:
    return False


def test_a_changed_slot_remembers_who_had_it_and_an_empty_one_that_it_was_empty() -> None:
    slots = [Slot("a"), Slot("b", ("x",)), Slot("")]
    planned = planned_slots(slots, ["c", "d", "e"], ready=everywhere, gone=nowhere)
    assert planned == (Slot("c", ("a",)), Slot("d", ("b", "x")), Slot("e", ("",)))


def test_a_slot_that_goes_back_has_the_failed_target_as_a_former_holder() -> None:
    planned = planned_slots([Slot("b", ("a",))], ["a"], ready=everywhere, gone=nowhere)
    assert planned == (Slot("a", ("b",)),)


def test_a_slot_waits_for_a_target_that_is_down_or_still_in_another_slot() -> None:
    slots = [Slot("a"), Slot("b"), Slot("c")]
    down = planned_slots(
        slots, ["b", "d", "e"], ready=lambda node: node != "d", gone=nowhere
    )  # b stays in slot 1, so slot 0 cannot have it yet
    assert down == (Slot("a"), Slot("b"), Slot("e", ("c",)))
    swapped = planned_slots(slots, ["b", "a", "c"], ready=everywhere, gone=nowhere)
    assert swapped == (Slot("b", ("a",)), Slot("a", ("b",)), Slot("c"))


def test_a_slot_gives_up_its_node_to_another_slot_when_it_is_to_be_empty() -> None:
    """The layout was computed from other slots than those that its move begins with."""
    slots = [Slot("a", ("x",)), Slot("b"), Slot("c")]
    planned = planned_slots(slots, ["", "a", "c"], ready=everywhere, gone=nowhere)
    assert planned == (Slot("", ("a", "x")), Slot("a", ("b",)), Slot("c"))
    assert planned_slots(planned, ["", "a", "c"], ready=everywhere, gone=nowhere) == planned
    waiting = planned_slots(slots, ["", "a", "c"], ready=nowhere, gone=nowhere)
    assert waiting == tuple(slots)
    chained = planned_slots(slots, ["", "a", "b"], ready=everywhere, gone=nowhere)
    assert chained == (Slot("", ("a", "x")), Slot("a", ("b",)), Slot("b", ("c",)))


def test_a_drain_ends_when_the_group_was_planned_anew_before_its_move() -> None:
    async def scenario() -> None:
        world = await World.make(6, pg_count=1)
        await world.fill()
        await world.change(SetState("d0", DRAINING))
        layout, process = await world.layout(), world.process
        (profile,) = (p for p in process.topology.profiles() if p.scheme.width == 6)
        group = process.topology.group(profile, 0)
        drained = group.nodes.index("d0")
        target = list(group.nodes)
        other = (drained + 1) % 6
        target[drained], target[other] = target[other], ""
        move = GroupMove(
            process.storage,
            UNCLAIMED,
            group,
            target,
            epoch=layout.epoch,
            members=frozenset(world.cluster.drives),
            throttle=Throttle(lambda: 0),
            meter=Meter(process.storage),
        )
        assert await move.run()
        assert process.topology.group(profile, 0).nodes == tuple(target)
        assert not any(
            name.index == drained
            for name in world.drive("d0").shards
            if name.profile == profile.name
        )
        await world.check_reads()

    run_virtual(scenario())


def test_a_slot_without_a_target_is_emptied_only_when_its_node_has_gone_for_good() -> None:
    slots = [Slot("a"), Slot("b", ("x", ""))]
    assert planned_slots(slots, ["", ""], ready=everywhere, gone=nowhere) == tuple(slots)
    emptied = planned_slots(slots, ["", ""], ready=everywhere, gone=lambda node: node != "x")
    assert emptied == (Slot(""), Slot("", ("x",)))


def test_added_nodes_get_their_share_and_nothing_stays_behind() -> None:
    async def scenario() -> None:
        world = await World.make(10, nodes=7)
        await world.fill()
        before = world.whole_shards()
        await world.change(*(Add(f"d{n}", f"z{n}", 1) for n in (7, 8, 9)))
        mover = rebalancer(world.process)
        assert await mover.run_once()
        await world.check_settled()
        await world.check_reads()
        world.check_no_surplus()
        assert world.whole_shards() == before
        load = load_of(world.process)
        assert set(load) == set(world.cluster.drives)
        assert max(load.values()) - min(load.values()) <= 2
        figures = mover.meter.record()
        assert figures.groups_left == figures.bytes_left == 0
        assert figures.bytes_rebuilt == figures.bytes_read == 0
        assert figures.bytes_moved == sum(
            len(data) for n in (7, 8, 9) for data in world.drive(f"d{n}").shards.values()
        )

    run_virtual(scenario())


def test_a_lost_node_is_rebuilt_on_the_others() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill()
        before = world.whole_shards()
        lost = world.drive("d3").shards
        world.fail("d3")
        await world.change(SetState("d3", OUT))
        mover = rebalancer(world.process)
        assert await mover.run_once()
        await world.check_settled()
        await world.check_reads()
        assert "d3" not in load_of(world.process)
        figures = mover.meter.record()
        assert figures.bytes_rebuilt > 0
        assert figures.bytes_moved == 0
        lost_bytes = sum(map(len, lost.values()))
        assert figures.bytes_read <= 4 * lost_bytes  # k fragments for each, copies one
        world.drive("d3").shards.clear()
        assert world.whole_shards() == before

    run_virtual(scenario())


def test_what_a_lost_node_holds_is_removed_when_it_returns() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill()
        world.fail("d3")
        await world.change(SetState("d3", OUT))
        assert await rebalancer(world.process).run_once()
        world.heal("d3")
        assert world.drive("d3").shards
        await world.tidy()
        assert not world.drive("d3").shards
        await world.check_settled()
        await world.check_reads()

    run_virtual(scenario())


def test_a_drained_node_is_copied_from_and_left_empty() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill()
        before = world.whole_shards()
        await world.change(SetState("d2", "draining"))
        mover = rebalancer(world.process)
        assert await mover.run_once()
        await world.check_settled()
        await world.check_reads()
        assert not world.drive("d2").shards
        assert world.whole_shards() == before
        assert mover.meter.record().bytes_rebuilt == 0
        await world.change(Remove("d2"))
        assert await mover.run_once()
        await world.check_settled()

    run_virtual(scenario())


def test_a_damaged_shard_on_a_drained_node_is_rebuilt_from_the_others() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill()
        names = sorted(world.drive("d2").shards, key=str)
        for name in names:
            data = bytearray(world.drive("d2").shards[name])
            data[len(data) // 2] ^= 1
            world.drive("d2").shards[name] = bytes(data)
        await world.change(SetState("d2", "draining"))
        mover = rebalancer(world.process)
        assert await mover.run_once()
        await world.check_settled()
        await world.check_reads()
        assert not world.drive("d2").shards
        assert mover.meter.record().bytes_moved == 0

    run_virtual(scenario())


def test_a_weight_of_zero_moves_everything_away() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill(8)
        await world.change(SetWeight("d1", 0))
        assert await rebalancer(world.process).run_once()
        await world.check_settled()
        assert not world.drive("d1").shards

    run_virtual(scenario())


def test_with_no_node_to_spare_a_lost_one_keeps_its_slots_until_another_is_added() -> None:
    async def scenario() -> None:
        world = await World.make(7, nodes=6)
        await world.fill(8)
        world.fail("d3")
        await world.change(SetState("d3", OUT))
        assert not await rebalancer(world.process).run_once()
        await world.check_reads()
        await world.change(Remove("d3"))
        mover = rebalancer(world.process)
        await mover.run_once()
        assert "d3" not in load_of(world.process)
        assert load_of(world.process)[""] > 0
        await world.check_reads()
        world.drive("d3").shards.clear()  # gone for good
        await world.change(Add("d6", "z6", 1))
        assert await rebalancer(world.process).run_once()
        assert load_of(world.process)[""] == 0
        await world.check_settled()

    run_virtual(scenario())


def test_objects_written_over_and_deleted_during_a_move_leave_nothing_behind() -> None:
    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        await world.fill()
        await put(world.process, "k1", b"new" * 30_000)
        world.objects["k1"] = b"new" * 30_000
        await delete(world.process, "k2")
        del world.objects["k2"]
        await world.change(Add("d8", "z8", 1), SetState("d0", "draining"))
        assert await rebalancer(world.process).run_once()
        assert not world.drive("d0").shards  # what is dropped came along
        await world.check_settled()
        await world.check_reads()
        await world.tidy()
        await world.check_reads()
        world.check_no_surplus()

    run_virtual(scenario())
