"""Shard verification (scrub): every shard is read by its own node and checked against its
checksums; what is not whole goes into the repair queue. Nodes work side by side, each on one
shard at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from nodes.protocol import DriveError, DriveRefused, ShardEntry, ShardMissing, ShardName
from s3gw.cluster.topology import Group
from s3gw.metadata.records import Repair
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim
from s3gw.workers.damage import URGENCY_DAMAGED, queue_repairs
from s3gw.workers.walk import Walk, all_groups, list_group

INTERVAL_SECONDS = 24 * 3600.0
VERIFY_SECONDS_MAX = 300.0


@dataclass(slots=True)
class VerifyReport:
    """What a run saw: shards and bytes verified, shards that are not whole, blobs queued for
    repair, shards that could not be asked for, nodes that could not be listed."""

    groups: int = 0
    shards: int = 0
    bytes: int = 0
    damaged: int = 0
    queued: int = 0
    unanswered: int = 0
    unlisted: set[str] = field(default_factory=set)


class ShardVerifier:
    """The worker. One unit is one placement group."""

    name = "verify"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._walk = Walk(storage, self.name)

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        group = await self._walk.next()
        if group is not None:
            await self.verify_group(group, VerifyReport())
        await self._walk.passed(claim, group)
        return group is not None

    async def run_once(self, claim: Claim = UNCLAIMED) -> VerifyReport:
        """Verify every shard of the store."""
        report = VerifyReport()
        for group in all_groups(self._storage):
            await self.verify_group(group, report)
        return report

    async def verify_group(self, group: Group, report: VerifyReport) -> None:
        """Verify all shards of a group, wherever they lie."""
        listings = await list_group(self._storage, group)
        found = await asyncio.gather(
            *(
                self._verify_node(node, group, entries, report)
                for node, entries in listings.entries.items()
            )
        )
        bad = {repair.blob: repair for repairs in found for repair in repairs}
        report.queued += await queue_repairs(
            self._storage.store, list(bad.values()), URGENCY_DAMAGED
        )
        report.groups += 1
        report.unlisted |= listings.unlisted

    async def _verify_node(
        self, node_id: str, group: Group, entries: Sequence[ShardEntry], report: VerifyReport
    ) -> list[Repair]:
        bad: list[Repair] = []
        node = self._storage.blobs.directory.get(node_id)
        for entry in entries if node is not None else ():
            assert node is not None
            name = ShardName(group.profile.name, group.number, entry.blob, entry.index)
            try:
                async with asyncio.timeout(VERIFY_SECONDS_MAX):
                    verdict = await node.drive.verify(name)
            except ShardMissing:
                continue  # removed since it was listed; merging finds what is missing
            except (DriveError, DriveRefused, TimeoutError):
                report.unanswered += 1
                continue
            report.shards += 1
            report.bytes += entry.bytes_stored
            if not verdict.whole:
                report.damaged += 1
                reason = verdict.reason or f"{len(verdict.damaged_blocks)} blocks are damaged"
                bad.append(
                    Repair(
                        group.profile.name,
                        group.number,
                        entry.blob,
                        f"shard {entry.index} on {node_id}: {reason}",
                        self._storage.clock_ms(),
                    )
                )
        return bad
