"""Reading all keys: every key once, in order, as of the revision, at a cost of what is there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from s3gw.kv.interface import Delete, Page, Put
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.everything import Steps, all_keys
from s3gw.metadata.records import Count
from s3gw.metadata.store import Transaction
from s3gw.rescue.snapshot import EVERYTHING
from tests.stores.memory_store import MemoryCluster, Process

LIMIT = 50


class CostlyKV(MemoryKV):
    """An engine whose ranges cost what is in them."""

    range_costs_its_size = True
    costs: list[int]

    async def scan(self, start: bytes, end: bytes, **more: Any) -> Page:
        self.costs.append(sum(start <= key < end for key in self._store.items))
        return await super().scan(start, end, **more)


@pytest.fixture
async def process() -> Process:
    cluster = MemoryCluster()
    await cluster.found()
    engine = CostlyKV(cluster.engine)
    engine.costs = []
    return await cluster.process(engine)


def costs(process: Process) -> list[int]:
    assert isinstance(process.kv, CostlyKV)
    return process.kv.costs


async def fill(process: Process, *, seed: int, most: int) -> None:
    """Keys of all kinds: many of some, none of others, with text and random bytes and times."""
    chance = random.Random(seed)

    def amount() -> int:
        return chance.choice([0, 1, most // 10, most])

    def name() -> str:
        return "folder/" * chance.randrange(3) + f"{chance.randrange(10**7):07}\x00é"

    def blob() -> bytes:
        return chance.randbytes(16)

    now = 1_900_000_000_000
    made: list[Callable[[], bytes]] = [
        lambda: keys.reference("4+2", chance.randrange(8), blob(), b"obucket/x"),
        lambda: keys.reference("4+2.small", chance.randrange(256), blob(), b"obucket/x"),
        lambda: keys.garbage(now + chance.randrange(3_600_000), blob(), b"oholder"),
        lambda: keys.part(blob(), chance.randrange(1, 9)),
        lambda: keys.manifest_holder(blob(), b"obucket/x"),
        lambda: keys.repair(5, "4+2", chance.randrange(8), blob()),
        lambda: keys.count("4+2", chance.randrange(8), name()[:20]),
        lambda: keys.NAMES + b"bucket/" + keys.ended(name()) + chance.randbytes(8),
        lambda: keys.identity_user(f"user{chance.randrange(10**6)}"),
        lambda: b"\x01" + blob() * 200,
        lambda: b"\xfe" * chance.randrange(1, 3000),
    ]
    listed: list[Callable[[], bytes]] = [
        lambda: keys.object_("bucket", name()),
        lambda: keys.version("bucket", name(), chance.randrange(100)),
        lambda: keys.upload("bucket", name(), blob()),
    ]
    kv, store = process.kv, process.storage.store
    for make in made:
        for key in {make() for _ in range(amount())}:
            await kv.commit([], [Put(key, b"value")])
    for make in listed:
        for key in {make() for _ in range(amount())}:
            tx = Transaction()
            store.put_listed(tx, key, Count())
            await kv.commit([], list(tx.writes.values()))


@pytest.mark.parametrize("seed", range(6))
async def test_every_key_is_read_once_and_in_order(
    process: Process, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FENCE_INTERVAL", 20)
    await fill(process, seed=seed, most=200)
    items = process.cluster.engine.items
    wanted = {key: item.value for key, item in items.items()}
    revision = (await process.kv.get_many([keys.STORE])).revision
    # What is written and removed afterwards is not of that revision.
    for key in random.Random(seed).sample(sorted(wanted), 20):
        await process.kv.commit([], [Delete(key)])
    await process.kv.commit([], [Put(keys.object_("bucket", "later"), b"")])
    pages = all_keys(process.storage.store, *EVERYTHING, revision=revision, limit=LIMIT)
    found = []
    async for page in pages:
        assert len(page) <= LIMIT
        found += [(item.key, item.value) for item in page]
    plain = {key: value for key, value in wanted.items() if not key.startswith(keys.FENCES)}
    assert found == sorted(plain.items())


async def test_a_part_of_the_keys(process: Process) -> None:
    await fill(process, seed=1, most=100)
    revision = (await process.kv.get_many([keys.STORE])).revision
    start, end = keys.COUNTS, keys.NAMES
    pages = all_keys(process.storage.store, start, end, revision=revision, limit=LIMIT)
    found = [item.key async for page in pages for item in page]
    wanted = [key for key in process.cluster.engine.items if start <= key < end]
    assert found == sorted(key for key in wanted if not key.startswith(keys.FENCES))


async def test_it_costs_what_is_there(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not, for each page, all that is left."""
    monkeypatch.setattr(keys, "FENCE_INTERVAL", 20)
    for seed in (11, 12, 13):
        await fill(process, seed=seed, most=2000)
    revision = (await process.kv.get_many([keys.STORE])).revision
    many = len(process.cluster.engine.items)
    assert many > 10_000
    costs(process).clear()
    pages = all_keys(process.storage.store, *EVERYTHING, revision=revision, limit=LIMIT)
    read = [len(page) async for page in pages]
    assert sum(read) > 10_000
    assert sum(costs(process)) < 8 * many
    assert len(costs(process)) < 3 * many / LIMIT + 1500
    assert max(costs(process)) < many / 2


async def test_rounds_over_a_range_cost_what_is_in_it(process: Process) -> None:
    """An empty queue is looked at all the time: soon by one read. A long one is never read to its
    end for each page, but once for a round that follows an empty one."""
    steps = Steps(process.kv, keys.NAMES, keys.after_prefix(keys.NAMES))
    for _ in range(2):
        costs(process).clear()
        assert list(await steps.next(LIMIT)) == []
        assert steps.ended
        steps.restart()
    assert costs(process) == [0]
    chance = random.Random(1)
    wanted = sorted(
        keys.noted_name("bucket", f"{chance.randrange(10**9)}", number) for number in range(2000)
    )
    for key in wanted:
        await process.kv.commit([], [Put(key, b"")])
    for _ in range(2):
        costs(process).clear()
        found: list[bytes] = []
        while not steps.ended:
            found += [item.key for item in await steps.next(LIMIT)]
        assert found == wanted
        assert sum(costs(process)) < 5 * len(wanted)  # 20 times, were each page to the end
        steps.restart()
