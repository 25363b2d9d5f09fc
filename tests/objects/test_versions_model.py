"""Versions against a model: a list per key, newest first. Operations of two processes race, one of
them may die or lose its answer at any commit; what is there afterwards must be what some order of
the operations makes of what was there before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import pytest

from s3gw.errors import S3Error
from s3gw.kv.interface import KV, Guard, Key, Page, Reading, Write
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, ObjectRecord
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.read import read_data
from s3gw.wire.version_ids import NULL_VERSION
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

KEY = "k"
STATES = ("Enabled", "Suspended")


@dataclass(frozen=True)
class Version:
    """`content` None is a delete marker. `sequence` 0: made in this round, so not known yet."""

    content: bytes | None
    null: bool
    sequence: int = 0


@dataclass(frozen=True)
class State:
    """The bucket's versioning and the versions of the key, newest first."""

    versioning: str = ""
    versions: tuple[Version, ...] = ()

    def with_newest(self, content: bytes | None) -> State:
        null = self.versioning != "Enabled"
        kept = tuple(old for old in self.versions if not (null and old.null))
        return replace(self, versions=(Version(content, null), *kept))

    def find(self, sequence: int) -> Version | None:
        for version in self.versions:
            if version.null if sequence == NULL_VERSION else version.sequence == sequence:
                return version
        return None


Change = Callable[[State], State]


@dataclass(frozen=True)
class Operation:
    name: str
    change: Change
    run: Callable[[Process], Awaitable[object]]


def put(content: bytes) -> Operation:
    return Operation(
        f"put {content!r}",
        lambda state: state.with_newest(content),
        lambda process: operations.put(process, KEY, content),
    )


def delete() -> Operation:
    def change(state: State) -> State:
        if state.versioning:
            return state.with_newest(None)
        return replace(state, versions=())

    return Operation("delete", change, lambda process: operations.remove(process, KEY))


def remove(sequence: int) -> Operation:
    def change(state: State) -> State:
        gone = state.find(sequence)
        return replace(state, versions=tuple(v for v in state.versions if v != gone))

    return Operation(
        f"remove {sequence}", change, lambda process: operations.remove(process, KEY, sequence)
    )


def restore(sequence: int) -> Operation:
    def change(state: State) -> State:
        source = state.find(sequence)
        if source is None or source.content is None:
            return state
        return state.with_newest(source.content)

    return Operation(
        f"restore {sequence}",
        change,
        lambda process: operations.restore(process, KEY, sequence, KEY),
    )


def set_versioning(versioning: str) -> Operation:
    return Operation(
        versioning,
        lambda state: replace(state, versioning=versioning),
        lambda process: operations.set_versioning(process, versioning),
    )


class RacingKV(CrashingKV):
    """Lets others go first, at random, before each call."""

    def __init__(self, kv: KV, fuse: Fuse, chance: random.Random) -> None:
        super().__init__(kv, fuse)
        self.chance = chance
        self.range_costs_its_size = chance.random() < 0.5

    async def _yield(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        await self._yield()
        return await super().get_many(keys)

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        await self._yield()
        return await super().scan(start, end, limit=limit, revision=revision, keys_only=keys_only)

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        await self._yield()
        return await super().commit(guards, writes)


class Race:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = MemoryCluster(7)
        self.written = 0
        self.state = State()
        self.log: list[str] = []

    async def run(self, rounds: int) -> None:
        await self.cluster.found()
        for _ in range(rounds):
            await self._round()
        process = await self.cluster.process()
        for _ in range(2):  # orphans of those that died are seen, and a day later removed
            await on_demand.merge_all(process.storage)
            self.cluster.clock.advance(2 * 24 * 3600.0)
            await on_demand.collect_garbage(process.storage)
        Audit(self.cluster, process).check_at_rest()

    def _operation(self) -> Operation:
        sequences = [version.sequence for version in self.state.versions] + [NULL_VERSION]
        sequence = self.random.choice(sequences)
        self.written += 1
        return self.random.choices(
            [
                put(b"content %d" % self.written),
                delete(),
                remove(sequence),
                restore(sequence),
                set_versioning(self.random.choice(STATES)),
            ],
            (6, 4, 8, 3, 1),
        )[0]

    async def _round(self) -> None:
        """Some operations at once, of two processes; one of them may die in it."""
        fuses = [Fuse(), Fuse()]
        processes = [
            await self.cluster.process(
                RacingKV(self.cluster.kv(), fuse, self.random), seed=self.random.getrandbits(32)
            )
            for fuse in fuses
        ]
        if self.random.random() < 0.4:
            fuses[0].arm(self.random.randrange(3), self.random.choice(list(Mode)))
        racing = [self._operation() for _ in range(self.random.choice((1, 2, 2, 3)))]
        self.log.append(" | ".join(operation.name for operation in racing))
        results = await asyncio.gather(
            *(operation.run(processes[number % 2]) for number, operation in enumerate(racing)),
            return_exceptions=True,
        )
        await asyncio.gather(*(process.storage.store.settle() for process in processes))
        certain, doubtful = [], []
        for operation, result in zip(racing, results, strict=True):
            if isinstance(result, Crashed | OutcomeUnknown):
                doubtful.append(operation)
            elif isinstance(result, BaseException) and not isinstance(result, S3Error):
                raise result
            else:
                certain.append(operation)
        found = await self._check(certain, doubtful)
        self.state = replace(found, versions=await self._versions(known=None))

    async def _check(self, certain: list[Operation], doubtful: list[Operation]) -> State:
        """What is there is what some order of what was done makes of what was there."""
        known = {version.sequence for version in self.state.versions}
        process = await self.cluster.process()
        audit = Audit(self.cluster, process)
        audit.check_held()
        audit.check_counts()
        audit.check_usage()
        audit.check_versions()
        audit.check_fences()
        bucket = (await process.storage.store.get(BucketRecord, keys.bucket(BUCKET))).record
        assert bucket is not None
        found = State(bucket.versioning, await self._versions(known))
        possible = [
            self._after(order)
            for count in range(len(doubtful) + 1)
            for chosen in combinations(doubtful, count)
            for order in permutations([*certain, *chosen])
        ]
        assert found in possible, "\n".join(
            [*self.log, f"before {self.state}", f"found {found}", *map(str, possible)]
        )
        return found

    def _after(self, order: Sequence[Operation]) -> State:
        state = self.state
        for operation in order:
            state = operation.change(state)
        return state

    async def _versions(self, known: set[int] | None) -> tuple[Version, ...]:
        """The versions that the records show; with sequences in `known`, or all of them."""
        process = await self.cluster.process()
        records = [record for _, _, record in Audit(self.cluster, process).versions()]
        records.sort(key=lambda record: record.sequence, reverse=True)
        return tuple(
            [
                Version(
                    await content_of(process, record),
                    record.null_version,
                    record.sequence if known is None or record.sequence in known else 0,
                )
                for record in records
            ]
        )


async def content_of(process: Process, record: ObjectRecord) -> bytes | None:
    if record.marker:
        return None
    pieces = [
        bytes(buffer)
        async for buffers in read_data(process.storage, record.data, 0, record.size)
        for buffer in buffers
    ]
    return b"".join(pieces)


@pytest.mark.parametrize("seed", range(60))
async def test_every_race_ends_as_some_order_of_its_operations_would(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3gw.metadata.store.RESEND_PAUSE_SECONDS", 0)
    await Race(seed).run(rounds=30)
