"""Nodes that stay away are taken out of the layout, and taken back when they return.

A node whose lease has ended is down: reads avoid it and writes go around it at once. Only when it
has been down for `rebuild_after_seconds` does this worker make a layout without it, upon which its
shards are rebuilt elsewhere. A record per node counts the time in seconds of the worker's own
monotonic clock between two looks, so that no clock needs to be right and another worker counts on:

    down for a look    down_seconds grows, well_seconds begins again at 0
    well for a look    well_seconds grows; at down_seconds the record is forgotten

so that the time of a flapping node adds up. A node that was taken out and has been well for a
quarter of that time (at most a minute) becomes what it was before, in a layout of its own.

**Mass expiry.** When more nodes than the schemes tolerate go down within a lease's time of each
other, or the metadata engine was away or changed its leader then, it is more likely that something
else is wrong than that all of them are lost. Nothing is taken out then for `hold_down_seconds`,
which are counted in the records of those nodes too. Nodes that a worker finds down at its first
look count as gone at that moment, unless a former worker has a record of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from s3gw import limits
from s3gw.cluster import layouts
from s3gw.cluster.directory import Directory
from s3gw.cluster.epochs import ACTIVE, KEEPS_SHARDS, OUT, Layout, eligible, registered
from s3gw.cluster.tunables import LiveTunables
from s3gw.kv.interface import KV, At, Conflict, EngineError
from s3gw.metadata import keys
from s3gw.metadata.records import Departure, LayoutNode, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction, Versioned
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim, commit

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# Time between two looks beyond so many is not counted: nobody knows what happened in it.
LOOKS_MISSED_MAX = 3
RETURN_SECONDS_MAX = 60.0
RETURN_PART = 0.25
RECORDS_PER_COMMIT = 100
NODES_NAMED_MAX = 8

Live = Callable[[], Awaitable[Collection[str]]]
"""The nodes that are up, read afresh. May raise EngineError."""


def leases_live(kv: KV) -> Live:
    """The nodes with a lease, but for those that an operator wants to count as down."""

    async def live() -> Collection[str]:
        failing = await kv.scan(
            keys.FAILURES,
            keys.after_prefix(keys.FAILURES),
            limit=limits.SCAN_ITEMS_MAX,
            keys_only=True,
        )
        down = {item.key[len(keys.FAILURES) :].decode() for item in failing.items}
        return await registered(kv) - down

    return live


def drives_live(directory: Directory) -> Live:
    """The drives of this machine that answer (s3gw.cluster.drive_watch)."""

    async def live() -> Collection[str]:
        return {node.id for node in directory.all() if node.live}

    return live


async def read_departures(kv: KV) -> dict[str, Versioned[Departure]]:
    """The nodes that are, or were lately, down. Raises EngineError."""
    prefix = keys.DEPARTURES
    page = await kv.scan(prefix, keys.after_prefix(prefix), limit=limits.SCAN_ITEMS_MAX)
    return {
        item.key[len(prefix) :].decode(): Versioned(decode(Departure, item.value), item.revision)
        for item in page.items
    }


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look found; `departures` as counted now."""

    layout: Layout
    down: frozenset[str]
    departures: Mapping[str, Departure]


class Departures:
    """The worker. One unit is one look.

    `held_back` says why lost nodes are not taken out at the moment ("" when nothing keeps them),
    and `hold_down_until` how long that lasts at least, by `clock`.
    """

    name = "departures"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        tunables: LiveTunables,
        live: Live,
        *,
        lease_seconds: float,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._kv = storage.store.kv
        self._tunables = tunables
        self._live = live
        self._look_seconds = look_seconds
        self._unseen_seconds = LOOKS_MISSED_MAX * look_seconds
        # Leases that end together are seen to end within this time.
        self._together_seconds = lease_seconds + look_seconds
        self._clock = clock
        self._sleep = sleep
        self._claim: Claim | None = None
        self._looked_at: float | None = None
        self._trouble: tuple[float, float] | None = None
        self._disturbances = self._kv.disturbances
        self._down: frozenset[str] | None = None
        self._went_down_at: dict[str, float] = {}
        self.hold_down_until = 0.0
        self.held_back = ""

    async def wait(self) -> None:
        await self._sleep(self._look_seconds)

    async def work(self, claim: Claim) -> bool:
        """Look once, and act on it. Always False: the next look has its time. Raises EngineError,
        ClaimLost, OutcomeUnknown."""
        try:
            await self._look(claim)
        except layouts.NoLayout:
            pass  # the store is being made
        except Conflict:
            raise  # another looks, too: nothing is wrong with the engine
        except (EngineError, OutcomeUnknown):
            self._note_trouble(self._clock())
            raise
        return False

    async def _look(self, claim: Claim) -> None:
        live = await self._live()
        layout = await layouts.current(self._kv)
        records = await read_departures(self._kv)
        now = self._clock()
        self._note_disturbances(now)
        elapsed = self._elapsed(claim, now)
        down = frozenset(node.node for node in layout.record.nodes if node.node not in live)
        counted = self._count(layout, down, records, elapsed)
        self._note_gone(down, records, now)
        self._hold(layout, counted, now)
        look = _Look(layout, down, counted)
        returned = self._returned(look)
        for node in returned:
            counted[node] = msgspec.structs.replace(counted[node], down_seconds=0.0)
        await self._store(claim, records, counted)
        self._down = down
        changes = [layouts.SetState(node, counted[node].state) for node in returned]
        if not self.held_back:
            changes += [layouts.SetState(node, OUT) for node in self._gone(look)]
        if changes:
            await self._apply(claim, look, changes)

    # What has happened

    def _elapsed(self, claim: Claim, now: float) -> float:
        """Seconds since the last look that this worker has seen pass under this lock."""
        last, self._looked_at = self._looked_at, now
        if last is not None and now - last > self._unseen_seconds:
            self._note_trouble(now, since=last)  # nothing could be seen for that long
        if claim != self._claim:
            # Another may have counted in between, and what it saw is in the records.
            self._claim, self._down = claim, None
            return 0.0
        return min(now - last, self._unseen_seconds) if last is not None else 0.0

    def _note_trouble(self, now: float, since: float | None = None) -> None:
        """The engine could not be asked, from `since` (now) until now."""
        begin = now if since is None else since
        if self._trouble is not None and begin - self._trouble[1] <= self._together_seconds:
            begin = self._trouble[0]
        self._trouble = (begin, now)

    def _note_disturbances(self, now: float) -> None:
        """Ask whether the engine was away or changed its leader since the last look."""
        before, self._disturbances = self._disturbances, self._kv.disturbances
        if self._disturbances != before and self._looked_at is not None:
            self._note_trouble(now, since=max(self._looked_at, now - self._unseen_seconds))

    def _note_gone(
        self, down: frozenset[str], records: Mapping[str, Versioned[Departure]], now: float
    ) -> None:
        """Remember which nodes went down when, as long as that may matter."""
        known = self._down
        if known is None:
            found = {node: versioned.record for node, versioned in records.items()}
            known = frozenset(
                n for n, record in found.items() if record and not record.well_seconds
            )
        self._went_down_at |= dict.fromkeys(down - known, now)
        self._went_down_at = {
            node: at
            for node, at in self._went_down_at.items()
            if now - at <= self._together_seconds or self._amid_trouble(at)
        }

    def _amid_trouble(self, at: float) -> bool:
        """Whether the engine was away within a lease's time of this moment."""
        if self._trouble is None:
            return False
        begin, end = self._trouble
        return begin - self._together_seconds <= at <= end + self._together_seconds

    def _count(
        self,
        layout: Layout,
        down: frozenset[str],
        records: Mapping[str, Versioned[Departure]],
        elapsed: float,
    ) -> dict[str, Departure]:
        """The departures after this look; one that is not there is to be forgotten."""
        counted: dict[str, Departure] = {}
        for node in layout.record.nodes:
            versioned = records.get(node.node)
            before = versioned.record if versioned is not None else None
            if before is None:
                if node.node in down:
                    counted[node.node] = Departure(0.0, state=_own_state(node))
                continue
            # Time in which the node changed is counted neither way.
            same = self._down is not None and (node.node in self._down) == (node.node in down)
            seen = elapsed if same else 0.0
            hold = max(0.0, before.hold_seconds - elapsed)
            if node.node in down:
                after = Departure(before.down_seconds + seen, 0.0, hold, before.state)
            else:
                after = Departure(
                    before.down_seconds, before.well_seconds + seen, hold, before.state
                )
            if node.state != OUT:
                after = msgspec.structs.replace(after, state=_own_state(node))
                well_enough = after.well_seconds >= after.down_seconds and same
                if node.node not in down and well_enough and not hold:
                    continue
            counted[node.node] = after
        return counted

    def _hold(self, layout: Layout, counted: dict[str, Departure], now: float) -> None:
        """Begin a hold-down if nodes went down in a way that needs one; say whether one lasts."""
        gone = self._went_down_at
        hosts = {node.node: node.host or node.node for node in layout.record.nodes}
        lately = [node for node, at in gone.items() if now - at <= self._together_seconds]
        troubled = [node for node, at in gone.items() if self._amid_trouble(at)]
        together = len({hosts[node] for node in lately if node in hosts}) > self._tolerance()
        event = [gone[node] for node in troubled]
        if troubled and self._trouble is not None:
            event.append(self._trouble[1])
        if together:
            event += [gone[node] for node in lately]
        if event:
            left = self._tunables.current.hold_down_seconds - (now - max(event))
            for node in {*troubled, *(lately if together else ())} & counted.keys():
                hold = max(left, counted[node].hold_seconds)
                counted[node] = msgspec.structs.replace(counted[node], hold_seconds=hold)
        holds = {n: d.hold_seconds for n, d in counted.items() if d.hold_seconds > 0}
        before, self.held_back = self.held_back, ""
        if holds:
            self.hold_down_until = now + max(holds.values())
            self.held_back = (
                f"{len(holds)} nodes went down together, or while the metadata engine was away or "
                "changed its leader "
                f"({', '.join(sorted(holds)[:NODES_NAMED_MAX])}): none is taken out for now"
            )
            if not before:
                log.error("%s, for %.0f s", self.held_back, max(holds.values()))

    def _tolerance(self) -> int:
        """The losses that every blob of the most tolerant profile survives."""
        profiles = self._storage.blobs.topology.profiles()
        return max((profile.scheme.tolerance for profile in profiles), default=0)

    # What is done about it

    def _returned(self, look: _Look) -> list[str]:
        """Nodes that were taken out here and have been well for long enough."""
        after = min(RETURN_SECONDS_MAX, RETURN_PART * self._tunables.current.rebuild_after_seconds)
        return [
            node.node
            for node in look.layout.record.nodes
            if node.state == OUT
            and node.node not in look.down
            and node.node in look.departures
            and look.departures[node.node].well_seconds >= after
        ]

    def _gone(self, look: _Look) -> list[str]:
        """Nodes to take out, those that have been away longest first; never so many that too few
        are left for blobs to survive any loss."""
        away = look.departures
        lost = [
            node.node
            for node in look.layout.record.nodes
            if node.state in KEEPS_SHARDS
            and node.node in look.down
            and away[node.node].down_seconds >= self._tunables.current.rebuild_after_seconds
        ]
        lost.sort(key=lambda node: (-away[node].down_seconds, node))
        able = eligible(look.layout.record.nodes)
        spare = max(0, len(able) - self._tolerance() - 1)
        taken = [node for node in lost if node not in able]
        taken += [node for node in lost if node in able][:spare]
        if len(taken) < len(lost):
            self.held_back = (
                f"{len(lost) - len(taken)} lost nodes stay in the layout, because {len(able)} are "
                f"too few to do without them: add nodes"
            )
        return taken

    async def _store(
        self,
        claim: Claim,
        records: Mapping[str, Versioned[Departure]],
        counted: Mapping[str, Departure],
    ) -> None:
        """Write what has changed. Raises Conflict, ClaimLost, OutcomeUnknown, EngineError."""
        none: Versioned[Departure] = Versioned(None, 0)
        changed = sorted(
            node
            for node in records.keys() | counted.keys()
            if records.get(node, none).record != counted.get(node)
        )
        for first in range(0, len(changed), RECORDS_PER_COMMIT):
            tx = Transaction()
            for node in changed[first : first + RECORDS_PER_COMMIT]:
                key = keys.departure(node)
                tx.expect(key, records.get(node, none).revision)
                if node in counted:
                    tx.put(key, counted[node])
                else:
                    tx.delete(key)
            await commit(self._storage.store, claim, tx)

    async def _apply(self, claim: Claim, look: _Look, changes: Sequence[layouts.SetState]) -> None:
        """Make the next layout. What another layout meanwhile forestalls is left to the next
        look."""
        reason = ", ".join(
            f"{change.node} was down for {look.departures[change.node].down_seconds:.0f} s"
            if change.state == OUT
            else f"{change.node} is back"
            for change in changes[:NODES_NAMED_MAX]
        )
        try:
            epoch = await layouts.apply(
                self._kv,
                self._storage.blobs.topology,
                layouts.changed(look.layout.record.nodes, changes),
                reason=reason,
                now_ms=self._storage.clock_ms(),
                expected_epoch=look.layout.epoch,
                also=[At(claim.key, claim.revision)] if claim.key else [],
            )
        except layouts.LayoutConflict as conflict:
            log.info("no layout was made: %s", conflict)
        except layouts.LayoutRefused as refusal:
            self.held_back = f"a layout without lost nodes cannot be made: {refusal}"
            log.error("%s", self.held_back)  # noqa: TRY400 - the text says it all
        else:
            log.warning("layout %d: %s", epoch, reason)


def _own_state(node: LayoutNode) -> str:
    """The state that a node is to have again when it returns."""
    return node.state if node.state != OUT else ACTIVE
