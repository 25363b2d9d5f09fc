"""Sequences, and so version ids: never given twice, and in the order of the commits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.kv.interface import KV, Guard, Write
from s3gw.metadata.records import ObjectRecord
from s3gw.metadata.sequences import DRAWN_BITS, draws, last_at, moment_of, sequence_at
from s3gw.objects import publish, trash
from s3gw.objects.delete import delete_object
from s3gw.objects.publish import Target, no_check
from s3gw.objects.restore import Emptied, take_away
from s3gw.wire.version_ids import decode_version_id
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import CrashingKV, Fuse
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

KEY = "k"
Act = Callable[[Process], Awaitable[object]]
Prepare = Callable[[Process], Awaitable[tuple[Act, Act]]]


class GatedKV(CrashingKV):
    """Commits nothing until it may; `reached` says that it wants to."""

    def __init__(self, kv: KV) -> None:
        super().__init__(kv, Fuse())
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        self.reached.set()
        await self.open.wait()
        return await super().commit(guards, writes)


async def puts(process: Process) -> tuple[Act, Act]:
    return (
        lambda one: operations.put(one, KEY, b"first"),
        lambda one: operations.put(one, KEY, b"second"),
    )


async def completions(process: Process) -> tuple[Act, Act]:
    uploads = [await operations.start(process, KEY) for _ in range(2)]
    for upload, data in zip(uploads, (b"first", b"second"), strict=True):
        await operations.part(process, KEY, upload, 1, data)
    return (
        lambda one: operations.complete(one, KEY, uploads[0]),
        lambda one: operations.complete(one, KEY, uploads[1]),
    )


async def two_sources(process: Process) -> None:
    await operations.put(process, "a", b"first")
    await operations.put(process, "b", b"second")


async def copies(process: Process) -> tuple[Act, Act]:
    await two_sources(process)
    return (
        lambda one: operations.copy(one, "a", KEY),
        lambda one: operations.copy(one, "b", KEY),
    )


async def renames(process: Process) -> tuple[Act, Act]:
    await two_sources(process)
    return (
        lambda one: operations.rename(one, "a", KEY),
        lambda one: operations.rename(one, "b", KEY),
    )


async def markers(process: Process) -> tuple[Act, Act]:
    return lambda one: operations.remove(one, KEY), lambda one: operations.remove(one, KEY)


async def race(cluster: MemoryCluster, first: Act, second: Act, between: Act) -> None:
    """Both decide on what is there now; the first commits, `between` happens, the second does."""
    gates = [GatedKV(cluster.kv()) for _ in range(2)]
    processes = [await cluster.process(gate, seed=7) for gate in gates]
    tasks = [
        asyncio.ensure_future(act(process))
        for act, process in zip((first, second), processes, strict=True)
    ]
    for gate in gates:
        await gate.reached.wait()
    gates[0].open.set()
    await tasks[0]
    await between(await cluster.process(seed=8))
    gates[1].open.set()
    await tasks[1]


async def newest(process: Process) -> ObjectRecord:
    latest = (await publish.read_target(process.storage, BUCKET, KEY)).latest
    assert latest is not None
    return latest


@pytest.mark.parametrize("prepare", [puts, completions, copies, renames, markers])
async def test_an_id_of_a_removed_version_never_comes_back(
    memory_store: Process, prepare: Prepare
) -> None:
    """Two decide while the key is free; the first one's version is removed for good before the
    second commits. Whoever removes the first again, by its id, does not meet the second."""
    await operations.set_versioning(memory_store, "Enabled")
    first, second = await prepare(memory_store)
    removed: list[int] = []

    async def remove(process: Process) -> None:
        removed.append((await newest(process)).sequence)
        await operations.remove(process, KEY, removed[0])
        assert (await publish.read_target(process.storage, BUCKET, KEY)).latest is None

    await race(memory_store.cluster, first, second, remove)
    kept = await newest(memory_store)
    assert moment_of(kept.sequence) == moment_of(removed[0])  # it was decided before the removal
    assert kept.sequence != removed[0]
    await operations.remove(memory_store, KEY, removed[0])
    assert await newest(memory_store) == kept
    if not kept.marker:
        assert await operations.get(memory_store, KEY) == b"second"
    audit = Audit(memory_store.cluster, memory_store)
    audit.check_held()
    audit.check_usage()
    audit.check_versions()


async def test_a_restored_object_has_a_place_of_its_own_in_the_trash(
    memory_store: Process,
) -> None:
    """As above, in a bucket with trash: the first is restored, deleted and purged."""
    await operations.set_trash(memory_store, 86_400.0)
    for data in (b"first", b"second"):
        await operations.put(memory_store, KEY, data)
        await operations.delete(memory_store, KEY)
    newer, older = (await trash.list_trash(memory_store.storage, BUCKET, KEY, most=9))[0]
    removed: list[int] = []

    async def purge(process: Process) -> None:
        removed.append((await newest(process)).sequence)
        await operations.delete(process, KEY)
        found, _ = await trash.list_trash(process.storage, BUCKET, KEY, most=9)
        assert found[0].record.record.sequence == removed[0]
        await take_away(process.storage, found[:1], Emptied())

    await race(
        memory_store.cluster,
        lambda one: operations.untrash(one, KEY, older.record.record.sequence),
        lambda one: operations.untrash(one, KEY, newer.record.record.sequence),
        purge,
    )
    kept = await newest(memory_store)
    assert moment_of(kept.sequence) == moment_of(removed[0])
    assert kept.sequence != removed[0]
    assert await operations.get(memory_store, KEY) == b"second"
    audit = Audit(memory_store.cluster, memory_store)
    audit.check_held()
    audit.check_usage()
    audit.check_trash()


class Writers:
    """Writers that read at one time and commit at another; what they drew counts down, so that of
    one moment the later reading has the lower sequence."""

    def __init__(self, cluster: MemoryCluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.pending: list[tuple[Process, Target]] = []
        self.given: set[int] = set()
        self.draws = count(2**DRAWN_BITS - 1, -1)

    async def process(self) -> Process:
        process = await self.cluster.process(seed=self.random.getrandbits(32))
        process.storage.draws = self.draws
        return process

    def sequences(self, process: Process) -> list[int]:
        return [record.sequence for _, _, record in Audit(self.cluster, process).versions()]

    async def step(self) -> None:
        process = await self.process()
        there = self.sequences(process)
        chosen = self.random.choices(("read", "write", "remove"), (3, 3, 4))[0]
        if chosen == "read":
            self.pending.append((process, await publish.read_target(process.storage, BUCKET, KEY)))
        elif chosen == "write" and self.pending:
            writer, target = self.pending.pop(self.random.randrange(len(self.pending)))
            if self.random.random() < 0.3:
                made = await delete_object(writer.storage, target, no_check, owner="owner")
                sequence = decode_version_id(made.version_id)
            else:
                sequence = (await operations.put_on(writer, target, b"x")).sequence
            assert sequence not in self.given
            assert all(sequence > other for other in there)
            self.given.add(sequence)
        elif chosen == "remove" and there:
            await operations.remove(process, KEY, self.random.choice(there))
        Audit(self.cluster, process).check_versions()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_commits_later_sorts_as_newer(memory_store: Process, seed: int) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    writers = Writers(memory_store.cluster, seed)
    for _ in range(80):
        await writers.step()
    assert len(writers.given) > 10


@given(
    moment=st.integers(0, 2**43 - 1),
    later=st.integers(1, 2**32),
    drawn=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
)
def test_the_moment_orders_whatever_is_drawn(
    moment: int, later: int, drawn: tuple[int, int]
) -> None:
    first, second = sequence_at(moment, drawn[0]), sequence_at(moment + later, drawn[1])
    assert sequence_at(moment) <= first <= last_at(moment) < sequence_at(moment + later) <= second
    assert moment_of(first) == moment
    assert first < 2**63


def test_a_process_draws_each_number_once_in_a_million() -> None:
    drawn: Iterator[int] = draws()
    numbers = [sequence_at(0, next(drawn)) for _ in range(1000)]
    assert len(set(numbers)) == 1000
    assert next(draws()) != next(draws())  # each process begins elsewhere
