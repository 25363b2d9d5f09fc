"""The rebalancer: keeps placement groups moving towards the layout.

A node was lost and is out, one was added, drained, removed or weighed anew: each is the next epoch
of the layout, and all that is left to do is to move groups there (`s3gw.workers.group_move`).
Rebuild and rebalance are one thing.

Any number of processes share the work: each group has a lock under the lease of whoever moves it,
and one that is locked is passed over. The most endangered groups come first: those that could bear
the fewest further losses. How many are moved at a time, and how many bytes per second a process
reads for it, are settings that may be changed meanwhile.

A node that comes back before it is out is given back nothing; it needs what was written or deleted
while it was away. What was written is in the repair queue or missing on it: its groups are merged
soon after its return.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator

from s3gw.cluster import layouts
from s3gw.cluster.layouts import Layout
from s3gw.cluster.topology import Group
from s3gw.cluster.tunables import LiveTunables, Throttle
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
from s3gw.workers.walk import all_groups

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
UNIT_SECONDS = 20.0
# A group that could not be finished (a node is down or full, another has the lock) rests so long.
REST_SECONDS_MIN = 5.0
REST_SECONDS_MAX = 60.0
RETURNED_LOCK = "returned/"


class Rebalancer:
    """The worker. One unit starts moves for a while, and ends with the last of them."""

    name = "rebalance"
    exclusive = False

    def __init__(
        self,
        storage: Storage,
        tunables: LiveTunables,
        *,
        merge: MergeAndRepair | None = None,
        throttle: Throttle | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._tunables = tunables
        self._merge = merge or MergeAndRepair(storage)
        self._sleep = sleep
        self._clock = clock
        self._throttle = throttle or Throttle(
            lambda: tunables.current.rebuild_bytes_per_second, clock=clock, sleep=sleep
        )
        self._identity = os.urandom(16)
        self._under_way: set[GroupId] = set()
        self._rests: dict[GroupId, tuple[float, float]] = {}
        self._epoch = 0
        self._live: dict[str, bool] = {}
        self._returned: dict[str, list[Group]] = {}
        self.meter = Meter(storage, clock)

    async def wait(self) -> None:
        await self._sleep(LOOK_SECONDS)

    async def work(self, claim: Claim) -> bool:
        layout = await layouts.current(self._storage.store.kv)
        self._notice_returned()
        await self._look(layout)
        until = self._clock() + UNIT_SECONDS
        async with Lanes(lambda: self._tunables.current.rebuild_groups_at_once) as lanes:
            if self._returned:
                await lanes.start(self._catch_up(until))
            await self._move_groups(layout, lanes, lambda: self._clock() < until)
        return bool(self._returned) or self._next(layout) is not None

    async def run_once(self) -> bool:
        """Move all groups that can be moved now; whether none is left."""
        layout = await layouts.current(self._storage.store.kv)
        self._rests.clear()
        await self._look(layout)
        async with Lanes(lambda: self._tunables.current.rebuild_groups_at_once) as lanes:
            await self._move_groups(layout, lanes, lambda: True)
        await self._look(layout)
        return not any(True for _ in self._pending(layout))

    async def _look(self, layout: Layout) -> None:
        """Count what is left, and forget the rests when the layout is another one."""
        if layout.epoch != self._epoch:
            self._epoch = layout.epoch
            self._rests.clear()
        todo = [(group, changes(group, layout)) for group in self._pending(layout)]
        await self.meter.look(layout.epoch, todo)

    async def _move_groups(self, layout: Layout, lanes: Lanes, go_on: Callable[[], bool]) -> None:
        while go_on() and (group := self._next(layout)) is not None:
            self._under_way.add(_id(group))
            await lanes.start(self._move(layout, group))

    def _pending(self, layout: Layout) -> Iterator[Group]:
        """Groups that are not where the layout wants them."""
        for group in all_groups(self._storage):
            target = layout.target(group.profile.name, group.number)
            if any(map(is_moving, group.record.slots)) or target not in (None, group.nodes):
                yield group

    def _next(self, layout: Layout) -> Group | None:
        """The most endangered group that may be taken in hand now."""
        now = self._clock()
        members = frozenset(node.node for node in layout.record.nodes)
        for group in sorted(self._pending(layout), key=self._margin):
            resting = self._rests.get(_id(group), (0.0, 0.0))[0] > now
            if _id(group) in self._under_way or resting:
                continue
            if self._can_move(group, layout, members):
                return group
        return None

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
        try:
            done = await self._with_lock(
                keys.group_lock(*name), lambda claim: self._move_locked(layout, group, claim)
            )
        except (ClaimLost, Conflict, EngineError, OutcomeUnknown) as error:
            log.info("group %s/%d: the move is put off: %r", *name, error)
            done = False
        except Exception:
            # One group, always among the first, must not hold up the rebuild of all others.
            log.exception("group %s/%d could not be moved", *name)
            done = False
        finally:
            self._under_way.discard(name)
        if done:
            self._rests.pop(name, None)
            self.meter.finished(group)
        else:
            self._rest(name)
        await self.meter.publish()

    async def _move_locked(self, layout: Layout, group: Group, claim: Claim) -> bool:
        move = GroupMove(
            self._storage,
            claim,
            group,
            layout.target(group.profile.name, group.number),
            epoch=layout.epoch,
            members=frozenset(node.node for node in layout.record.nodes),
            throttle=self._throttle,
            meter=self.meter,
        )
        return await move.run()

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

    def _rest(self, name: GroupId) -> None:
        """Leave a group alone for a while, longer each time."""
        _, before = self._rests.get(name, (0.0, 0.0))
        seconds = min(REST_SECONDS_MAX, max(REST_SECONDS_MIN, 2 * before))
        self._rests[name] = (self._clock() + seconds, seconds)

    def _notice_returned(self) -> None:
        """Note the groups of nodes that live again, and forget the rests: more is possible now."""
        before = self._live
        self._live = {node.id: node.live for node in self._storage.blobs.directory.all()}
        if any(live and not before.get(node, False) for node, live in self._live.items()):
            self._rests.clear()
        for node_id, live in self._live.items():
            if live and not before.get(node_id, True):
                groups = [g for g in all_groups(self._storage) if node_id in g.nodes]
                self._returned[node_id] = groups
                log.info("node %s is back: its %d groups are merged", node_id, len(groups))

    async def _catch_up(self, until: float) -> None:
        """Merge groups of a node that came back. Another process that does so already is left to
        it, and the hourly merge does what nobody does here."""
        node_id, groups = next(iter(self._returned.items()))

        async def merge(claim: Claim) -> bool:
            while groups and self._clock() < until:
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
