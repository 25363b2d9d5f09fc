"""Leases, deadlines, unreachable nodes, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from nodes import wire
from nodes.auth import Signer
from nodes.client import Deadlines, RemoteDrive, open_session
from nodes.memory import Fault, MemoryDrive
from nodes.protocol import (
    DriveError,
    DriveFull,
    DriveUnreachable,
    ShardMissing,
    ShardName,
)
from nodes.store import LocalDrive
from tests.nodes.drives import SECRET, make_shard, remote, serving

NAME = ShardName("p", 1, bytes(range(16)), 2)


class Lease:
    """Writes are allowed so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def writes_allowed(self) -> bool:
        self.times -= 1
        return self.times >= 0


@pytest.mark.parametrize("times", [0, 1])
@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_node_whose_lease_may_have_ended_refuses_writes_and_serves_reads(
    times: int, size: int
) -> None:
    drive = MemoryDrive()
    other = ShardName("p", 1, bytes(16), 0)
    drive.shards[other] = b"there"
    async with remote(drive, Lease(times)) as client:
        with pytest.raises(DriveError):
            await client.write(NAME, make_shard(NAME, b"x" * size, 100_000))
        assert await client.read(other, 0, 10) == b"there"
    assert NAME not in drive.shards


async def test_a_refused_connection_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with open_session() as session:
        client = RemoteDrive(session, f"http://127.0.0.1:{port}", "d1", SECRET)
        with pytest.raises(DriveUnreachable):
            await client.read(NAME, 0, 1)
        writer = client.writer(NAME)
        with pytest.raises(DriveUnreachable):
            for _ in range(10):
                await writer.append([b"x" * 1_000_000])
                await asyncio.sleep(0)
            await writer.commit()
        await writer.abort()


@pytest.mark.parametrize("operation", ["read", "write", "size", "stats", "list"])
async def test_a_node_that_hangs_is_given_up_at_the_deadline(operation: str) -> None:
    drive = MemoryDrive()
    drive.inject(Fault(hang=True), operation)
    calls = {
        "read": lambda c: c.read(NAME, 0, 1),
        "write": lambda c: c.write(NAME, make_shard(NAME, b"x")),
        "size": lambda c: c.size(NAME),
        "stats": lambda c: c.stats(),
        "list": lambda c: c.list("p", 1),
    }
    async with remote(drive, total_seconds=0.1) as client:
        with pytest.raises(DriveError) as caught:
            await calls[operation](client)
        assert "deadline" in str(caught.value)
        drive.heal()


async def test_a_writer_whose_node_stops_reading_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, never reads
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with open_session() as session:
            client = RemoteDrive(session, url, "d1", SECRET, deadlines=Deadlines(total=0.1))
            writer = client.writer(NAME)
            with pytest.raises(DriveError):
                for _ in range(100):
                    await writer.append([b"x" * 1_000_000])
            await writer.abort()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (DriveFull("full"), DriveFull),
        (DriveError("input/output error"), DriveError),
        (ShardMissing("gone"), ShardMissing),
    ],
)
@pytest.mark.parametrize("operation", ["read", "size"])
async def test_errors_arrive_as_what_they_were(
    raised: Exception, expected: type[Exception], operation: str
) -> None:
    drive = MemoryDrive()
    drive.inject(Fault(error=raised), operation)
    async with remote(drive) as client:
        with pytest.raises(expected) as caught:
            if operation == "read":
                await client.read(NAME, 0, 1)
            else:
                await client.size(NAME)
        assert type(caught.value) is expected


async def test_an_answer_that_is_not_the_protocols_is_a_drive_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(answers))
        await writer.drain()
        writer.close()

    answers = iter(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nabc",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nabc",
        ]
    )
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_session() as session:
        client = RemoteDrive(session, url, "d1", SECRET)
        for _ in range(4):
            with pytest.raises(DriveError):
                await client.list("p", 1)


async def test_a_cancelled_write_leaves_nothing_on_the_node(local: LocalDrive) -> None:
    async with remote(local) as client:
        writer = client.writer(NAME)
        for _ in range(30):
            await writer.append([b"x" * 100_000])
        commit = asyncio.create_task(writer.commit())
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        with pytest.raises(ShardMissing):
            await local.size(NAME)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_clients_that_go_away_in_mid_body_leave_no_file_and_no_descriptor(
    local: LocalDrive, tmp_path: Path
) -> None:
    whole = b"".join(make_shard(NAME, b"z" * 400_000, 100_000))
    async with serving({"d1": local}) as url:
        async with open_session() as session, session.get(url + "/health") as response:
            await response.read()
        port = int(url.rpartition(":")[2])
        before, tasks = descriptors(), len(asyncio.all_tasks())
        for n in range(40):
            target = wire.shard_target("d1", NAME)
            head = (
                f"PUT {target} HTTP/1.1\r\nHost: n\r\nContent-Length: {len(whole)}\r\n"
                f"Authorization: {Signer(SECRET).sign('PUT', target, len(whole))}\r\n\r\n"
            ).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + whole[: n * 10_000])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while descriptors() > before or len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.01)
        with pytest.raises(ShardMissing):
            await local.size(NAME)
    assert os.listdir(tmp_path / "drive" / "tmp") == []


async def test_requests_in_sequence_do_not_wait_for_delayed_acknowledgements() -> None:
    drive = MemoryDrive()
    drive.shards[NAME] = b"x" * 5000
    loop = asyncio.get_running_loop()
    async with remote(drive) as client:
        await client.read(NAME, 0, 10)
        waits = []
        for _ in range(30):
            start = loop.time()
            await client.read(NAME, 0, 5000)
            waits.append(loop.time() - start)
    # Nagle against delayed acknowledgement costs 40 ms in each request.
    assert sorted(waits)[len(waits) // 2] < 0.03


async def test_a_hung_request_ends_when_its_caller_gives_up() -> None:
    drive = MemoryDrive()
    drive.inject(Fault(hang=True), "read")
    async with remote(drive) as client:
        task = asyncio.create_task(client.read(NAME, 0, 1))
        while not drive.calls:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        drive.heal()
