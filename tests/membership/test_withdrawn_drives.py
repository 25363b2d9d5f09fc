"""A drive of a node that does not work is withdrawn from registration; the others stay."""

from __future__ import annotations

import pytest

from nodes.memory import MemoryDrive
from s3gw.cluster.directory import Node
from s3gw.cluster.epochs import registered
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import NodeIdTaken, NonceUnavailable, Registration
from s3gw.kv.interface import Put, Unavailable
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.records import NodeRecord, encode
from tests.nodes.drives import Clock

TTL = 15


class Process:
    """A node process with the drives a and b, registered."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.kv = MemoryKV(MemoryStore(self.clock))
        self.lease = ProcessLease(self.kv, ttl_seconds=TTL, heartbeat_seconds=5, clock=self.clock)
        self.nonces = 0
        self.fails: dict[str, Exception] = {}
        records = {name: record() for name in ("a", "b")}
        self.registration = Registration(self.kv, self.lease, records, self.next_nonce)

    async def next_nonce(self, node_id: str, registered: str | None) -> str:
        if node_id in self.fails:
            raise self.fails[node_id]
        self.nonces += 1
        return f"nonce-{self.nonces}"

    async def start(self) -> Process:
        await self.lease.take()
        await self.registration.register()
        return self

    async def turn(self, drive: str, *, up: bool) -> None:
        await self.registration.drive_changed(Node(drive, "z", MemoryDrive(drive_id=drive)), up)

    async def registered(self) -> set[str]:
        return await registered(self.kv)


def record(nonce: str = "") -> NodeRecord:
    return NodeRecord("127.0.0.1:1", "z", "h", 1, 1, nonce, "0", 0)


@pytest.fixture
async def process() -> Process:
    return await Process().start()


async def test_a_drive_goes_and_comes_back_alone(process: Process) -> None:
    await process.turn("a", up=False)
    assert await process.registered() == {"b"}
    assert process.registration.writes_allowed()
    await process.turn("a", up=True)
    assert await process.registered() == {"a", "b"}


async def test_a_withdrawn_drive_stays_so_under_the_next_lease(process: Process) -> None:
    await process.turn("a", up=False)
    process.clock.now += TTL + 1
    await process.lease.renew()
    await process.registration.register()
    assert await process.registered() == {"b"}
    await process.turn("a", up=True)
    assert await process.registered() == {"a", "b"}
    process.clock.now += TTL + 1
    assert await process.registered() == set()  # it came back under the lease, not for ever


@pytest.mark.parametrize("up", [False, True])
async def test_what_the_engine_does_not_take_is_settled_later(
    process: Process, up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if up:
        await process.turn("a", up=False)

    async def away(*arguments: object) -> int:
        raise Unavailable("away")

    monkeypatch.setattr(process.kv, "commit", away)
    await process.turn("a", up=up)
    monkeypatch.undo()
    assert ("a" in await process.registered()) is not up
    await process.registration.settle()
    assert ("a" in await process.registered()) is up


async def test_a_drive_that_fails_while_it_is_registered_again_is_withdrawn_in_the_end(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.turn("a", up=False)
    commit = process.kv.commit

    async def slow(guards: object, writes: object) -> int:
        monkeypatch.undo()
        await process.turn("a", up=False)
        return await commit(guards, writes)  # type: ignore[arg-type]

    monkeypatch.setattr(process.kv, "commit", slow)
    await process.turn("a", up=True)
    await process.registration.settle()
    assert await process.registered() == {"b"}


async def test_the_record_of_another_process_is_left_alone(process: Process) -> None:
    await process.kv.commit([], [Put(keys.node("a"), encode(record("another")))])
    await process.turn("a", up=False)
    assert await process.registered() == {"a", "b"}


async def test_a_drive_that_another_process_has_by_now_stays_withdrawn(process: Process) -> None:
    await process.turn("a", up=False)
    process.fails["a"] = NodeIdTaken("a copy was started since")
    await process.turn("a", up=True)
    del process.fails["a"]
    await process.registration.settle()
    assert await process.registered() == {"b"}


async def test_a_drive_whose_id_file_fails_is_registered_when_it_can_be_written(
    process: Process,
) -> None:
    await process.turn("a", up=False)
    process.fails["a"] = NonceUnavailable("EIO")
    await process.turn("a", up=True)
    assert await process.registered() == {"b"}
    del process.fails["a"]
    await process.registration.settle()
    assert await process.registered() == {"a", "b"}
