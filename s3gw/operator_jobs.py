"""What the admin port asks of workers and rescue: their functions as `s3gw.admin.port.Jobs`.

The admin package does not import them (they stand beside it in the order of imports); the gateway
hands them in.
"""

from __future__ import annotations

from functools import partial

from s3gw.admin import encryption_models, models, undo_models
from s3gw.admin.port import Run, conflict
from s3gw.kv.interface import Conflict
from s3gw.metadata.key_records import RewrapJob
from s3gw.metadata.records import ReprofileJob, UndoJob
from s3gw.objects.storage import Storage
from s3gw.objects.undo import NotVersioned
from s3gw.rescue import snapshot
from s3gw.workers import on_demand, progress, reprofile, rewrap, undo
from s3gw.workers.reprofile import ReprofileRefused
from s3gw.workers.undo import UndoRefused


class OperatorJobs:
    """The jobs of one store, as one process reaches them."""

    def __init__(self, storage: Storage, *, orphan_after_seconds: float) -> None:
        self._storage = storage
        self._kv = storage.store.kv
        merge = partial(on_demand.merge_all, storage, orphan_after_seconds=orphan_after_seconds)
        self.runs: dict[str, Run] = {
            "garbage": partial(on_demand.collect_garbage, storage),
            "verify": partial(on_demand.verify_all, storage),
            "repair": partial(on_demand.repair_all, storage),
            "merge": merge,
            "trash": partial(on_demand.purge_trash, storage),
            "lifecycle": partial(on_demand.carry_out_lifecycle, storage),
        }

    async def rebalance(self) -> models.Rebalance:
        found = progress.total(await progress.read_progress(self._kv))
        return models.Rebalance(
            found.epoch,
            found.groups_left,
            found.groups_done,
            found.bytes_left,
            found.bytes_moved,
            found.bytes_rebuilt,
            found.bytes_read,
            round(found.bytes_per_second, 1),
            found.eta_seconds,
        )

    async def snapshots(self) -> list[models.Snapshot]:
        return [
            models.Snapshot(
                record.incarnation, record.revision, record.created_ms, record.size, record.items
            )
            for record in await snapshot.list_snapshots(self._storage)
        ]

    async def take_snapshot(self) -> models.Snapshot:
        taken = await snapshot.take_snapshot(self._storage)
        incarnation = self._storage.store.identity.incarnation
        return models.Snapshot(
            incarnation, taken.revision, taken.created_ms, taken.size, taken.items
        )

    async def change_profile(self, bucket: str, profile: str) -> models.ProfileJob:
        try:
            job = await reprofile.start(self._kv, bucket, profile, now_ms=self._storage.clock_ms())
        except ReprofileRefused as error:
            raise conflict(str(error)) from error
        return _job(bucket, job)

    async def profile_job(self, bucket: str) -> models.ProfileJob | None:
        job = await reprofile.status(self._kv, bucket)
        return _job(bucket, job) if job is not None else None

    async def cancel_profile_job(self, bucket: str) -> models.ProfileJob:
        try:
            job = await reprofile.cancel(self._kv, bucket, now_ms=self._storage.clock_ms())
        except ReprofileRefused as error:
            raise conflict(str(error)) from error
        return _job(bucket, job)

    async def rewrap(self) -> encryption_models.Rewrap | None:
        job = (await rewrap.status(self._storage)).record
        return _rewrap(job) if job is not None else None

    async def start_rewrap(self) -> encryption_models.Rewrap:
        try:
            return _rewrap(await rewrap.start(self._storage))
        except Conflict as error:
            raise conflict("another request has begun it") from error

    async def plan_undo(
        self, bucket: str, prefix: str, at_ms: int, *, after: str, most: int
    ) -> undo_models.UndoPlan:
        try:
            page = await undo.plan(self._storage, bucket, prefix, at_ms, after=after, most=most)
        except NotVersioned:
            raise conflict(f"bucket {bucket} keeps no versions now") from None
        following = page.last.encode().hex()
        return undo_models.UndoPlan(page.keys, page.restored, page.hidden, page.left, following)

    async def start_undo(self, bucket: str, prefix: str, at_ms: int) -> undo_models.UndoView:
        try:
            return _undo(bucket, await undo.start(self._storage, bucket, prefix, at_ms))
        except UndoRefused as error:
            raise conflict(str(error)) from error

    async def undo(self, bucket: str) -> undo_models.UndoView | None:
        job = await undo.status(self._kv, bucket)
        return _undo(bucket, job) if job is not None else None

    async def cancel_undo(self, bucket: str) -> undo_models.UndoView:
        try:
            return _undo(bucket, await undo.cancel(self._storage, bucket))
        except UndoRefused as error:
            raise conflict(str(error)) from error


def _undo(bucket: str, job: UndoJob) -> undo_models.UndoView:
    return undo_models.UndoView(
        bucket,
        job.prefix,
        job.at_ms,
        job.state,
        job.started_ms,
        job.ended_ms,
        job.keys,
        job.restored,
        job.hidden,
        job.left,
        job.note,
    )


def _rewrap(job: RewrapJob) -> encryption_models.Rewrap:
    return encryption_models.Rewrap(
        job.state,
        job.stage,
        job.started_ms,
        job.ended_ms,
        job.walked,
        job.rewrapped,
        job.failed,
        job.kept,
        job.note,
        job.proving,
        job.master_key.hex(),
    )


def _job(bucket: str, job: ReprofileJob) -> models.ProfileJob:
    return models.ProfileJob(
        bucket,
        list(job.sources),
        job.target,
        job.state,
        job.stage,
        job.started_ms,
        job.ended_ms,
        job.blobs_done,
        job.bytes_done,
        job.blobs_left,
        job.rounds,
        job.note,
    )
