"""Writing while nodes are dead, die, or stall: full redundancy, less, or an honest refusal."""

from __future__ import annotations

from itertools import combinations

import pytest

from nodes.memory import Fault
from nodes.protocol import DriveError, DriveFull, DriveUnreachable
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.writer import NotWritten
from tests.stores.blob_path import STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

REFUSED = Fault(error=DriveUnreachable("refused"))
DATA = payload(3 * STRIPE + 17)
PAIRS = list(combinations(range(6), 2))
SMALL = "4+2.small"


def holders(path: BlobPath, blob: bytes) -> dict[int, str]:
    """Which node holds which shard of a blob."""
    return {
        name.index: node
        for node, drive in path.cluster.drives.items()
        for name in drive.shards
        if name.blob == blob
    }


async def check_full(path: BlobPath, data: bytes, written, lost: int) -> None:  # type: ignore[no-untyped-def]
    """All shards are on nodes of their own, and any `lost` of them may go."""
    ref = written.ref
    held = holders(path, ref.blob)
    scheme = written.scheme
    assert len(held) == scheme.width == len(set(held.values()))
    for gone in combinations(range(scheme.width), lost):
        path.heal()
        path.fail([held[index] for index in gone], REFUSED)
        assert await path.read(ref) == data
    path.heal()


@pytest.mark.parametrize("dead", PAIRS)
def test_with_any_two_nodes_dead_before_the_write_a_blob_is_whole(dead: tuple[int, int]) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw()
        names = [group.nodes[index] for index in dead]
        path.fail(names, REFUSED)
        written = await path.write(DATA, place=(blob, group))
        assert set(names).isdisjoint(written.nodes)
        assert written.ref.nodes == written.nodes
        assert not written.missing
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


@pytest.mark.parametrize("call", ["append", "commit"])
@pytest.mark.parametrize("dead", PAIRS)
def test_any_two_nodes_that_fail_in_the_middle_are_made_up_for(
    dead: tuple[int, int], call: str
) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw()
        writer = path.process.blobs.open_writer(blob, group)
        await writer.write(DATA[:STRIPE])
        path.fail([group.nodes[index] for index in dead], REFUSED, call)
        for first in range(STRIPE, len(DATA), STRIPE):
            await writer.write(DATA[first : first + STRIPE])
        written = await path.process.blobs.complete(await writer.finish(b"\x80"), b"\x80")
        assert not written.missing
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


@pytest.mark.parametrize("dead", list(combinations(range(3), 2)))
def test_small_blobs_go_around_any_two_dead_nodes(dead: tuple[int, int]) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw(SMALL)
        path.fail([group.nodes[index] for index in dead], REFUSED)
        written = await path.write(b"small", profile=SMALL, place=(blob, group))
        await check_full(path, b"small", written, 2)

    run_virtual(scenario())


@pytest.mark.parametrize(("live", "scheme"), [(5, "3+2"), (4, "2+2"), (3, "1+2")])
def test_with_fewer_nodes_than_shards_the_blob_is_narrowed(live: int, scheme: str) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        for node in list(path.process.directory.all())[live:]:
            node.live = False
        written = await path.write(DATA)
        assert written.ref.scheme == scheme
        assert not written.missing
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


def test_with_fewer_than_three_live_nodes_nothing_is_written() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        for node in list(path.process.directory.all())[2:]:
            node.live = False
        with pytest.raises(TooFewNodes):
            await path.write(DATA)
        assert not any(drive.shards for drive in path.cluster.drives.values())

    run_virtual(scenario())


def test_without_a_spare_node_one_lost_in_the_write_leaves_a_reduced_blob() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        blob, group = path.draw()
        path.fail([group.nodes[4]], REFUSED, "commit")
        written = await path.write(DATA, place=(blob, group))
        assert written.missing == (4,)
        assert written.ref.nodes[4] == ""
        for gone in (0, 1, 2, 3, 5):
            path.heal()
            path.fail([group.nodes[gone]], REFUSED)
            assert await path.read(written.ref) == DATA

    run_virtual(scenario())


def test_without_a_spare_node_two_lost_in_the_write_make_a_narrowed_blob() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        blob, group = path.draw()
        path.fail([group.nodes[0], group.nodes[5]], REFUSED, "commit")
        written = await path.write(DATA, place=(blob, group))
        assert written.ref.blob != blob
        assert written.ref.scheme == "2+2"
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


@pytest.mark.parametrize("call", ["append", "commit"])
def test_with_too_few_nodes_left_in_the_write_it_fails(call: str) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        blob, group = path.draw()
        path.fail(group.nodes[:3], REFUSED, call)
        with pytest.raises(NotWritten):
            await path.write(DATA, place=(blob, group))

    run_virtual(scenario())


def test_a_node_that_hangs_is_left_behind_after_the_stall_deadline() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw()
        path.fail([group.nodes[1]], Fault(hang=True), "append")
        clock = path.cluster.clock
        started = clock.monotonic()
        written = await path.write(DATA, place=(blob, group))
        assert clock.monotonic() - started < 15
        assert not written.missing
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


def test_a_full_drive_is_written_around_and_still_read() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        before = await path.write(DATA)
        full = before.group.nodes[0]
        path.fail([full], Fault(error=DriveFull("full")), "append", "write", "commit")
        after = await path.write(DATA, place=path.draw())
        assert full not in after.nodes
        assert await path.read(before.ref) == DATA
        assert await path.read(after.ref) == DATA
        assert path.process.directory.usable(full)

    run_virtual(scenario())


def test_an_io_error_of_one_drive_does_not_reach_the_client() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw()
        path.fail([group.nodes[2]], Fault(error=DriveError("EIO"), times=1), "append")
        written = await path.write(DATA, place=(blob, group))
        await check_full(path, DATA, written, 2)

    run_virtual(scenario())


@pytest.mark.parametrize("scheme", ["2+1", "8+3"])
def test_other_schemes_go_around_dead_nodes_too(scheme: str) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12, scheme=scheme)
        profile = path.process.profile(scheme)
        blob, group = path.draw(scheme)
        path.fail(group.nodes[:1], REFUSED)
        written = await path.write(DATA, place=(blob, group))
        await check_full(path, DATA, written, profile.scheme.tolerance)

    run_virtual(scenario())
