"""The inventory configurations of all buckets, and how their last reports went."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from s3gw import errors, limits
from s3gw.buckets.configurations import INVENTORY
from s3gw.buckets.inventory import Inventory, next_slot_ms, read_inventory, slot_ms
from s3gw.kv.interface import KV, At, Conflict, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.inventory_records import InventoryRun
from s3gw.metadata.records import BucketRecord, Configurations, RecordFormatError, encode
from s3gw.metadata.store import Versioned, versioned
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)

ASKED, WRITING, PUBLISHING, DONE, FAILED = "asked", "writing", "publishing", "done", "failed"
UNDER_WAY = frozenset({WRITING, PUBLISHING})


class InventoryRefused(Exception):
    """A report cannot be asked for now; the message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A configuration, as it is kept and as it is understood, and the record of its report."""

    bucket: str
    document: bytes
    inventory: Inventory
    run: Versioned[InventoryRun]

    @property
    def key(self) -> bytes:
        return keys.inventory(self.bucket, self.inventory.id)


def due_ms(job: Job, now_ms: int) -> int:
    """When the next report is to be begun, now or in the past if it is time; -1 for never."""
    run = job.run.record
    if run is not None and run.state in UNDER_WAY:
        return run.started_ms  # whoever made it has died
    if run is not None and run.state == ASKED:
        return now_ms
    if not job.inventory.enabled:
        return -1
    if run is None:
        return now_ms
    if run.state == FAILED:
        return min(run.retry_ms, next_slot_ms(job.inventory.weekly, run.started_ms))
    if slot_ms(job.inventory.weekly, now_ms) > run.started_ms:
        return slot_ms(job.inventory.weekly, now_ms)
    return next_slot_ms(job.inventory.weekly, now_ms)


async def all_jobs(kv: KV) -> tuple[list[Job], list[Item]]:
    """Every inventory configuration, by bucket and id; and the records of reports whose
    configuration is gone. Costs in proportion to the configurations of all kinds. Raises
    EngineError."""
    # Read first: what has a record had a configuration then.
    runs = {item.key: item for item in await _under(kv, keys.INVENTORIES)}
    wanted = [
        item.key
        for item in await _under(kv, keys.CONFIGURATIONS, keys_only=True)
        if keys.split_configurations(item.key)[1] == INVENTORY.name
    ]
    found: list[Job] = []
    for key in wanted:
        item = (await kv.get_many([key])).items[0]
        bucket = keys.split_configurations(key)[0]
        try:
            held = versioned(Configurations, item).record
        except RecordFormatError:  # it must not stop other buckets, nor let go of its reports
            log.exception("the inventory configurations of bucket %s", bucket)
            for run_key in [one for one in runs if keys.split_inventory(one)[0] == bucket]:
                del runs[run_key]
            continue
        for id_, document in (held.by_id if held is not None else {}).items():
            item = runs.pop(keys.inventory(bucket, id_), None)
            try:
                run = versioned(InventoryRun, item)
                found.append(Job(bucket, document, read_inventory(document), run))
            except errors.S3Error as error:  # one that would be refused now must not stop others
                log.warning("inventory %s of bucket %s: %s", id_, bucket, error.message)
            except Exception:  # nor one that cannot be read
                log.exception("inventory %s of bucket %s", id_, bucket)
    return found, list(runs.values())


async def find_job(kv: KV, bucket: str, id_: str) -> Job | None:
    """One of them, or None. Raises EngineError, and S3Error for one that would be refused now."""
    wanted = [keys.configurations(bucket, INVENTORY.name), keys.inventory(bucket, id_)]
    reading = await kv.get_many(wanted)
    held = versioned(Configurations, reading.items[0]).record
    document = held.by_id.get(id_) if held is not None else None
    if document is None:
        return None
    return Job(
        bucket, document, read_inventory(document), versioned(InventoryRun, reading.items[1])
    )


async def ask(storage: Storage, job: Job) -> InventoryRun:
    """Have a report made as soon as a worker comes to it, whether the configuration is enabled or
    not. Raises InventoryRefused, EngineError."""
    kv = storage.store.kv
    run = job.run.record
    if run is not None and run.state in UNDER_WAY:
        raise InventoryRefused("a report of this configuration is being made")
    reading = await kv.get_many([keys.bucket(job.bucket)])
    bucket = versioned(BucketRecord, reading.items[0]).record
    if bucket is None:
        raise InventoryRefused(f"there is no bucket {job.bucket}")
    if run is not None and run.bucket_id == bucket.bucket_id:
        asked = msgspec.structs.replace(run, state=ASKED, note="")
    else:
        asked = InventoryRun(bucket.bucket_id, ASKED)
    try:
        await kv.commit([At(job.key, job.run.revision)], [Put(job.key, encode(asked))])
    except Conflict:
        raise InventoryRefused("a report of this configuration is being begun") from None
    return asked


async def _under(kv: KV, prefix: bytes, *, keys_only: bool = False) -> list[Item]:
    items: list[Item] = []
    position, end = prefix, keys.after_prefix(prefix)
    while True:
        page = await kv.scan(position, end, limit=limits.SCAN_ITEMS_MAX, keys_only=keys_only)
        items += page.items
        if not page.more:
            return items
        position = page.items[-1].key + b"\x00"
