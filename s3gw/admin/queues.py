"""What waits or goes on: repairs, open uploads, verification; and the buckets."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec

from s3gw import limits
from s3gw.admin import models
from s3gw.admin.port import AdminPort, not_found
from s3gw.cluster.ledger import read_scrub
from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import PartRecord, Repair, UploadRecord, decode
from s3gw.objects.buckets import find_bucket, list_buckets
from s3gw.objects.storage import Storage

READS_AT_ONCE = 8


async def repairs(port: AdminPort, query: models.PageQuery) -> models.Repairs:
    """Blobs that wait for repair, the most urgent first."""
    start, end = _range(keys.REPAIRS, query.after)
    page = await port.storage.store.kv.scan(start, end, limit=query.limit)
    entries = []
    for item in page.items:
        repair = decode(Repair, item.value)
        entries.append(
            models.RepairEntry(
                repair.profile,
                repair.pg,
                repair.blob.hex(),
                item.key[len(keys.REPAIRS)],
                repair.reason,
                repair.queued_ms,
                repair.not_before_ms,
                repair.attempts,
            )
        )
    return models.Repairs(entries, _next(page.items, page.more))


def _range(prefix: bytes, after: str) -> tuple[bytes, bytes]:
    """What is left of the keys under `prefix` behind the key `after`."""
    start = max(prefix, bytes.fromhex(after) + b"\x00") if after else prefix
    return min(start, keys.after_prefix(prefix)), keys.after_prefix(prefix)


def _next(items: list[Item], more: bool) -> str:
    return items[-1].key.hex() if more and items else ""


async def uploads(port: AdminPort, query: models.UploadsQuery) -> models.Uploads:
    """Open multipart uploads of all buckets, with their parts so far."""
    storage = port.storage
    start, end = _range(keys.UPLOADS, query.after)
    page = await storage.store.scan_listed(start, end, limit=query.limit)
    at_once = asyncio.Semaphore(READS_AT_ONCE)

    async def describe(item: Item) -> models.UploadEntry:
        bucket, key, upload_id = keys.split_upload(item.key)
        record = decode(UploadRecord, item.value)
        async with at_once:
            parts, size = await _parts(storage, upload_id)
        age_ms = max(0, storage.clock_ms() - record.initiated_ms)
        return models.UploadEntry(
            bucket,
            key,
            upload_id.hex(),
            record.state,
            record.initiated_ms,
            age_ms / 1000,
            parts,
            size,
        )

    entries = list(await asyncio.gather(*map(describe, page.items)))
    return models.Uploads(entries, _next(page.items, page.more))


async def _parts(storage: Storage, upload_id: bytes) -> tuple[int, int]:
    """Number and bytes of an upload's parts. One read: there are at most PART_NUMBER_MAX."""
    prefix = keys.parts(upload_id)
    page = await storage.store.kv.scan(
        prefix, keys.after_prefix(prefix), limit=limits.SCAN_ITEMS_MAX
    )
    sizes = [decode(PartRecord, item.value).size for item in page.items]
    return len(sizes), sum(sizes)


async def buckets(port: AdminPort, query: models.BucketsQuery) -> models.Buckets:
    """Buckets by name, with what is in them."""
    storage = port.storage
    page = await list_buckets(storage, prefix="", after=query.after, most=query.limit)
    at_once = asyncio.Semaphore(READS_AT_ONCE)

    async def describe(
        name: str, created_ms: int, profile: str, versioning: str
    ) -> models.BucketEntry:
        prefix = keys.usages(name)
        async with at_once:
            slots = await storage.store.kv.scan(
                prefix, keys.after_prefix(prefix), limit=limits.USAGE_SLOTS_MAX
            )
        usage = total(slots.items)
        return models.BucketEntry(
            name,
            created_ms,
            profile,
            versioning,
            usage.objects,
            usage.versions,
            usage.bytes,
            usage.uploads,
            usage.pending_bytes,
            usage.trash_objects,
            usage.trash_bytes,
        )

    found = await asyncio.gather(
        *(
            describe(name, record.created_ms, record.profile, record.versioning)
            for name, record in page.buckets
        )
    )
    return models.Buckets(list(found), page.buckets[-1][0] if page.more and page.buckets else "")


async def change_profile(
    port: AdminPort, path: models.BucketPath, body: models.ChangeProfile
) -> models.ProfileJob:
    """Give a bucket another profile: for new objects at once, for the others by a job."""
    await find_bucket(port.storage, path.bucket)
    return await port.jobs.change_profile(path.bucket, body.profile)


async def profile_job(port: AdminPort, path: models.BucketPath) -> models.ProfileJob:
    """How far the last change of a bucket's profile has come."""
    await find_bucket(port.storage, path.bucket)
    job = await port.jobs.profile_job(path.bucket)
    if job is None:
        raise not_found("NoProfileJob", f"the profile of {path.bucket} was never changed")
    return job


async def cancel_profile_job(port: AdminPort, path: models.BucketPath) -> models.ProfileJob:
    """Stop moving a bucket's blobs. The bucket keeps its new profile, and what was moved stays."""
    await find_bucket(port.storage, path.bucket)
    return await port.jobs.cancel_profile_job(path.bucket)


async def scrub(port: AdminPort) -> models.Scrub:
    """How far the verification of all shards has come."""
    state = await read_scrub(port.storage.store.kv)
    topology = port.storage.blobs.topology
    return models.Scrub(
        groups=sum(profile.pg_count for profile in topology.profiles()),
        current=_round(state.current),
        last=_round(state.last_round),
        interval_seconds=port.tunables.current.scrub_interval_seconds,
        bytes_per_second=port.tunables.current.scrub_bytes_per_second,
    )


def _round(record: msgspec.Struct) -> models.ScrubRound | None:
    """A round of verification; None when there is none."""
    view = models.ScrubRound(**msgspec.structs.asdict(record))
    return view if view.started_ms else None


async def snapshots(port: AdminPort) -> models.Snapshots:
    """The snapshots of the metadata that the nodes keep, oldest first."""
    return models.Snapshots(await port.jobs.snapshots())


async def take_snapshot(port: AdminPort) -> models.Snapshot:
    """Take a snapshot of the metadata now."""
    return await port.jobs.take_snapshot()


async def run(port: AdminPort, path: models.WorkerPath) -> models.RunReport:
    """Run a background worker to its end now; beside the one that runs anyway this is safe."""
    worker = port.jobs.runs.get(path.worker)
    if worker is None:
        raise not_found("NoSuchWorker", f"there are {', '.join(sorted(port.jobs.runs))}")
    started = port.storage.monotonic()
    report = await worker()
    described = {
        field.name: msgspec.to_builtins(getattr(report, field.name))
        for field in dataclasses.fields(report)
    }
    return models.RunReport(path.worker, round(port.storage.monotonic() - started, 3), described)
