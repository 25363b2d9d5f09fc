"""A local reconstruction code on the data path: reads and rebuilds with any shards that suffice,
and what a rebuild reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fractions import Fraction
from itertools import combinations

import pytest

from nodes.memory import Fault
from nodes.protocol import ShardName
from s3gw.cluster.founding import profile_name
from s3gw.cluster.reader import BlobUnreadable
from s3gw.metadata.records import BlobRef
from tests.stores.blob_path import STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

LRC = "8+4/2"
NAME = profile_name(LRC)
Read = Callable[[ShardName, int, int], Awaitable[bytes]]
STRIPES = 4
FRAGMENT = STRIPE // 8
CHECKSUM = 8


def count_reads(path: BlobPath) -> list[tuple[int, int]]:
    """Shard index and bytes of every read of blocks from now on."""
    reads: list[tuple[int, int]] = []
    for drive in path.cluster.drives.values():
        plain = drive.read

        async def read(name: ShardName, offset: int, length: int, plain: Read = plain) -> bytes:
            data = await plain(name, offset, length)
            if length == FRAGMENT + CHECKSUM:
                reads.append((name.index, length))
            return data

        drive.read = read  # type: ignore[method-assign]
    return reads


async def rebuild_each(scheme: str) -> list[Fraction]:
    """Bytes read per byte of the shard rebuilt, by shard."""
    path = await BlobPath.open(14, scheme=scheme)
    ref = (await path.write(payload(STRIPES * STRIPE), profile=profile_name(scheme))).ref
    reads = count_reads(path)
    costs = []
    for index in range(12 if scheme == LRC else 11):
        before = path.shard(ref, index)
        path.lose(ref, index)
        reads.clear()
        _, nodes, _ = path.process.topology.location(ref)
        assert await path.process.blobs.rebuild_shard(ref, index, nodes[index])
        assert path.shard(ref, index) == before
        assert index not in {shard for shard, _ in reads}
        costs.append(Fraction(sum(size for _, size in reads), STRIPES * (FRAGMENT + CHECKSUM)))
    return costs


def test_rebuilding_a_shard_reads_its_local_group_and_half_of_what_8_3_reads() -> None:
    async def scenario() -> None:
        local = await rebuild_each(LRC)
        assert local == [4] * 8 + [8, 8] + [4, 4]
        plain = await rebuild_each("8+3")
        assert plain == [8] * 11
        assert round(float(sum(local) / 12), 2) == 4.67
        assert sum(plain) / 11 == 8

    run_virtual(scenario())


@pytest.mark.parametrize("size", [1, STRIPE - 1, 2 * STRIPE + 5])
def test_every_loss_of_three_shards_is_read(size: int) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12, scheme=LRC)
        data = payload(size)
        ref = (await path.write(data, profile=NAME)).ref
        for lost in combinations(range(12), 3):
            await with_losses(path, ref, lost, data)

    run_virtual(scenario())


async def with_losses(path: BlobPath, ref: BlobRef, lost: tuple[int, ...], data: bytes) -> None:
    kept = {index: path.shard(ref, index) for index in lost}
    for index in lost:
        path.lose(ref, index)
    assert await path.read(ref) == data, lost
    for index, shard in kept.items():
        path.replace(ref, index, shard)


def test_losses_of_four_shards_are_read_where_they_decode_and_refused_elsewhere() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12, scheme=LRC)
        data = payload(STRIPE + 77)
        ref = (await path.write(data, profile=NAME)).ref
        scheme, _, _ = path.process.topology.location(ref)
        refused = 0
        for lost in combinations(range(12), 4):
            if scheme.decodable(set(range(12)) - set(lost)):
                await with_losses(path, ref, lost, data)
                continue
            refused += 1
            with pytest.raises(BlobUnreadable):
                await with_losses(path, ref, lost, data)
            for index in lost:
                path.replace(ref, index, await shard_again(path, data, index, ref))
        assert refused == 70

    run_virtual(scenario())


async def shard_again(path: BlobPath, data: bytes, index: int, ref: BlobRef) -> bytes:
    """A shard as it was, from the same bytes written under the same id elsewhere."""
    other = await BlobPath.open(12, scheme=LRC)
    group = other.process.topology.group_of(ref.profile, ref.blob)
    again = (await other.write(data, profile=NAME, place=(ref.blob, group))).ref
    return other.shard(again, index)


def test_a_range_in_a_lost_shard_is_read_from_its_group_alone() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12, scheme=LRC)
        data = payload(STRIPES * STRIPE)
        ref = (await path.write(data, profile=NAME)).ref
        path.lose(ref, 5)
        reads = count_reads(path)
        first = STRIPE + 5 * FRAGMENT + 3
        assert await path.read(ref, first, first + 100) == data[first : first + 100]
        assert {shard for shard, _ in reads} == {4, 6, 7, 11}

    run_virtual(scenario())


def test_a_range_in_a_late_shard_is_hedged_with_its_group_alone() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12, scheme=LRC)
        data = payload(STRIPES * STRIPE)
        ref = (await path.write(data, profile=NAME)).ref
        path.drive(ref, 5).inject(Fault(hang=True))
        reads = count_reads(path)
        first = STRIPE + 5 * FRAGMENT + 3
        assert await path.read(ref, first, first + 100) == data[first : first + 100]
        assert {shard for shard, _ in reads} == {4, 6, 7, 11}

    run_virtual(scenario())


def test_with_nodes_missing_it_is_written_as_reed_solomon_of_the_same_tolerance() -> None:
    async def scenario() -> None:
        for live, scheme in ((11, "8+3"), (10, "7+3"), (4, "1+3")):
            path = await BlobPath.open(12, scheme=LRC)
            for name in list(path.cluster.drives)[live:]:
                node = path.process.directory.get(name)
                assert node is not None
                node.live = False
            data = payload(2 * STRIPE + 9)
            written = await path.write(data, profile=NAME)
            assert (written.ref.scheme, written.missing) == (scheme, ())
            assert await path.read(written.ref) == data

    run_virtual(scenario())
