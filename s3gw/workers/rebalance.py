"""The rebalancer: keeps placement groups moving towards the layout.

A node was lost and is out, one was added, drained, removed or weighed anew: each is the next epoch
of the layout, and all that is left to do is to move groups there (`s3gw.workers.group_move`).
Rebuild and rebalance are one thing.

Any number of processes share the work: each group has a lock under the lease of whoever moves it,
and one that is locked is passed over. The most endangered groups come first: those that could bear
the fewest further losses. How many are moved at a time, and how many bytes per second a process
reads for it, are settings that may be changed meanwhile. A large group holds up no others: whenever
a move ends, the next one begins, and every few seconds all is looked at afresh.

A group that cannot be finished (a node is full, a blob unreadable) is tried again ever more rarely,
until its record changes, a node returns or another layout is made.

A node that comes back before it is out is given back nothing; it needs what was written or deleted
while it was away. What was written is in the repair queue or missing on it: its groups are merged
soon after its return.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from s3gw.cluster import layouts
from s3gw.cluster.layouts import Layout
from s3gw.cluster.topology import Group
from s3gw.cluster.tunables import LiveTunables, Throttle, rebuild_throttle
from s3gw.kv.interface import Conflict, EngineError
from s3gw.metadata import keys
from s3gw.metadata.records import Slot
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim, ClaimLost, give_back, take_lock
from s3gw.workers.group_move import GroupMove, is_moving, planned_slots
from s3gw.workers.lanes import Lanes
from s3gw.workers.merge import MergeAndRepair, MergeReport
from s3gw.workers.progress import GroupId, Meter
from s3gw.workers.verified import VerifiedShards
from s3gw.workers.walk import all_groups

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
MERGE_SECONDS = 20.0
# How long a stop may go unnoticed.
PAUSE_SECONDS = 1.0
# A group that could not be finished rests so long: the longer, the more often nothing came of it.
REST_SECONDS_MIN = 5.0
REST_SECONDS_MAX = 600.0
# Groups gone over in one turn of the event loop.
GROUPS_AT_A_TIME = 200
RETURNED_LOCK = "returned/"


@dataclass(frozen=True, slots=True)
class _Rest:
    """A group is left alone until then, unless its record is another than `revision`."""

    until: float
    seconds: float
    revision: int


class Rebalancer:
    """The worker. One unit goes on for as long as there is anything to move; `stop` ends it: moves
    under way are cancelled, which is as safe as a crash, and give their locks back."""

    name = "rebalance"
    exclusive = False

    def __init__(
        self,
        storage: Storage,
        tunables: LiveTunables,
        *,
        merge: MergeAndRepair | None = None,
        throttle: Throttle | None = None,
        look_seconds: float = LOOK_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._tunables = tunables
        self._merge = merge or MergeAndRepair(storage)
        self._look_seconds = look_seconds
        self._sleep = sleep
        self._clock = clock
        self._throttle = throttle or rebuild_throttle(tunables, clock=clock, sleep=sleep)
        self._identity = os.urandom(16)
        self._under_way: set[GroupId] = set()
        self._rests: dict[GroupId, _Rest] = {}
        self._verified = VerifiedShards(clock)
        # Groups to move: how many losses each bears, its place among all, and its name.
        self._queue: list[tuple[int, int, GroupId]] = []
        self._queued_for: tuple[int, Mapping[str, bool]] = (0, {})
        # Groups that were where the layout wants them, until their records change.
        self._settled: dict[int, Group] = {}
        self._stopping = False
        self._epoch = 0
        self._live: dict[str, bool] = {}
        self._returned: dict[str, list[Group]] = {}
        self.meter = Meter(storage, clock)

    async def wait(self) -> None:
        await self._sleep(self._look_seconds)

    def stop(self) -> None:
        self._stopping = True

    async def work(self, claim: Claim) -> bool:
        layout = await self._look()
        async with self._lanes() as lanes, Lanes(lambda: 1) as merges:
            try:
                while not self._stopping:
                    await self._go_on(layout, lanes, merges)
                    if lanes.idle and merges.idle:
                        break
                    layout = await self._look()
            except EngineError:
                await self._finish(lanes, merges)  # those under way may yet succeed
                raise
            if self._stopping:
                lanes.cancel()
                merges.cancel()
        return bool(self._returned)

    async def run_once(self) -> bool:
        """Move all groups that can be moved now; whether none is left for the layout of now."""
        self._rests.clear()
        layout = await self._look()
        async with self._lanes() as lanes:
            await self._start_moves(layout, lanes)
            while not lanes.idle:
                await lanes.one()
                await self._start_moves(layout, lanes)
        await self._look()
        return not any(True for _ in self._pending(layout))

    def _lanes(self) -> Lanes:
        return Lanes(lambda: self._tunables.current.rebuild_groups_at_once)

    async def _go_on(self, layout: Layout, lanes: Lanes, merges: Lanes) -> None:
        """Keep the lanes filled until it is time for another look, or nothing is left to do."""
        until = self._clock() + self._look_seconds
        pauses = self._look_seconds / PAUSE_SECONDS
        while not self._stopping and pauses > 0 and self._clock() < until:
            if self._returned and merges.idle:
                await merges.start(self._catch_up(self._clock() + MERGE_SECONDS))
            await self._start_moves(layout, lanes)
            if lanes.idle and merges.idle:
                return
            running = merges if lanes.idle else lanes
            await running.one(PAUSE_SECONDS)
            pauses -= 1

    async def _finish(self, *running: Lanes) -> None:
        for lanes in running:
            while not lanes.idle and not self._stopping:
                await lanes.one(PAUSE_SECONDS)
            lanes.cancel()

    async def _look(self) -> Layout:
        """See what is left to be done for the layout of now, and who lives."""
        layout = await layouts.current(self._storage.store.kv)
        self._notice_returned()
        if layout.epoch != self._epoch:
            self._epoch = layout.epoch
            self._rests.clear()
            self._settled.clear()
        await self._order(layout)
        topology = self._storage.blobs.topology
        todo = []
        for number, (_, _, name) in enumerate(list(self._queue)):
            if number % GROUPS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            group = topology.group(topology.profile(name[0]), name[1])
            todo.append((group, changes(group, layout)))
        await self.meter.look(layout.epoch, todo)
        return layout

    async def _order(self, layout: Layout) -> None:
        """Queue the groups that are to be moved, the most endangered first."""
        self._queued_for = layout.epoch, self._liveness()
        self._queue = []
        for number, group in enumerate(all_groups(self._storage)):
            if number % GROUPS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            if self._settled.get(number) is group:
                continue
            if self._is_pending(group, layout):
                self._queue.append((self._margin(group), number, _id(group)))
            else:
                self._settled[number] = group
        heapq.heapify(self._queue)

    async def _start_moves(self, layout: Layout, lanes: Lanes) -> None:
        while lanes.free and not self._stopping:
            group = await self._next(layout)
            if group is None:
                return
            self._under_way.add(_id(group))
            await lanes.start(self._move(layout, group))

    def _pending(self, layout: Layout) -> Iterator[Group]:
        """Groups that are not where the layout wants them."""
        return (group for group in all_groups(self._storage) if self._is_pending(group, layout))

    def _is_pending(self, group: Group, layout: Layout) -> bool:
        target = layout.target(group.profile.name, group.number)
        return target not in (None, group.nodes) or any(map(is_moving, group.record.slots))

    async def _next(self, layout: Layout) -> Group | None:
        """The most endangered group that may be taken in hand now, off the queue."""
        if (layout.epoch, self._liveness()) != self._queued_for:
            await self._order(layout)
        members = frozenset(node.node for node in layout.record.nodes)
        topology = self._storage.blobs.topology
        passed = 0
        while self._queue:
            margin, number, name = heapq.heappop(self._queue)
            group = topology.group(topology.profile(name[0]), name[1])
            if not self._is_pending(group, layout) or self._is_resting(group):
                continue
            if name in self._under_way:
                continue
            if self._margin(group) > margin:  # another process has moved some of it
                heapq.heappush(self._queue, (self._margin(group), number, name))
            elif self._can_move(group, layout, members):
                return group
            passed += 1
            if passed % GROUPS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return None

    def _is_resting(self, group: Group) -> bool:
        rest = self._rests.get(_id(group))
        return (
            rest is not None
            and rest.until > self._clock()
            and rest.revision == group.record.revision
        )

    def _liveness(self) -> dict[str, bool]:
        return {node.id: node.live for node in self._storage.blobs.directory.all()}

    def _can_move(self, group: Group, layout: Layout, members: Collection[str]) -> bool:
        """Whether a slot is moving to a node that is there, or may begin to."""
        directory = self._storage.blobs.directory
        slots = group.record.slots
        if any(is_moving(slot) and directory.usable(slot.node) for slot in slots):
            return True
        target = layout.target(group.profile.name, group.number)
        if target is None:
            return False
        planned = planned_slots(
            slots,
            target,
            ready=lambda node: node in members and directory.usable(node),
            gone=lambda node: node not in members and not self._is_live(node),
        )
        return planned != slots

    def _margin(self, group: Group) -> int:
        """How many further losses a group bears for certain."""
        lost = sum(not self._is_safe(slot) for slot in group.record.slots)
        return group.profile.scheme.tolerance - lost

    def _is_safe(self, slot: Slot) -> bool:
        """Whether a live node has the slot's shards: all of them, as far as the record tells."""
        if is_moving(slot) or not slot.node:
            return any(self._is_live(node) for node in slot.holders_before)
        return self._is_live(slot.node)

    def _is_live(self, node_id: str) -> bool:
        node = self._storage.blobs.directory.get(node_id)
        return node is not None and node.live

    async def _move(self, layout: Layout, group: Group) -> None:
        name = _id(group)
        done = stuck = False
        moves: list[GroupMove] = []

        async def move(claim: Claim) -> bool:
            moves.append(self._group_move(layout, group, claim))
            return await moves[0].run()

        try:
            done = await self._with_lock(keys.group_lock(*name), move)
            stuck = bool(moves) and not moves[0].progressed
        except (ClaimLost, Conflict, EngineError, OutcomeUnknown) as error:
            log.info("group %s/%d: the move is put off: %r", *name, error)
        except Exception:
            # One group, always among the first, must not hold up the rebuild of all others.
            log.exception("group %s/%d could not be moved", *name)
            stuck = True
        finally:
            self._under_way.discard(name)
        if done:
            self._rests.pop(name, None)
            self.meter.finished(group)
        else:
            self._rest(group, stuck=stuck)
        await self.meter.publish()

    def _group_move(self, layout: Layout, group: Group, claim: Claim) -> GroupMove:
        return GroupMove(
            self._storage,
            claim,
            group,
            layout.target(group.profile.name, group.number),
            epoch=layout.epoch,
            members=frozenset(node.node for node in layout.record.nodes),
            throttle=self._throttle,
            meter=self.meter,
            verified=self._verified,
        )

    async def _with_lock(self, key: bytes, work: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Do `work` under a lock; False when another process has it."""
        store = self._storage.store
        claim = await take_lock(store, key, self._identity, self._storage.lease())
        if claim is None:
            return False
        try:
            return await work(claim)
        finally:
            await give_back(store, claim)

    def _rest(self, group: Group, *, stuck: bool) -> None:
        """Leave a group alone for a while, twice as long as before if nothing came of the try."""
        name = _id(group)
        record = self._storage.blobs.topology.group(group.profile, group.number).record
        before = self._rests.get(name)
        seconds = REST_SECONDS_MIN
        if stuck and before is not None and before.revision == record.revision:
            seconds = min(REST_SECONDS_MAX, 2 * before.seconds)
        self._rests[name] = _Rest(self._clock() + seconds, seconds, record.revision)

    def _notice_returned(self) -> None:
        """Note the groups of nodes that live again, and forget the rests: more is possible now."""
        before, self._live = self._live, self._liveness()
        if any(live and not before.get(node, False) for node, live in self._live.items()):
            self._rests.clear()
        for node_id, live in self._live.items():
            # At the first look nothing is known of before; a node that comes later was away.
            if live and not before.get(node_id, not before):
                groups = [g for g in all_groups(self._storage) if node_id in g.nodes]
                self._returned[node_id] = groups
                log.info("node %s is back: its %d groups are merged", node_id, len(groups))

    async def _catch_up(self, until: float) -> None:
        """Merge groups of a node that came back. Another process that does so already is left to
        it, and the hourly merge does what nobody does here."""
        node_id, groups = next(iter(self._returned.items()))

        async def merge(claim: Claim) -> bool:
            while groups and self._clock() < until and not self._stopping:
                await self._merge.merge_group(claim, groups[-1], MergeReport())
                groups.pop()
            return bool(groups)

        more = False
        try:
            more = await self._with_lock(keys.lock(RETURNED_LOCK + node_id), merge)
        except (ClaimLost, Conflict, EngineError, OutcomeUnknown) as error:
            log.info("the groups of node %s are merged later: %r", node_id, error)
        except Exception:
            log.exception("the groups of node %s could not be merged", node_id)
        if not more:
            self._returned.pop(node_id, None)


def changes(group: Group, layout: Layout) -> int:
    """How many slots of a group have shards to come."""
    target = layout.target(group.profile.name, group.number) or group.nodes
    return sum(
        bool(node) and (node != slot.node or is_moving(slot))
        for slot, node in zip(group.record.slots, target, strict=True)
    )


def _id(group: Group) -> GroupId:
    return group.profile.name, group.number
