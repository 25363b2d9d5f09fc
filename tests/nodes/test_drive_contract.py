"""What every drive does, local, over HTTP or in memory."""

from __future__ import annotations

import asyncio
import os

import pytest

from nodes.protocol import (
    Drive,
    DriveError,
    DriveRefused,
    ShardMissing,
    ShardName,
    StalePgRevision,
)
from tests.nodes.drives import Clock, make_shard

BLOB = bytes(range(16))
NAME = ShardName("rs-4+2", 7, BLOB, 3)
PAYLOAD_SIZES = [0, 1, 999, 1000, 1001, 200_000, 5_000_000]


async def write_in_pieces(drive: Drive, name: ShardName, buffers: list[bytes]) -> None:
    writer = drive.writer(name)
    for buffer in buffers:
        await writer.append([buffer])
    await writer.commit()


@pytest.mark.parametrize("size", PAYLOAD_SIZES)
async def test_a_whole_write_reads_back(drive: Drive, size: int) -> None:
    buffers = make_shard(NAME, os.urandom(size), 100_000 if size > 100_000 else 1000)
    whole = b"".join(buffers)
    await drive.write(NAME, buffers)
    assert await drive.read(NAME, 0, len(whole)) == whole
    assert await drive.size(NAME) == len(whole)
    assert (await drive.verify(NAME)).whole


@pytest.mark.parametrize("size", PAYLOAD_SIZES)
async def test_a_shard_written_in_pieces_reads_back(drive: Drive, size: int) -> None:
    buffers = make_shard(NAME, os.urandom(size), 100_000 if size > 100_000 else 1000)
    whole = b"".join(buffers)
    await write_in_pieces(drive, NAME, buffers)
    assert await drive.read(NAME, 0, len(whole)) == whole


async def test_buffers_may_be_views(drive: Drive) -> None:
    whole = b"".join(make_shard(NAME, b"x" * 5000))
    view = memoryview(bytearray(whole))
    await drive.write(NAME, [view[:100], view[100:]])
    assert await drive.read(NAME, 0, len(whole)) == whole


async def test_reads_are_cut_at_the_end_of_the_shard(drive: Drive) -> None:
    whole = b"".join(make_shard(NAME, b"x" * 5000))
    await drive.write(NAME, [whole])
    assert await drive.read(NAME, 100, 50) == whole[100:150]
    assert await drive.read(NAME, len(whole) - 5, 50) == whole[-5:]
    assert await drive.read(NAME, len(whole) + 5, 50) == b""


async def test_a_missing_shard_is_told_as_missing(drive: Drive) -> None:
    with pytest.raises(ShardMissing):
        await drive.read(NAME, 0, 10)
    with pytest.raises(ShardMissing):
        await drive.size(NAME)
    with pytest.raises(ShardMissing):
        await drive.verify(NAME)
    await drive.delete(NAME, 1)
    await drive.quarantine(NAME)
    assert await drive.list("rs-4+2", 7) == []


async def test_an_existing_shard_is_never_replaced(drive: Drive) -> None:
    first = make_shard(NAME, b"first" * 100)
    await drive.write(NAME, first)
    with pytest.raises(DriveRefused):
        await drive.write(NAME, make_shard(NAME, b"other" * 100))
    with pytest.raises(DriveRefused):
        await write_in_pieces(drive, NAME, make_shard(NAME, b"other" * 100))
    with pytest.raises(DriveRefused):
        await write_in_pieces(drive, NAME, make_shard(NAME, b"z" * 3_000_000, 100_000))
    assert await drive.read(NAME, 0, 10_000) == b"".join(first)


async def test_of_racing_writers_of_one_shard_one_wins(drive: Drive) -> None:
    shards = [make_shard(NAME, bytes([n]) * 3000) for n in range(8)]
    results = await asyncio.gather(*(drive.write(NAME, s) for s in shards), return_exceptions=True)
    winners = [n for n, result in enumerate(results) if result is None]
    assert len(winners) == 1
    assert all(isinstance(r, DriveRefused) for r in results if r is not None)
    assert await drive.read(NAME, 0, 10_000) == b"".join(shards[winners[0]])


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_an_aborted_write_leaves_nothing(drive: Drive, size: int) -> None:
    writer = drive.writer(NAME)
    for start in range(0, size, 100_000):
        await writer.append([b"x" * min(100_000, size - start)])
    await writer.abort()
    with pytest.raises(ShardMissing):
        await drive.size(NAME)
    assert await drive.list("rs-4+2", 7) == []


async def test_nothing_is_visible_before_the_commit(drive: Drive) -> None:
    writer = drive.writer(NAME)
    await writer.append(make_shard(NAME, b"x" * 3_000_000, 100_000))
    with pytest.raises(ShardMissing):
        await drive.size(NAME)
    await writer.commit()
    assert await drive.size(NAME) > 3_000_000


async def test_an_ended_writer_takes_nothing_more(drive: Drive) -> None:
    writer = drive.writer(NAME)
    await writer.append(make_shard(NAME, b"x"))
    await writer.commit()
    with pytest.raises(DriveError):
        await writer.commit()
    with pytest.raises(DriveError):
        await writer.append([b"x"])


async def test_listings_are_sorted_and_tell_sizes(drive: Drive) -> None:
    names = [ShardName("p", 1, os.urandom(16), index) for index in (2, 0, 254) for _ in range(5)]
    for name in names:
        await drive.write(name, make_shard(name, b"x" * 10))
    await drive.write(ShardName("p", 2, BLOB, 0), make_shard(ShardName("p", 2, BLOB, 0), b""))
    listed = [(entry.blob, entry.index) for entry in await drive.list("p", 1)]
    assert listed == sorted((name.blob, name.index) for name in names)
    entry = (await drive.list("p", 2))[0]
    assert entry.bytes_stored == await drive.size(ShardName("p", 2, BLOB, 0))


async def test_age_counts_from_the_first_listing(drive: Drive, clock: Clock) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    assert (await drive.list("rs-4+2", 7))[0].age_seconds == 0
    clock.now += 100
    other = ShardName("rs-4+2", 7, bytes(16), 0)
    await drive.write(other, make_shard(other, b"x"))
    assert [e.age_seconds for e in await drive.list("rs-4+2", 7)] == [0, 100]


async def test_a_deleted_shard_is_gone(drive: Drive) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    await drive.delete(NAME, 1)
    with pytest.raises(ShardMissing):
        await drive.read(NAME, 0, 1)
    await drive.delete(NAME, 1)


async def test_a_delete_below_the_shown_revision_is_refused(drive: Drive) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    await drive.show_pg_revision("rs-4+2", 7, 5)
    await drive.show_pg_revision("rs-4+2", 7, 3)
    with pytest.raises(StalePgRevision) as caught:
        await drive.delete(NAME, 4)
    assert caught.value.seen == 5
    assert await drive.size(NAME)
    await drive.show_pg_revision("rs-4+2", 8, 9)
    await drive.delete(NAME, 5)


async def test_a_delete_shows_its_own_revision(drive: Drive) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    await drive.delete(ShardName("rs-4+2", 7, bytes(16), 0), 9)
    with pytest.raises(StalePgRevision):
        await drive.delete(NAME, 8)


async def test_a_quarantined_shard_reads_as_missing_and_can_be_rebuilt(drive: Drive) -> None:
    for _ in range(3):
        await drive.write(NAME, make_shard(NAME, b"x"))
        await drive.quarantine(NAME)
        with pytest.raises(ShardMissing):
            await drive.read(NAME, 0, 1)
    assert await drive.list("rs-4+2", 7) == []


@pytest.mark.parametrize(
    "name",
    [
        ShardName("../../etc", 0, BLOB, 0),
        ShardName("p", -1, BLOB, 0),
        ShardName("p", 65_536, BLOB, 0),
        ShardName("p", 0, BLOB, 255),
        ShardName("p", 0, b"short", 0),
        ShardName("..", 0, BLOB, 0),
        ShardName("P", 0, BLOB, 0),
        ShardName("a\n", 0, BLOB, 0),
    ],
)
async def test_a_malformed_name_is_refused(drive: Drive, name: ShardName) -> None:
    with pytest.raises(DriveRefused):
        await drive.read(name, 0, 1)
    with pytest.raises(DriveRefused):
        await drive.write(name, [b"x"])
    with pytest.raises(DriveRefused):
        await drive.delete(name, 1)


async def test_statistics_name_the_drive(drive: Drive) -> None:
    stats = await drive.stats()
    assert (stats.store_id, stats.drive_id, stats.writable) == ("store", "d1", True)
    assert 0 < stats.free_bytes <= stats.capacity_bytes


async def test_many_at_once(drive: Drive) -> None:
    names = [ShardName("p", n % 5, os.urandom(16), 0) for n in range(100)]
    shards = [make_shard(name, os.urandom(2000)) for name in names]
    await asyncio.gather(*(drive.write(n, s) for n, s in zip(names, shards, strict=True)))
    read = await asyncio.gather(*(drive.read(name, 0, 10_000) for name in names))
    assert read == [b"".join(shard) for shard in shards]
