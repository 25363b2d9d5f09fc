"""Moving one placement group to where the layout wants it.

The record of the group comes first, the shards follow:

1. the record is changed by compare-and-swap: the new nodes in their slots, and beside each, in
   `holders_before`, who may still have its shards. From then on writers write to the new nodes,
   readers try both, and no blob can be published any more as lying on the old ones;
2. the new revision is shown to the nodes, so that no deletion decided on an older record reaches
   them any more; then they are listed, and the references read;
3. every shard that is not on its new node is copied there as it is, from whoever has it, and else
   rebuilt from the others; in either case the new node verifies it. This is repeated until nothing
   is found missing;
4. the slots that are complete lose their `holders_before` by compare-and-swap;
5. the new revision is shown, and the copies that were listed and are superfluous now are deleted.

All that a successor needs after a crash is in the record: a slot with `holders_before` is on its
way. A crash between 4 and 5 leaves surplus copies, which merging removes. Old holders that are
down hold up nothing. A new node that fails is waited for, or replaced by the next layout; the other
slots go on. Every commit is guarded by the group's lock.

Blobs that lie on nodes of their own (`BlobRef.nodes`) are the repair worker's. Those that are
dropped, and not yet collected, are copied along as far as they can be, for readers that have begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from nodes.check import StreamCheck, check_bytes
from nodes.format import ShardCorrupt
from nodes.protocol import DriveError, DriveRefused, ShardMissing, ShardName, Verdict
from s3gw.cluster.directory import Node
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.rebuild import read_shard
from s3gw.cluster.topology import Group
from s3gw.cluster.tunables import Throttle
from s3gw.cluster.writer import attempt
from s3gw.kv.interface import Empty, Guard
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, PgRecord, Reference, Repair, Slot, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage
from s3gw.workers import compare, placing
from s3gw.workers.compare import Copy
from s3gw.workers.contract import Claim, commit
from s3gw.workers.damage import URGENCY_DAMAGED, queue_repairs
from s3gw.workers.lanes import Lanes
from s3gw.workers.progress import Meter
from s3gw.workers.verified import Verified, VerifiedShards
from s3gw.workers.walk import Listings, list_group

log = logging.getLogger(__name__)

PASSES_MAX = 8
BLOBS_AT_ONCE = 8
COPY_BYTES = 1024 * 1024
READ_SECONDS_MAX = 20.0
SHOW_SECONDS_MAX = 10.0
VERIFY_SECONDS_MAX = 300.0


def is_moving(slot: Slot) -> bool:
    """Whether a slot's shards are on their way to its node."""
    return bool(slot.node and slot.holders_before)


def planned_slots(
    slots: Sequence[Slot],
    target: Sequence[str],
    *,
    ready: Callable[[str], bool],
    gone: Callable[[str], bool],
) -> tuple[Slot, ...]:
    """The slots as they are to be next. `ready` says of a node that it takes shards, `gone` that it
    is down and has left the layout.

    A slot waits while its target is not ready, or is still in another slot. A slot without a target
    keeps its node while that may still have something, unless another slot is to have it: then it
    is empty from now on, and remembers who has its shards.

    >>> yes, no = (lambda node: True), (lambda node: False)
    >>> planned_slots([Slot("a"), Slot("b")], ["a", "c"], ready=yes, gone=no)[1]
    Slot(node='b', holders_before=())
    """
    planned = [_planned(slot, node, ready, gone) for slot, node in zip(slots, target, strict=True)]
    while True:
        names = [slot.node for slot in planned]
        doubled = [
            index
            for index, slot in enumerate(planned)
            if slot.node and slot != slots[index] and names.count(slot.node) > 1
        ]
        if not doubled:
            return tuple(planned)
        wanted = {planned[index].node for index in doubled}
        emptied = [
            index
            for index, slot in enumerate(planned)
            if slot == slots[index] and not target[index] and slot.node in wanted
        ]
        for index in emptied:
            slot = slots[index]
            planned[index] = Slot("", tuple(dict.fromkeys((slot.node, *slot.holders_before))))
        for index in () if emptied else doubled:
            planned[index] = slots[index]


def _planned(
    slot: Slot, target: str, ready: Callable[[str], bool], gone: Callable[[str], bool]
) -> Slot:
    if not target:
        if slot.node and not gone(slot.node):
            return slot
        return Slot("", tuple(node for node in slot.holders_before if node and not gone(node)))
    if target == slot.node or not ready(target):
        return slot
    before = dict.fromkeys((slot.node, *slot.holders_before))
    before.pop(target, None)
    return Slot(target, tuple(before))


@dataclass(slots=True)
class _Pass:
    """One comparison of listings with references. `slots` are the moving ones whose nodes take
    part. `placed` counts shards that were missing and are there now; `lacking` are slots of which
    something is not there; `surplus` are copies that are not needed beside the verified ones."""

    listings: Listings
    shown: set[str]
    slots: dict[int, Slot]
    placed: int = 0
    lacking: set[int] = field(default_factory=set)
    surplus: set[tuple[int, str, bytes]] = field(default_factory=set)
    unreadable: list[Repair] = field(default_factory=list)


class GroupMove:
    """The move of one group, under its lock `claim`, towards `target` (None: no further than its
    record says already), the target of layout `epoch` with the nodes `members`. `progressed` says
    whether something has changed for the better: the record, or a shard on its new node."""

    def __init__(
        self,
        storage: Storage,
        claim: Claim,
        group: Group,
        target: Sequence[str] | None,
        *,
        epoch: int,
        members: Collection[str],
        throttle: Throttle,
        meter: Meter,
        verified: VerifiedShards | None = None,
    ) -> None:
        self._storage = storage
        self._claim = claim
        self._group = group
        self._target = target
        self._epoch = epoch
        self._members = members
        self._throttle = throttle
        self._meter = meter
        self._moving: dict[int, Slot] = {}
        self._remembered = verified or VerifiedShards()
        self._verified = Verified(0, 0.0)
        self.progressed = False

    async def run(self) -> bool:
        """Do what can be done now; whether the group is where the layout wants it.

        Raises ClaimLost, Conflict (the record or the layout changed), OutcomeUnknown, EngineError.
        """
        self._group = await self._storage.blobs.topology.reread(self._group)
        slots = self._group.record.slots
        if self._target is not None:
            planned = planned_slots(slots, self._target, ready=self._ready, gone=self._gone)
            if planned != slots:
                # A later layout may have no place for these nodes.
                later = keys.layout(self._epoch + 1)
                await self._change(planned, Empty(later, keys.after_prefix(keys.LAYOUTS)))
        slots = self._group.record.slots
        self._moving = {index: slot for index, slot in enumerate(slots) if is_moving(slot)}
        if self._moving:
            name = self._group.profile.name, self._group.number
            self._verified = self._remembered.take(name, self._group.record.revision)
            try:
                await self._settle()
            finally:
                self._remembered.keep(name, self._verified)
        left = self._group.record.slots
        there = self._target is None or self._group.nodes == tuple(self._target)
        return there and not any(map(is_moving, left))

    def _ready(self, node_id: str) -> bool:
        directory = self._storage.blobs.directory
        node = directory.get(node_id)
        return node is not None and node_id in self._members and node.writable(directory.clock())

    def _gone(self, node_id: str) -> bool:
        node = self._storage.blobs.directory.get(node_id)
        return node_id not in self._members and (node is None or not node.live)

    async def _change(self, slots: Sequence[Slot], *guards: Guard) -> None:
        """Write the group's next record, unless it has changed."""
        record = PgRecord(self._group.record.revision + 1, tuple(slots))
        tx = Transaction()
        tx.expect(self._group.key, self._group.revision)
        tx.guards += guards
        tx.put(self._group.key, record)
        tx.witness = self._group.key
        await commit(self._storage.store, self._claim, tx)
        self.progressed = True
        self._group = await self._storage.blobs.topology.reread(self._group)

    async def _settle(self) -> None:
        """Bring the shards of the moving slots over, and end the moves that are complete."""
        for _ in range(PASSES_MAX):
            comparison = await self._compare()
            if not comparison.placed:
                break
        else:
            return  # something takes shards away as fast as they come: to be looked at again
        if comparison.unreadable:
            topology = self._storage.blobs.topology
            await queue_repairs(
                self._storage.store, topology, comparison.unreadable, URGENCY_DAMAGED
            )
        complete = self._moving.keys() - comparison.lacking
        if complete:
            await self._finish(complete, comparison)

    async def _finish(self, complete: Collection[int], comparison: _Pass) -> None:
        slots = [
            Slot(slot.node) if index in complete else slot
            for index, slot in enumerate(self._group.record.slots)
        ]
        await self._change(slots)
        # The other slots are as they were.
        self._verified.revision += 1
        self._verified.discard_slots(frozenset(complete))
        left = {node for index in complete for node in self._moving[index].holders_before}
        shown = await self._show(left | set(self._group.nodes))
        async with Lanes(lambda: BLOBS_AT_ONCE) as lanes:
            for index, node, blob in sorted(comparison.surplus):
                if index in complete and node in shown:
                    await lanes.start(self._delete(node, self._name(blob, index)))

    async def _delete(self, node: str, name: ShardName) -> None:
        """Delete a copy; what cannot be deleted now is found by merging."""
        revision = self._group.record.revision
        await placing.delete_shard(self._storage, node, name, revision, frozenset({node}))

    async def _show(self, nodes: Collection[str]) -> set[str]:
        """Show the group's revision to nodes; those that have seen it."""
        names = sorted(node for node in nodes if node)
        seen = await asyncio.gather(*(self._show_one(name) for name in names))
        return {name for name, done in zip(names, seen, strict=True) if done}

    async def _show_one(self, node_id: str) -> bool:
        directory = self._storage.blobs.directory
        node = directory.get(node_id)
        if node is None or not node.usable(directory.clock()):
            return False
        group = self._group
        try:
            async with asyncio.timeout(SHOW_SECONDS_MAX):
                await node.drive.show_pg_revision(
                    group.profile.name, group.number, group.record.revision
                )
        except (DriveError, DriveRefused, TimeoutError):
            node.failed(directory.clock())
            return False
        node.answered()
        return True

    async def _compare(self) -> _Pass:
        """List the nodes, read the references, and put right what is missing."""
        before = {node for slot in self._moving.values() for node in slot.holders_before}
        shown = await self._show(before | set(self._group.nodes))
        listings = await list_group(self._storage, self._group)
        answering = shown & listings.entries.keys()
        slots = {index: slot for index, slot in self._moving.items() if slot.node in answering}
        comparison = _Pass(listings, shown, slots, lacking=set(self._moving.keys() - slots))
        held = compare.by_blob(comparison.listings)
        blob, copies = next(held, (b"", []))
        async with Lanes(lambda: BLOBS_AT_ONCE) as lanes:
            async for name, items in compare.references_of(self._storage, self._group):
                while copies and blob < name:
                    blob, copies = next(held, (b"", []))
                found = copies if blob == name else []
                live = compare.live(items)
                reference = live[0][1] if live else decode(Reference, items[0].value)
                ref = compare.blob_ref(self._group, name, reference)
                if not ref.nodes:
                    await lanes.start(self._bring(comparison, ref, found, needed=bool(live)))
        return comparison

    async def _bring(
        self, comparison: _Pass, ref: BlobRef, copies: Sequence[Copy], *, needed: bool
    ) -> None:
        """See to it that the shards of one blob are on their new nodes."""
        held = {copy.place: copy.entry.bytes_stored for copy in copies}
        for index, slot in comparison.slots.items():
            if (slot.node, index) not in held:
                self._verified.discard(ref.blob, index)
            there = await self._is_there(comparison, ref, index, slot, held)
            if there is None:  # to be placed
                there = await self._place(comparison, ref, index, held, needed=needed)
            if there:
                self._verified.add(ref.blob, index)
                comparison.surplus |= {
                    (index, node, ref.blob)
                    for node in slot.holders_before
                    if (node, index) in held and node in comparison.shown
                }
            elif needed:
                comparison.lacking.add(index)
        await self._meter.publish()

    async def _is_there(
        self,
        comparison: _Pass,
        ref: BlobRef,
        index: int,
        slot: Slot,
        held: dict[placing.Place, int],
    ) -> bool | None:
        """Whether a shard is whole on its new node; None when there is none, or none any more: one
        that is damaged is set aside if it can be replaced. Else it may have what readers need, and
        is left to the repair worker."""
        if (slot.node, index) not in held:
            return None
        if self._verified.has(ref.blob, index):
            return True
        name = self._name(ref.blob, index)
        await self._throttle.take(held[slot.node, index])
        verdict = await self._verify(slot.node, name)
        if verdict is None or verdict.whole:
            return verdict.whole if verdict is not None else None
        if await self._is_replaceable(ref, index, slot, held):
            await self._set_aside(slot.node, name)
            return None
        self._note_unreadable(comparison, ref, index, f"shard {index} is damaged")
        return False

    async def _is_replaceable(
        self, ref: BlobRef, index: int, slot: Slot, held: dict[placing.Place, int]
    ) -> bool:
        """Whether there is a whole copy of a shard elsewhere, or enough whole ones of others."""
        places = [place for place in held if place != (slot.node, index)]
        verdicts = await asyncio.gather(
            *(self._verify(node, self._name(ref.blob, other)) for node, other in places)
        )
        whole = {
            other
            for (_, other), verdict in zip(places, verdicts, strict=True)
            if verdict is not None and verdict.whole
        }
        return index in whole or self._group.profile.scheme.decodable(whole)

    def _note_unreadable(self, comparison: _Pass, ref: BlobRef, index: int, reason: str) -> None:
        number, now_ms = self._group.number, self._storage.clock_ms()
        repair = Repair(ref.profile, number, ref.blob, reason, now_ms, lost=(index,))
        comparison.unreadable.append(repair)

    async def _set_aside(self, node_id: str, name: ShardName) -> None:
        node = self._storage.blobs.directory.get(node_id)
        if node is not None:
            await attempt(node, node.drive.quarantine(name), self._storage.blobs.directory)

    async def _is_whole(self, node_id: str, name: ShardName) -> bool:
        verdict = await self._verify(node_id, name)
        if verdict is None or verdict.whole:
            return verdict is not None
        await self._set_aside(node_id, name)
        return False

    async def _verify(self, node_id: str, name: ShardName) -> Verdict | None:
        """What a node says of a shard, None when it has none or cannot say."""
        directory = self._storage.blobs.directory
        node = directory.get(node_id)
        if node is None or not node.usable(directory.clock()):
            return None
        try:
            async with asyncio.timeout(VERIFY_SECONDS_MAX):
                return await node.drive.verify(name)
        except ShardMissing:
            return None
        except (DriveError, DriveRefused, TimeoutError):
            node.failed(directory.clock())
            return None

    async def _place(
        self,
        comparison: _Pass,
        ref: BlobRef,
        index: int,
        held: dict[placing.Place, int],
        *,
        needed: bool,
    ) -> bool:
        """Put a shard on its new node: a copy of one that is there, else rebuilt (if `needed`)."""
        slot = self._moving[index]
        directory = self._storage.blobs.directory
        target = directory.get(slot.node)
        name = self._name(ref.blob, index)
        if target is None:
            return False
        for node, size in self._sources(slot, index, held):
            if not self._takes(target):
                return False
            if await self._copy(node, target, name, size) and await self._is_whole(target.id, name):
                self._note_placed(comparison)
                self._meter.placed(self._group, size, rebuilt=False)
                return True
        if not needed or not self._takes(target):
            return False
        return await self._rebuild(comparison, ref, target, name)

    def _note_placed(self, comparison: _Pass) -> None:
        comparison.placed += 1
        self.progressed = True

    def _takes(self, target: Node) -> bool:
        """Whether a node takes shards; one that has just refused one for want of space does not, so
        that nothing is read for it in vain."""
        now = self._storage.blobs.directory.clock()
        return target.usable(now) and not target.is_full(now)

    def _sources(
        self, slot: Slot, index: int, held: dict[placing.Place, int]
    ) -> list[tuple[Node, int]]:
        """Nodes that have a shard, and its size there: those that had it before come first."""
        directory = self._storage.blobs.directory
        listed = [node for node, held_index in held if held_index == index and node != slot.node]
        listed.sort(key=lambda node: (node not in slot.holders_before, node))
        nodes = [(directory.get(name), held[name, index]) for name in listed]
        now = directory.clock()
        return [(node, size) for node, size in nodes if node is not None and node.usable(now)]

    async def _copy(self, source: Node, target: Node, name: ShardName, size: int) -> bool:
        """Copy a shard file, checking it on the way; whether it was written. One that another has
        written meanwhile is not, and verified all the same."""
        directory = self._storage.blobs.directory
        if size <= COPY_BYTES:
            data = await self._read(source, name, 0, size)
            if data is None or not check_bytes(name, data).whole:
                return False
            await attempt(target, target.drive.write(name, [data]), directory)
            return True
        writer = target.drive.writer(name)
        check, sent = StreamCheck(name), False
        try:
            for offset in range(0, size, COPY_BYTES):
                piece = await self._read(source, name, offset, min(COPY_BYTES, size - offset))
                if not piece:
                    return False
                check.feed(piece)
                if not await attempt(target, writer.append([piece]), directory):
                    return False
            check.finish()
            sent = True
        except ShardCorrupt:
            return False
        finally:
            if not sent:
                await asyncio.gather(writer.abort(), return_exceptions=True)
        await attempt(target, writer.commit(), directory)
        return True

    async def _read(self, node: Node, name: ShardName, offset: int, length: int) -> bytes | None:
        await self._throttle.take(length, before=offset)
        directory = self._storage.blobs.directory
        return await read_shard(directory, node, name, offset, length, seconds_max=READ_SECONDS_MAX)

    async def _rebuild(
        self, comparison: _Pass, ref: BlobRef, target: Node, name: ShardName
    ) -> bool:
        read = 0

        async def before_read(count: int) -> None:
            nonlocal read
            await self._throttle.take(count, before=read)
            self._meter.read(count)
            read += count

        try:
            await self._storage.blobs.rebuild_shard(ref, name.index, target.id, before_read)
        except BlobUnreadable as error:
            log.warning("shard %s cannot be moved to %s: %s", name, target.id, error)
            reason = f"shard {name.index} cannot be rebuilt"
            self._note_unreadable(comparison, ref, name.index, reason)
            return False
        if not await self._is_whole(target.id, name):
            return False
        self._note_placed(comparison)
        scheme = self._group.profile.scheme
        self._meter.placed(self._group, scheme.fragment_bytes(ref.size), rebuilt=True)
        return True

    def _name(self, blob: bytes, index: int) -> ShardName:
        return ShardName(self._group.profile.name, self._group.number, blob, index)
