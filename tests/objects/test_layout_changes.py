"""Publishing while the layout changes: a reference names only nodes that the layout keeps."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from nodes.memory import Fault
from nodes.protocol import Buffer, DriveUnreachable
from s3gw import errors
from s3gw.cluster import layouts
from s3gw.cluster.layouts import Change, Remove, SetState, SetWeight
from s3gw.kv.interface import Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Description,
    ObjectRecord,
    PgRecord,
    Slot,
    encode,
)
from s3gw.objects import publish
from s3gw.objects.multipart import find_upload, upload_part
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.workers import on_demand
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process
from tests.stores.operations import (
    blob_of,
    complete,
    get,
    put,
    record,
    set_versioning,
    start,
)

DATA = bytes(range(256)) * 1200
REFUSED = Fault(error=DriveUnreachable("refused"))
Meanwhile = Callable[[], Awaitable[object]]


class MeanwhileBytes(Bytes):
    """A body at whose end something happens."""

    def __init__(self, meanwhile: Meanwhile) -> None:
        super().__init__(DATA)
        self._meanwhile = meanwhile

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for data in Bytes.__aiter__(self):
            yield data
        await self._meanwhile()


async def change(process: Process, changes: Sequence[Change], *, force: bool = False) -> None:
    """Another process makes the next layout: `process` does not know of it yet."""
    other = await process.cluster.process()
    layout = await layouts.current(other.kv)
    await layouts.apply(
        other.kv,
        other.topology,
        layouts.changed(layout.record.nodes, changes),
        reason="test",
        now_ms=1,
        expected_epoch=layout.epoch,
        force=force,
    )


async def put_meanwhile(process: Process, meanwhile: Meanwhile) -> BlobRef:
    target = await publish.read_target(process.storage, BUCKET, "k")
    await put_object(
        process.storage, target, "owner", Description(), MeanwhileBytes(meanwhile), no_check
    )
    return await blob_of(process, "k")


def take_down(process: Process, *names: str) -> None:
    """Nodes whose leases have ended, and that refuse connections."""
    for name in names:
        process.cluster.drives[name].inject(REFUSED)
        node = process.directory.get(name)
        assert node is not None
        node.live = False


def fix_groups(process: Process) -> None:
    """Draw only blobs of group 0, so that all lie on the same nodes."""
    ids = (value << 64 for value in itertools.count(8, 8))
    process.blobs._random_bytes = lambda count: next(ids).to_bytes(count, "big")


class Conflicts:
    """Counts the conflicts of a process's commits."""

    def __init__(self, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        commit = process.kv.commit

        async def counting(guards, writes):  # type: ignore[no-untyped-def]
            try:
                return await commit(guards, writes)
            except Conflict:
                self.count += 1
                raise

        monkeypatch.setattr(process.kv, "commit", counting)


@pytest.fixture
async def process(memory_store: Process) -> Process:
    """Knows the layout, and writes all its blobs into group 0."""
    await memory_store.follow()
    fix_groups(memory_store)
    return memory_store


def slots(process: Process) -> tuple[str, ...]:
    return process.topology.group(process.profile(), 0).nodes


def spare_of(process: Process, ref: BlobRef) -> str:
    """The node of an explicit blob that is not on the group's slots."""
    return next(node for node in ref.nodes if node not in slots(process))


async def test_a_blob_on_its_slots_is_published_whatever_the_layout(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflicts = Conflicts(process, monkeypatch)
    home = slots(process)
    ref = await put_meanwhile(process, lambda: change(process, [SetState(home[0], "draining")]))
    assert ref.nodes == ()
    assert conflicts.count == 0
    assert await get(process, "k") == DATA


async def test_an_explicit_blob_is_published_under_the_layout_of_the_moment(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that does not touch its nodes costs one more commit, not sixty."""
    take_down(process, slots(process)[0])
    conflicts = Conflicts(process, monkeypatch)
    shards_before = sum(len(drive.shards) for drive in process.cluster.drives.values())
    ref = await put_meanwhile(process, lambda: change(process, [SetWeight("d0", 5)]))
    assert len(ref.nodes) == 6
    assert conflicts.count == 1
    assert process.storage.layout_epoch() == 2
    shards = sum(len(drive.shards) for drive in process.cluster.drives.values())
    assert shards - shards_before == 6
    assert await get(process, "k") == DATA
    Audit(process.cluster, process).check_held()


@pytest.mark.parametrize("state", ["draining", "out"])
async def test_a_shard_on_a_node_that_the_layout_has_given_up_is_rebuilt_elsewhere(
    process: Process, state: str
) -> None:
    take_down(process, slots(process)[0])
    first = await put_meanwhile(process, lambda: change(process, []))
    spare = spare_of(process, first)
    ref = await put_meanwhile(process, lambda: change(process, [SetState(spare, state)]))
    assert spare not in ref.nodes
    assert "" not in ref.nodes
    assert len(set(ref.nodes)) == 6
    assert ref.scheme == "4+2"
    assert await get(process, "k") == DATA
    Audit(process.cluster, process).check_held()


async def test_a_node_that_was_struck_off_meanwhile_is_not_named(process: Process) -> None:
    take_down(process, slots(process)[0])
    spare = spare_of(process, await put_meanwhile(process, lambda: change(process, [])))
    ref = await put_meanwhile(process, lambda: change(process, [Remove(spare)], force=True))
    assert spare not in ref.nodes
    assert "" not in ref.nodes
    assert await get(process, "k") == DATA


async def test_a_cordoned_node_keeps_what_was_written_on_it(process: Process) -> None:
    take_down(process, slots(process)[0])
    spare = spare_of(process, await put_meanwhile(process, lambda: change(process, [])))
    ref = await put_meanwhile(process, lambda: change(process, [SetState(spare, "cordoned")]))
    assert spare in ref.nodes


@pytest.mark.parametrize("same", [True, False])
async def test_a_group_that_moves_off_a_draining_node_during_the_write(
    process: Process, same: bool
) -> None:
    """The blob lies on the former slots then, one of which is emptied; its shard is rebuilt on the
    first spare node, which is the group's new one or is not."""
    home = slots(process)
    spares = sorted(set(process.cluster.drives) - set(home))
    spare = spares[0] if same else spares[1]

    async def move() -> None:
        await change(process, [SetState(home[0], "draining")])
        group = process.topology.group(process.profile(), 0)
        moved = (Slot(spare, (home[0],)), *group.record.slots[1:])
        changed = PgRecord(group.record.revision + 1, moved)
        await process.kv.commit([], [Put(group.key, encode(changed))])

    ref = await put_meanwhile(process, move)
    assert ref.nodes == (() if same else (spares[0], *home[1:]))
    assert any(name.blob == ref.blob for name in process.cluster.drives[spares[0]].shards)
    assert await get(process, "k") == DATA
    assert (await on_demand.repair_all(process.storage)).moved == (0 if same else 1)
    assert (await blob_of(process, "k")).nodes == ()
    assert await get(process, "k") == DATA


@pytest.fixture
async def six() -> Process:
    """A store without a spare node."""
    cluster = MemoryCluster(6)
    await cluster.found()
    process = await cluster.process()
    await process.follow()
    fix_groups(process)
    return process


async def test_with_too_few_shards_left_the_blob_is_written_anew_on_the_nodes_that_stay(
    six: Process,
) -> None:
    home = slots(six)
    take_down(six, home[0])
    leave = [SetState(home[1], "draining"), SetState(home[2], "draining")]
    ref = await put_meanwhile(six, lambda: change(six, leave))
    assert ref.scheme == "1+2"
    assert set(ref.nodes) == set(home[3:])
    assert await get(six, "k") == DATA


async def test_without_enough_nodes_that_stay_the_put_is_refused_and_publishes_nothing(
    six: Process,
) -> None:
    home = slots(six)
    take_down(six, home[0])
    leave = [SetState(node, "draining") for node in home[1:4]]
    with pytest.raises(errors.SlowDown):
        await put_meanwhile(six, lambda: change(six, leave, force=True))
    assert await record(six, "k") is None
    assert not Audit(six.cluster, six).references()


async def test_a_part_and_a_manifest_are_published_like_objects(process: Process) -> None:
    take_down(process, slots(process)[0])
    spare = spare_of(process, await put_meanwhile(process, lambda: change(process, [])))
    upload_id = await start(process, "large")
    upload = await find_upload(process.storage, BUCKET, "large", upload_id, 1)

    async def drain() -> None:
        await change(process, [SetState(spare, "draining")])

    part = await upload_part(process.storage, upload, 1, MeanwhileBytes(drain))
    assert spare not in part.blob.nodes
    assert len(part.blob.nodes) == 6
    await complete(process, "large", upload_id)
    assert await get(process, "large") == DATA


async def test_writers_know_the_states_of_nodes_from_the_layout(process: Process) -> None:
    """Cordoned and draining nodes take what belongs on them; an explicit blob leaves the draining
    one out; a node that is out gets nothing."""
    home = slots(process)
    await change(process, [SetState(home[1], "cordoned"), SetState(home[2], "draining")])
    await process.storage.refresh_layout()
    await put(process, "home", DATA)
    assert (await blob_of(process, "home")).nodes == ()
    take_down(process, home[0])
    await put(process, "around", DATA)
    around = await blob_of(process, "around")
    assert home[1] in around.nodes
    assert home[2] not in around.nodes
    await change(process, [SetState(home[3], "out")])
    await process.storage.refresh_layout()
    await put(process, "without", DATA)
    without = await blob_of(process, "without")
    assert home[3] not in without.nodes
    for key in ("home", "around", "without"):
        assert await get(process, key) == DATA


async def test_a_sequence_that_a_noncurrent_version_has_taken_is_not_used_again(
    process: Process,
) -> None:
    """The key was read as absent; meanwhile another has hidden it with the same sequence."""
    await set_versioning(process, "Enabled")
    target = await publish.read_target(process.storage, BUCKET, "k")
    taken = publish.sequence_of(process.storage, target)
    version = ObjectRecord(taken, 1, "owner", 0, "", None, Description(), marker=True)
    await process.kv.commit([], [Put(keys.version(BUCKET, "k", taken), encode(version))])
    made = await put_object(
        process.storage, target, "owner", Description(), Bytes(b"new"), no_check
    )
    assert made.sequence > taken
    assert await get(process, "k") == b"new"
