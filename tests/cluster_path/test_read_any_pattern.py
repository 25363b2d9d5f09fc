"""Reading whatever is wrong with up to two shards of 4+2; an error, never wrong bytes, beyond."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import pytest

from nodes.memory import Fault
from nodes.protocol import DriveUnreachable
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Put
from s3gw.metadata.records import BlobRef, PgRecord, Slot, encode
from tests.stores.blob_path import STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

SIZES = [0, 1, 3, STRIPE - 1, STRIPE, STRIPE + 1, 9 * STRIPE + 17]
PATTERNS = [p for count in range(3) for p in combinations(range(6), count)]


def lose(path: BlobPath, ref: BlobRef, index: int) -> None:
    path.lose(ref, index)


def corrupt(path: BlobPath, ref: BlobRef, index: int) -> None:
    for place in range(64, len(path.shard(ref, index)), 512):
        path.flip(ref, index, place)


def refuse(path: BlobPath, ref: BlobRef, index: int) -> None:
    path.drive(ref, index).inject(Fault(error=DriveUnreachable("refused")))


def hang(path: BlobPath, ref: BlobRef, index: int) -> None:
    path.drive(ref, index).inject(Fault(hang=True))


def cut(path: BlobPath, ref: BlobRef, index: int) -> None:
    path.replace(ref, index, path.shard(ref, index)[:100])


def empty(path: BlobPath, ref: BlobRef, index: int) -> None:
    path.replace(ref, index, b"")


HARMS = [lose, corrupt, refuse, hang, cut, empty]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("size", [1, STRIPE + 1, 9 * STRIPE + 17])
def test_every_pattern_of_up_to_two_bad_shards_is_read(
    size: int, harm: Callable[[BlobPath, BlobRef, int], None]
) -> None:
    async def scenario() -> None:
        data = payload(size)
        for pattern in PATTERNS:
            path = await BlobPath.open(6)
            ref = (await path.write(data)).ref
            for index in pattern:
                harm(path, ref, index)
            assert await path.read(ref) == data, pattern

    run_virtual(scenario())


@pytest.mark.parametrize("harm", HARMS)
def test_three_bad_shards_are_an_error_and_never_wrong_bytes(
    harm: Callable[[BlobPath, BlobRef, int], None],
) -> None:
    async def scenario() -> None:
        data = payload(2 * STRIPE + 5)
        for pattern in combinations(range(6), 3):
            path = await BlobPath.open(6)
            ref = (await path.write(data)).ref
            before = sum(len(drive.shards) for drive in path.cluster.drives.values())
            for index in pattern:
                harm(path, ref, index)
            left = sum(len(drive.shards) for drive in path.cluster.drives.values())
            with pytest.raises(BlobUnreadable):
                await path.read(ref)
            now = sum(len(drive.shards) for drive in path.cluster.drives.values())
            assert now == left <= before

    run_virtual(scenario())


@pytest.mark.parametrize("size", SIZES)
def test_ranges_are_slices(size: int) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        data = payload(size)
        ref = (await path.write(data)).ref
        chosen = random.Random(size)
        edges = [edge for edge in (0, 1, STRIPE - 1, STRIPE, STRIPE + 1, size) if edge <= size]
        ranges = [(a, b) for a in edges for b in edges if a <= b]
        pairs = [sorted(chosen.choices(range(size + 1), k=2)) for _ in range(40)]
        ranges += [(first, stop) for first, stop in pairs]
        for first, stop in ranges:
            assert await path.read(ref, first, stop) == data[first:stop], (first, stop)

    run_virtual(scenario())


def test_ranges_are_slices_with_two_bad_shards() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        data = payload(7 * STRIPE + 99)
        ref = (await path.write(data)).ref
        path.lose(ref, 1)
        corrupt(path, ref, 2)
        chosen = random.Random(7)
        for _ in range(80):
            first, stop = sorted(chosen.choices(range(len(data) + 1), k=2))
            assert await path.read(ref, first, stop) == data[first:stop], (first, stop)

    run_virtual(scenario())


def test_two_shards_of_one_blob_that_changed_places_are_erasures() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        data = payload(3 * STRIPE)
        ref = (await path.write(data)).ref
        first, second = path.shard(ref, 0), path.shard(ref, 3)
        path.replace(ref, 0, second)
        path.replace(ref, 3, first)
        assert await path.read(ref) == data
        assert {(ref.blob, 0), (ref.blob, 3)} <= set(path.reports)

    run_virtual(scenario())


def test_shards_of_another_blob_are_erasures() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        data = payload(3 * STRIPE)
        place = path.draw()
        ref = (await path.write(data, place=place)).ref
        foreign = (await path.write(payload(3 * STRIPE, seed=2))).ref
        for index in (1, 2):
            path.replace(ref, index, path.shard(foreign, index))
        assert await path.read(ref) == data
        path.replace(ref, 4, path.shard(foreign, 4))
        with pytest.raises(BlobUnreadable):
            await path.read(ref)

    run_virtual(scenario())


def test_every_shard_damaged_in_another_stripe_is_still_read() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        data = payload(6 * STRIPE)
        ref = (await path.write(data)).ref
        block = STRIPE // 4 + 8
        for index in range(6):
            path.flip(ref, index, 64 + index * block + 5)
        assert await path.read(ref) == data

    run_virtual(scenario())


def test_a_shard_that_is_moving_is_read_where_it_was() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        data = payload(3 * STRIPE)
        written = await path.write(data)
        ref, group = written.ref, written.group
        await move_slot(path, ref, 0, leave=group.nodes[0])
        for index in (2, 4):
            path.lose(ref, index)
        assert await path.read(ref) == data

    run_virtual(scenario())


def test_a_reader_with_an_old_placement_reads_the_record_again() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        data = payload(3 * STRIPE)
        written = await path.write(data)
        ref = written.ref
        other = await path.cluster.process()
        spares = [name for name in path.cluster.drives if name not in written.nodes]
        for index, spare in zip((0, 1), spares, strict=True):
            shard = path.drive(ref, index).shards.pop(path.name(ref, index))
            path.cluster.drives[spare].shards[path.name(ref, index)] = shard
            await move_slot(path, ref, index, to=spare)
        path.lose(ref, 2)
        pieces = [
            bytes(buffer)
            async for buffers in other.blobs.read(ref, 0, ref.size)
            for buffer in buffers
        ]
        assert b"".join(pieces) == data

    run_virtual(scenario())


async def move_slot(
    path: BlobPath, ref: BlobRef, index: int, *, to: str = "", leave: str = ""
) -> None:
    """Change a slot of the blob's group; this process learns it."""
    topology = path.process.topology
    group = topology.group_of(ref.profile, ref.blob)
    spare = to or next(name for name in path.cluster.drives if name not in group.nodes)
    slots = list(group.record.slots)
    slots[index] = Slot(spare, (leave,) if leave else ())
    record = PgRecord(group.record.revision + 1, tuple(slots))
    await path.process.kv.commit([], [Put(group.key, encode(record))])
    await topology.reread(group)
