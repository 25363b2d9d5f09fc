"""What the admin port asks of workers and rescue: their functions as `s3gw.admin.port.Jobs`.

The admin package does not import them (they stand beside it in the order of imports); the gateway
hands them in.
"""

from __future__ import annotations

from functools import partial

from s3gw.admin import models
from s3gw.admin.port import Run, conflict
from s3gw.metadata.records import ReprofileJob
from s3gw.objects.storage import Storage
from s3gw.rescue import snapshot
from s3gw.workers import on_demand, progress, reprofile
from s3gw.workers.reprofile import ReprofileRefused


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
