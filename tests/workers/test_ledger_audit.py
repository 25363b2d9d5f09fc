"""The ledger against the truth: after random writes, deletes, node losses, shards deleted and
corrupted behind its back, reads, scrubs and repairs, every blob is classified by what its drives
really hold."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest

from nodes.check import check_bytes
from nodes.memory import Fault
from nodes.protocol import DriveUnreachable, ShardName
from s3gw.cluster import layouts
from s3gw.cluster.ledger import Amount, Ledger, Redundancy, read_ledger
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import Group
from s3gw.errors import S3Error
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, PgRecord, Reference, Slot, encode
from s3gw.workers import on_demand
from s3gw.workers.contract import UNCLAIMED
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, PROFILE, MemoryCluster
from tests.stores.virtual_time import run_virtual

KEYS = tuple("abcdefgh")
SIZES = (0, 700, 5_000, 66_000, 200_000)
DOWN_MAX = 2
STEPS = 60


class Life:
    """One seed of a store's life."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[str] = []

    async def run(self) -> None:
        self.cluster = MemoryCluster(self.random.choice((7, 8, 9)))
        await self.cluster.found()
        self.process = await self.cluster.process(seed=self.random.getrandbits(32))
        self.down: set[str] = set()
        actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._put, 14),
            (self._delete, 4),
            (self._copy, 4),
            (self._get, 8),
            (self._lose_node, 3),
            (self._return_nodes, 3),
            (self._remove_shard, 5),
            (self._corrupt_shard, 5),
            (self._collect, 3),
            (self._repair, 4),
            (self._merge, 2),
            (self._scrub, 4),
            (self._begin_move, 2),
            (self._end_moves, 2),
        ]
        for _ in range(STEPS):
            (action,) = self.random.choices(
                [a for a, _ in actions], [weight for _, weight in actions]
            )
            self.log.append(action.__name__)
            await action()
            await self._check_what_is_known()
        await self._end()

    async def ledger(self) -> Ledger:
        layout = await layouts.current(self.process.kv)
        process = self.process
        return await read_ledger(process.kv, process.directory, layout)

    # What is true

    def good(self, ref: BlobRef, *, also_down: bool = False) -> dict[int, str]:
        """The shards that are whole where they may be looked for, on nodes that live, and where."""
        _, nodes, group = self.process.topology.location(ref)
        found = {}
        for index, node in enumerate(nodes):
            name = ShardName(ref.profile, group.number, ref.blob, index)
            before = () if ref.nodes else group.record.slots[index].holders_before
            for holder in (node, *before):
                if not holder or (holder in self.down and not also_down):
                    continue
                data = self.cluster.drives[holder].shards.get(name)
                if data is not None and check_bytes(name, data).whole:
                    found[index] = holder
        return found

    def truth(self) -> dict[tuple[str, str], dict[Redundancy, Amount]]:
        by_blob: defaultdict[tuple[str, bytes], list[Reference]] = defaultdict(list)
        for key, reference in Audit(self.cluster, self.process).references().items():
            profile, _, blob, _ = keys.split_reference(key)
            by_blob[profile, blob].append(reference)
        sums: dict[tuple[str, str], dict[Redundancy, Amount]] = {}
        for (profile, blob), references in by_blob.items():
            live = [reference for reference in references if not reference.dropped_due_ms]
            if live:
                ref = BlobRef(profile, blob, live[0].size, 0, live[0].nodes, live[0].scheme)
                scheme, _, _ = self.process.topology.location(ref)
                good = set(self.good(ref))
            else:  # the collector's: it counts as its group does
                group = self.process.topology.group_of(profile, blob)
                scheme = group.profile.scheme
                good = {i for i, node in enumerate(group.nodes) if node not in self.down}
            losses = [good - {index} for index in range(scheme.width)]
            if len(good) == scheme.width:
                redundancy = Redundancy.FULL
            elif all(scheme.decodable(rest) for rest in losses):
                redundancy = Redundancy.REDUCED
            else:
                redundancy = Redundancy.CRITICAL if scheme.decodable(good) else Redundancy.LOST
            for reference in references:
                row = sums.setdefault(
                    (reference.bucket, PROFILE), dict.fromkeys(Redundancy, Amount())
                )
                row[redundancy] += Amount(1, reference.size)
        return sums

    async def _check_what_is_known(self) -> None:
        ledger = await self.ledger()
        references = Audit(self.cluster, self.process).references().values()
        everything = sum((ledger.total(redundancy) for redundancy in Redundancy), Amount())
        assert everything == Amount(len(references), sum(r.size for r in references))
        queued = Audit(self.cluster, self.process).under(keys.REPAIRS)
        assert ledger.repairs_waiting == len({key[-16:] for key in queued})
        assert ledger.nodes_down == tuple(sorted(self.down))
        if queued or self.down:
            assert not ledger.healed

    async def _check_truth(self) -> Ledger:
        """Nothing is better than it is said to be; without a move, all is exactly as said."""
        ledger = await self.ledger()
        told = {(row.bucket, row.profile): row.amounts for row in ledger.rows}
        truth = self.truth()
        if not ledger.groups_moving:
            assert told == truth
        worst_first = list(reversed(Redundancy))
        for row, amounts in truth.items():
            for place in range(1, len(worst_first)):
                worse = worst_first[:place]
                assert sum(told[row][c].blobs for c in worse) >= sum(
                    amounts[c].blobs for c in worse
                )
        return ledger

    # What happens

    async def _try(self, work: Awaitable[object]) -> None:
        try:
            await work
        except (S3Error, BlobUnreadable) as error:
            self.log[-1] += f" ({type(error).__name__})"

    async def _put(self) -> None:
        data = self.random.randbytes(self.random.choice(SIZES))
        await self._try(operations.put(self.process, self.random.choice(KEYS), data))

    async def _present(self) -> str | None:
        names = [key for key in KEYS if await operations.record(self.process, key)]
        return self.random.choice(names) if names else None

    async def _delete(self) -> None:
        await operations.delete(self.process, self.random.choice(KEYS))

    async def _copy(self) -> None:
        if source := await self._present():
            await self._try(operations.copy(self.process, source, self.random.choice(KEYS)))

    async def _get(self) -> None:
        if key := await self._present():
            await self._try(operations.get(self.process, key))
            await self.process.damage.work(UNCLAIMED)

    async def _lose_node(self) -> None:
        if len(self.down) >= DOWN_MAX:
            return
        name = self.random.choice(sorted(set(self.cluster.drives) - self.down))
        self.cluster.drives[name].inject(Fault(error=DriveUnreachable("refused")))
        self._node(name).live = False
        self.down.add(name)

    async def _return_nodes(self) -> None:
        for name in self.down:
            self.cluster.drives[name].heal()
            self._node(name).live = True
        self.down.clear()
        self.cluster.clock.advance(20.0)  # nobody is suspect any more

    def _node(self, name: str):  # type: ignore[no-untyped-def]
        node = self.process.directory.get(name)
        assert node is not None
        return node

    def _victim(self) -> tuple[str, ShardName] | None:
        """A shard of a blob that can do without it, wherever nodes are down."""
        held = sorted(Audit(self.cluster, self.process).held().items())
        if not held:
            return None
        _, ref = self.random.choice(held)
        scheme, _, group = self.process.topology.location(ref)
        good = self.good(ref, also_down=True)
        index = self.random.choice(sorted(good))
        if not scheme.decodable(good.keys() - {index}):
            return None
        return good[index], ShardName(ref.profile, group.number, ref.blob, index)

    async def _remove_shard(self) -> None:
        if victim := self._victim():
            node, name = victim
            del self.cluster.drives[node].shards[name]

    async def _corrupt_shard(self) -> None:
        if victim := self._victim():
            node, name = victim
            data = bytearray(self.cluster.drives[node].shards[name])
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            self.cluster.drives[node].shards[name] = bytes(data)

    def _groups(self) -> list[Group]:
        topology = self.process.topology
        return [
            topology.group(profile, number)
            for profile in topology.profiles()
            for number in range(profile.pg_count)
        ]

    async def _write_group(self, group: Group, slots: list[Slot]) -> None:
        record = PgRecord(group.record.revision + 1, tuple(slots))
        await self.process.kv.commit([], [Put(group.key, encode(record))])
        await self.process.topology.reread(group)

    async def _begin_move(self) -> None:
        """A slot of a group goes to another node, which has nothing of it yet."""
        group = self.random.choice(self._groups())
        spare = sorted(set(self.cluster.drives) - set(group.nodes) - self.down)
        if not spare or any(slot.holders_before for slot in group.record.slots):
            return
        slots = list(group.record.slots)
        index = self.random.randrange(len(slots))
        slots[index] = Slot(self.random.choice(spare), (slots[index].node,))
        await self._write_group(group, slots)

    async def _end_moves(self) -> None:
        """What a mover does, for groups where it can: copy, look, drop the old holder, delete."""
        for group in self._groups():
            for index, slot in enumerate(group.record.slots):
                if slot.holders_before and not {slot.node, *slot.holders_before} & self.down:
                    await self._end_move(group, index, slot)

    async def _end_move(self, group: Group, index: int, slot: Slot) -> None:
        (holder,) = slot.holders_before
        old, new = self.cluster.drives[holder].shards, self.cluster.drives[slot.node].shards
        blobs = {
            keys.split_reference(key)[2]
            for key, reference in Audit(self.cluster, self.process).references().items()
            if keys.split_reference(key)[:2] == (group.profile.name, group.number)
            and not (reference.nodes or reference.dropped_due_ms)
        }
        for blob in blobs:
            name = ShardName(group.profile.name, group.number, blob, index)
            if name in old and name not in new and check_bytes(name, old[name]).whole:
                new[name] = old[name]
            if name not in new or not check_bytes(name, new[name]).whole:
                return  # to be repaired first
        slots = list(group.record.slots)
        slots[index] = Slot(slot.node)
        await self._write_group(group, slots)
        for name in [name for name in old if (name.blob in blobs and name.index == index)]:
            del old[name]

    async def _collect(self) -> None:
        self.cluster.clock.advance(3700)
        await on_demand.collect_garbage(self.process.storage)

    async def _repair(self) -> None:
        await on_demand.repair_all(self.process.storage)

    async def _merge(self) -> None:
        await on_demand.merge_all(self.process.storage)

    async def _scrub(self) -> None:
        self.cluster.clock.advance(20.0)
        await on_demand.verify_all(self.process.storage)
        await self._check_truth()

    async def _end(self) -> None:
        self.log.append("end")
        await self._return_nodes()
        await self._scrub()
        for _ in range(3):
            await self._repair()
            await self._end_moves()
        ledger = await self._check_truth()
        assert ledger.healed
        assert all(ref.nodes == () for ref in Audit(self.cluster, self.process).held().values())
        await self._collect()
        await self._collect()
        assert (await self._check_truth()).healed
        audit = Audit(self.cluster, self.process)
        audit.check_held()
        for ref in audit.held().values():
            audit.check_whole(ref)
        assert BUCKET in {bucket for bucket, _ in self.truth()} or not audit.held()


@pytest.mark.parametrize("seed", range(40))
def test_the_ledger_says_what_is_true_after_a_scrub_and_never_more_than_is_known(seed: int) -> None:
    life = Life(seed)
    try:
        run_virtual(life.run())
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(life.log[-25:]))
        raise
