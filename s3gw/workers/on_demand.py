"""Runs of the workers on demand, for the admin API. They need no lock: each commit and deletion
is guarded by what it was decided on, so that a run beside the background worker is safe."""

from __future__ import annotations

from s3gw.objects.restore import Emptied
from s3gw.objects.storage import Storage
from s3gw.workers.completed import CompletedExpiry, ExpiryReport
from s3gw.workers.garbage import GarbageCollector, GarbageReport
from s3gw.workers.lifecycle import Lifecycle, LifecycleReport
from s3gw.workers.lifecycle_walk import LifecycleWalk
from s3gw.workers.merge import (
    ORPHAN_AFTER_SECONDS,
    SURPLUS_AFTER_SECONDS,
    MergeAndRepair,
    MergeReport,
)
from s3gw.workers.repair import RepairReport, RepairWorker
from s3gw.workers.stale_uploads import StaleReport, StaleUploads
from s3gw.workers.trash import TrashPurge
from s3gw.workers.undo import Undoer
from s3gw.workers.verify import ShardVerifier, VerifyReport


async def collect_garbage(storage: Storage) -> GarbageReport:
    """Collect all garbage that is due."""
    return await GarbageCollector(storage).run_once()


async def verify_all(storage: Storage) -> VerifyReport:
    """Verify every shard; what is not whole is queued for repair."""
    return await ShardVerifier(storage).run_once()


async def repair_all(storage: Storage) -> RepairReport:
    """Take every entry of the repair queue in hand once."""
    return await RepairWorker(storage).run_once()


async def merge_all(
    storage: Storage,
    *,
    orphan_after_seconds: float = ORPHAN_AFTER_SECONDS,
    surplus_after_seconds: float = SURPLUS_AFTER_SECONDS,
) -> MergeReport:
    """Compare every placement group's shards with its references, and put right what differs."""
    worker = MergeAndRepair(
        storage,
        orphan_after_seconds=orphan_after_seconds,
        surplus_after_seconds=surplus_after_seconds,
    )
    return await worker.run_once()


async def expire_completed(storage: Storage) -> ExpiryReport:
    """Remove records of completed uploads whose day is over."""
    return await CompletedExpiry(storage).run_once()


async def end_stale_uploads(storage: Storage, after_seconds: float) -> StaleReport:
    """Abort uploads older than this (0: none), and give back those whose owner is gone."""
    return await StaleUploads(storage, after_seconds).run_once()


async def carry_out_lifecycle(storage: Storage) -> LifecycleReport:
    """Queue what is in buckets whose lifecycle rules were changed, and do all that is due."""
    await LifecycleWalk(storage).run_once()
    return await Lifecycle(storage).run_once()


async def purge_trash(storage: Storage) -> Emptied:
    """Let what has been in the trash for long enough leave it."""
    return await TrashPurge(storage).run_once()


async def finish_undos(storage: Storage) -> None:
    """Do all undos that are under way to their end."""
    undoer = Undoer(storage)
    while await undoer.work():
        pass
