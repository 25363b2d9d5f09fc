"""Leases, registration and membership, over the memory engine with a clock that tests move."""

from __future__ import annotations

import asyncio

import pytest

from nodes.memory import MemoryDrive
from nodes.protocol import Drive, DriveRefused
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.lease import BLOCKS, ProcessLease
from s3gw.cluster.membership import Membership, NodeIdTaken, Registration
from s3gw.cluster.topology import Topology
from s3gw.cluster.writer import attempt
from s3gw.kv.interface import Delete, Put, Unavailable
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, LayoutRecord, NodeRecord, encode
from s3gw.serving import serve_beside
from tests.stores.memory_store import Clock

TTL_SECONDS = 15


class Cluster:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock.monotonic)
        self.kv = MemoryKV(self.store)

    def lease(self) -> ProcessLease:
        return ProcessLease(
            self.kv, ttl_seconds=TTL_SECONDS, heartbeat_seconds=5, clock=self.clock.monotonic
        )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def record(nonce: str = "n", address: str = "127.0.0.1:1") -> NodeRecord:
    return NodeRecord(address, "z", "h", 1, 1, nonce, "0", 0)


async def test_a_process_exists_as_long_as_its_lease(cluster: Cluster) -> None:
    lease = cluster.lease()
    await lease.take()
    assert (await cluster.kv.get_many([keys.process(lease.id)])).items[0] is not None
    cluster.clock.advance(TTL_SECONDS + 1)
    assert not lease.held
    assert (await cluster.kv.get_many([keys.process(lease.id)])).items[0] is None


async def test_renewals_keep_a_lease_and_a_lost_one_is_taken_anew(cluster: Cluster) -> None:
    lease = cluster.lease()
    await lease.take()
    first = lease.id
    for _ in range(5):
        cluster.clock.advance(TTL_SECONDS - 1)
        await lease.renew()
    assert (lease.id, lease.held, lease.lost) == (first, True, 0)
    cluster.clock.advance(TTL_SECONDS + 1)
    await lease.renew()
    assert lease.id != first
    assert (lease.held, lease.lost) == (True, 1)


async def test_processes_take_blocks_of_slots_of_their_own_while_there_are_any(
    cluster: Cluster,
) -> None:
    leases = [cluster.lease() for _ in range(BLOCKS + 1)]
    for lease in leases:
        await lease.take()
    assert sorted(lease.block for lease in leases[:BLOCKS]) == list(range(BLOCKS))
    assert leases[BLOCKS].block in range(BLOCKS)
    await leases[2].release()
    late = cluster.lease()
    await late.take()
    assert late.block == leases[2].block


async def test_a_node_refuses_writes_from_the_moment_its_lease_may_have_ended(
    cluster: Cluster,
) -> None:
    lease = cluster.lease()
    await lease.take()
    registration = Registration(cluster.kv, lease, {"d1": record()})
    assert not registration.writes_allowed()
    await registration.register()
    assert registration.writes_allowed()
    cluster.clock.advance(TTL_SECONDS)
    assert not registration.writes_allowed()


async def test_a_new_lease_allows_writes_only_after_registering_again(cluster: Cluster) -> None:
    lease = cluster.lease()
    await lease.take()
    registration = Registration(cluster.kv, lease, {"d1": record()})
    await registration.register()
    cluster.clock.advance(TTL_SECONDS + 1)
    await lease.renew()
    assert lease.held
    assert not registration.writes_allowed()
    await registration.register()
    assert registration.writes_allowed()


async def test_a_restarted_node_takes_its_registration_over_and_another_drive_cannot(
    cluster: Cluster,
) -> None:
    old, new = cluster.lease(), cluster.lease()
    await old.take()
    await new.take()
    await Registration(cluster.kv, old, {"d1": record("same")}).register()
    await Registration(cluster.kv, new, {"d1": record("same", "127.0.0.1:2")}).register()
    with pytest.raises(NodeIdTaken):
        await Registration(cluster.kv, old, {"d1": record("other")}).register()
    await old.release()
    assert (await cluster.kv.get_many([keys.node("d1")])).items[0] is not None


class Drives:
    """Makes drives and remembers for which addresses."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def __call__(self, node_id: str, node: NodeRecord) -> Drive:
        self.made.append((node_id, node.address))
        return MemoryDrive(drive_id=node_id)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_membership_follows_nodes_that_come_go_and_move(cluster: Cluster) -> None:
    directory, drives = Directory(), Drives()
    membership = Membership(cluster.kv, directory, Topology(cluster.kv), drives)
    await cluster.kv.commit([], [Put(keys.node("d1"), encode(record()))])
    await membership.load()
    assert directory.usable("d1")
    following = asyncio.create_task(membership.follow())
    await cluster.kv.commit([], [Put(keys.node("d2"), encode(record()))])
    await until(lambda: directory.usable("d2"))
    await cluster.kv.commit([], [Delete(keys.node("d1"))])
    await until(lambda: not directory.usable("d1"))
    await cluster.kv.commit([], [Put(keys.node("d1"), encode(record(address="127.0.0.1:9")))])
    await until(lambda: directory.usable("d1"))
    assert drives.made == [
        ("d1", "127.0.0.1:1"),
        ("d2", "127.0.0.1:1"),
        ("d1", "127.0.0.1:9"),
    ]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_a_node_that_fails_is_suspect_for_longer_each_time_until_it_answers() -> None:
    clock = Clock()
    node = Node("d1", "z", MemoryDrive())
    pauses = []
    for _ in range(6):
        node.failed(clock.seconds)
        start = clock.seconds
        while not node.usable(clock.seconds):
            clock.advance(0.5)
        pauses.append(clock.seconds - start)
    assert pauses == [1, 2, 4, 8, 15, 15]
    node.answered()
    node.failed(clock.seconds)
    clock.advance(1)
    assert node.usable(clock.seconds)


def test_a_full_node_takes_no_shards_but_serves_what_it_has() -> None:
    clock = Clock()
    directory = Directory(clock.monotonic)
    node = Node("d1", "z", MemoryDrive())
    directory.add(node)
    node.full(clock.seconds)
    assert directory.usable("d1")
    assert directory.any_full()
    assert directory.writable_nodes() == []
    clock.advance(60)
    assert directory.writable_nodes() == [node]


async def test_a_new_lease_without_its_process_record_is_not_the_process_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = cluster.lease()
    await lease.take()
    cluster.clock.advance(TTL_SECONDS + 1)

    async def away(guards: object, writes: object) -> int:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(cluster.kv, "commit", away)
        await lease.renew()
    assert not lease.held
    await lease.renew()
    assert lease.held
    assert (await cluster.kv.get_many([keys.process(lease.id)])).items[0] is not None


async def test_a_node_outside_the_layout_takes_no_shards(cluster: Cluster) -> None:
    layout = LayoutRecord(0, (LayoutNode("d1", "z", 1),), ("4+2",))
    await cluster.kv.commit([], [Put(keys.layout(1), encode(layout))])
    for name in ("d1", "late"):
        await cluster.kv.commit([], [Put(keys.node(name), encode(record()))])
    directory = Directory()
    await Membership(cluster.kv, directory, Topology(cluster.kv), Drives()).load()
    assert {node.id for node in directory.usable_nodes()} == {"d1", "late"}
    assert [node.id for node in directory.writable_nodes()] == ["d1"]


async def test_a_refusal_by_a_node_that_answers_does_not_make_it_suspect() -> None:
    directory = Directory()
    node = Node("d1", "z", MemoryDrive())
    directory.add(node)

    async def refused() -> None:
        raise DriveRefused("the shard exists already")

    assert not await attempt(node, refused(), directory)
    assert directory.usable("d1")


async def test_a_process_ends_when_one_of_its_endless_tasks_does() -> None:
    shutdown = asyncio.Event()

    async def broken() -> None:
        raise ValueError("a record that nobody can read")

    task = asyncio.create_task(broken())
    with pytest.raises(ValueError, match="nobody can read"):
        await serve_beside(shutdown.wait(), [task], shutdown)
    assert shutdown.is_set()


async def learn_layout(cluster: Cluster, epoch: int, *nodes: LayoutNode) -> None:
    await cluster.kv.commit([], [Put(keys.layout(epoch), encode(LayoutRecord(0, nodes, ("4+2",))))])


async def test_the_layout_says_state_and_zone_of_nodes_and_their_record_the_host(
    cluster: Cluster,
) -> None:
    for name in ("d1", "d2", "d3"):
        await cluster.kv.commit([], [Put(keys.node(name), encode(record()))])
    await learn_layout(cluster, 1, *(LayoutNode(name, "z", 1) for name in ("d1", "d2", "d3")))
    directory = Directory()
    membership = Membership(cluster.kv, directory, Topology(cluster.kv), Drives())
    await membership.load()
    assert (membership.epoch, len(membership.layout.nodes)) == (1, 3)
    await learn_layout(
        cluster, 2, LayoutNode("d1", "other", 1, "draining"), LayoutNode("d2", "z", 1, "out")
    )
    await membership.refresh()
    assert membership.layout_epoch() == 2
    nodes = {node.id: node for node in directory.all()}
    assert [(n.state, n.zone, n.host, n.member, n.counts) for n in nodes.values()] == [
        ("draining", "other", "h", True, False),
        ("out", "z", "h", True, False),
        ("active", "z", "h", False, False),
    ]
    assert [node.id for node in directory.writable_nodes()] == ["d1"]
    assert directory.spare_nodes() == []
    assert len(directory.usable_nodes()) == 3


async def test_a_node_that_moves_to_another_address_keeps_its_place_in_the_layout(
    cluster: Cluster,
) -> None:
    await cluster.kv.commit([], [Put(keys.node("d1"), encode(record()))])
    await learn_layout(cluster, 1, LayoutNode("d1", "zone of the layout", 1, "cordoned"))
    directory = Directory()
    membership = Membership(cluster.kv, directory, Topology(cluster.kv), Drives())
    await membership.load()
    moved = encode(record(address="127.0.0.1:9"))
    await cluster.kv.commit([], [Put(keys.node("d1"), moved)])
    await membership.load()
    (node,) = directory.all()
    assert (node.state, node.zone, node.member) == ("cordoned", "zone of the layout", True)


async def test_an_older_layout_that_comes_late_changes_nothing(cluster: Cluster) -> None:
    directory = Directory()
    membership = Membership(cluster.kv, directory, Topology(cluster.kv), Drives())
    await cluster.kv.commit([], [Put(keys.node("d1"), encode(record()))])
    await learn_layout(cluster, 2, LayoutNode("d1", "z", 1, "draining"))
    await membership.load()
    following = asyncio.create_task(membership.follow())
    await asyncio.sleep(0)
    await learn_layout(cluster, 1, LayoutNode("d1", "z", 1))
    await learn_layout(cluster, 3, LayoutNode("d1", "new", 1, "draining"))
    await until(lambda: membership.epoch == 3)
    (node,) = directory.all()
    assert (node.state, node.zone) == ("draining", "new")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_a_breaker_tells_for_how_long_nothing_has_succeeded() -> None:
    node = Node("d1", "z", MemoryDrive())
    assert node.failing_seconds(0.0) == 0
    node.failed(10.0)
    node.failed(11.0)
    assert node.failing_seconds(12.0) == 2
    assert node.failing_seconds(13.5) == 0, "the breaker is not open any more"
    node.answered()
    node.failed(20.0)
    assert node.failing_seconds(20.5) == 0.5
