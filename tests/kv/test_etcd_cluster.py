"""The etcd engine on three members, some of which fail."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import At, Conflict, EventKind, Put, Unavailable
from tests.kv.etcd_server import EtcdCluster

RESUME_SECONDS_MAX = 5
WAIT_SECONDS_MAX = 30
WRITERS = 8


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster() as running:
        yield running


@pytest.fixture
async def engine(cluster: EtcdCluster) -> AsyncIterator[EtcdKV]:
    # A follower forwards what it is sent to a leader that is dead until it notices; such commits
    # are never answered and end with the deadline. All writers of a test may be caught in one.
    connected = await EtcdKV.connect(cluster.urls, deadline_seconds=2)
    yield connected
    await connected.close()


class Counting:
    """Writers that each count up a key of their own, and what they know of each commit."""

    def __init__(self, engine: EtcdKV) -> None:
        self.engine = engine
        self.acknowledged = dict.fromkeys((b"count/%d" % n for n in range(WRITERS)), 0)
        self.last_at = 0.0
        self.total = 0
        self.unknown = 0
        self._done = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._count(key)) for key in self.acknowledged]

    async def reached(self, total: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while self.total < total:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._done = True
        await asyncio.gather(*self._tasks)

    async def _count(self, key: bytes) -> None:
        while not self._done:
            with contextlib.suppress(Unavailable):
                await self._count_on(key)

    async def _count_on(self, key: bytes) -> None:
        """Count from what is stored; it is never below what was acknowledged."""
        (item,) = (await self.engine.get_many([key])).items
        value, revision = (int(item.value), item.revision) if item else (0, 0)
        assert value >= self.acknowledged[key]
        while not self._done:
            value += 1
            try:
                revision = await self.engine.commit([At(key, revision)], [Put(key, b"%d" % value)])
            except Unavailable:
                self.unknown += 1
                raise
            except Conflict:  # only a commit of unknown outcome that was applied late explains it
                assert self.unknown
                return
            self.acknowledged[key] = value
            self.total += 1
            self.last_at = time.monotonic()


async def test_writes_resume_after_the_leader_is_killed_and_none_is_lost(
    cluster: EtcdCluster, engine: EtcdKV
) -> None:
    counting = Counting(engine)
    counting.start()
    await counting.reached(200)
    leader = await asyncio.to_thread(cluster.leader)
    await asyncio.to_thread(leader.kill)
    killed_at, before = time.monotonic(), counting.total
    await counting.reached(before + 100)
    assert time.monotonic() - killed_at < RESUME_SECONDS_MAX
    await counting.stop()
    for key, acknowledged in counting.acknowledged.items():
        (item,) = (await engine.get_many([key])).items
        assert item is not None
        assert int(item.value) >= acknowledged
    for member in cluster.members:
        member.kill()
    for member in cluster.members:
        member.launch()
    for member in cluster.members:
        await asyncio.to_thread(member.wait_ready)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        for key, acknowledged in counting.acknowledged.items():
            while True:
                with contextlib.suppress(Unavailable):
                    (item,) = (await engine.get_many([key])).items
                    break
            assert item is not None
            assert int(item.value) >= acknowledged


async def test_a_new_leader_is_noticed_by_who_asks_only_a_follower(cluster: EtcdCluster) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    follower = next(member for member in cluster.members if member is not leader)
    engine = await EtcdKV.connect([follower.url], deadline_seconds=WAIT_SECONDS_MAX)
    try:
        await engine.get_many([b"key"])
        assert engine.disturbances == 0
        await asyncio.to_thread(leader.kill)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not engine.disturbances:
                with contextlib.suppress(Unavailable):
                    await engine.get_many([b"key"])
        assert engine._endpoints._term >= 2
    finally:
        await engine.close()


async def test_a_watch_and_a_lease_outlive_the_member_that_served_them(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda count: 0)
    engine = await EtcdKV.connect(cluster.urls)
    lease = await engine.grant_lease(60)
    before = await engine.commit([], [Put(b"w/held", b"", lease)])
    events = cast("Any", engine.watch(b"w/", after_revision=before - 1))
    async with aclosing(events), asyncio.timeout(WAIT_SECONDS_MAX):
        assert (await anext(events)).revision == before
        cluster.members[0].kill()
        revision = 0
        while not revision:
            with contextlib.suppress(Unavailable):
                await engine.renew_lease(lease)
                revision = await engine.commit([], [Put(b"w/next", b"")])
        kinds = []
        while (event := await anext(events)).kind is EventKind.RELIST:
            kinds.append(event.kind)
        assert kinds
        assert (event.key, event.revision) == (b"w/next", revision)
    await engine.close()


async def test_reads_pass_over_a_member_that_does_not_answer(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    follower = next(member for member in cluster.members if member is not leader)
    monkeypatch.setattr(secrets, "randbelow", lambda count: 0)
    urls = [follower.url, *(member.url for member in cluster.members if member is not follower)]
    engine = await EtcdKV.connect(urls, deadline_seconds=1.5)
    revision = await engine.commit([], [Put(b"key", b"1")])
    follower.pause()
    start = time.monotonic()
    reading = await engine.get_many([b"key"])
    assert time.monotonic() - start < 1.5
    assert [item.revision if item else 0 for item in reading.items] == [revision]
    assert await engine.commit([At(b"key", revision)], [Put(b"key", b"2")]) > revision
    await engine.close()


async def test_a_member_without_a_majority_commits_nothing_until_it_has_one(
    cluster: EtcdCluster,
) -> None:
    alone, *others = cluster.members
    engine = await EtcdKV.connect([alone.url], deadline_seconds=2)
    revision = await engine.commit([], [Put(b"key", b"0")])
    for member in others:
        member.kill()
    with pytest.raises(Unavailable):
        await engine.get_many([b"key"])
    with pytest.raises(Unavailable):
        await engine.commit([At(b"key", revision)], [Put(b"key", b"1")])
    await asyncio.to_thread(others[0].start)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            try:
                assert await engine.commit([At(b"key", revision)], [Put(b"key", b"1")]) > revision
            except Unavailable:
                continue
            except Conflict:  # the first sending was applied once there was a majority
                (item,) = (await engine.get_many([b"key"])).items
                assert item is not None
                assert item.value == b"1"
            break
    await engine.close()
