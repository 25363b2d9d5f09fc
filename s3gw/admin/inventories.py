"""Inventory configurations of all buckets: when their reports are due, how the last one went."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from s3gw.admin.models import BucketPath
from s3gw.admin.port import AdminPort, conflict, not_found
from s3gw.admin.row import Row
from s3gw.objects import inventories
from s3gw.objects.inventories import InventoryRefused, Job

LISTED_MAX = 1000


class InventoryPath(BucketPath):
    inventory: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_.-]+$")]


class InventoryView(Struct):
    """A configuration. `state` is that of the last report: none, asked, writing, publishing, done
    or failed (`note` says why). `rows` and `files` are its own so far. `next_ms` is when the next
    one is begun, -1 for never; `done_ms` and `manifest` (a key in `destination`) are of the last
    one that was finished, 0 and "" for none."""

    bucket: str
    id: str
    enabled: bool
    frequency: str
    format: str
    destination: str
    state: str
    started_ms: int
    ended_ms: int
    rows: int
    files: int
    revision: int
    note: str
    next_ms: int
    done_ms: int
    manifest: str


class InventoriesView(Struct):
    """By bucket and id; with `more` there are more than are listed."""

    inventories: list[InventoryView]
    more: bool


async def list_inventories(port: AdminPort) -> InventoriesView:
    """All of them, up to LISTED_MAX."""
    found, _ = await inventories.all_jobs(port.storage.store.kv)
    views = [_view(port, job) for job in found[:LISTED_MAX]]
    return InventoriesView(views, len(found) > LISTED_MAX)


async def show_inventory(port: AdminPort, path: InventoryPath) -> InventoryView:
    """One of them."""
    return _view(port, await _find(port, path))


async def run_inventory(port: AdminPort, path: InventoryPath) -> InventoryView:
    """Have a report made now, also of a configuration that is not enabled."""
    try:
        await inventories.ask(port.storage, await _find(port, path))
    except InventoryRefused as error:
        raise conflict(str(error)) from error
    return _view(port, await _find(port, path))


async def _find(port: AdminPort, path: InventoryPath) -> Job:
    job = await inventories.find_job(port.storage.store.kv, path.bucket, path.inventory)
    if job is None:
        raise not_found(
            "NoSuchInventory", f"bucket {path.bucket} has no inventory {path.inventory}"
        )
    return job


def _view(port: AdminPort, job: Job) -> InventoryView:
    inventory, run = job.inventory, job.run.record
    return InventoryView(
        bucket=job.bucket,
        id=inventory.id,
        enabled=inventory.enabled,
        frequency="Weekly" if inventory.weekly else "Daily",
        format=inventory.format,
        destination=inventory.bucket,
        state=run.state if run is not None else "none",
        started_ms=run.started_ms if run is not None else 0,
        ended_ms=run.ended_ms if run is not None else 0,
        rows=run.rows if run is not None else 0,
        files=len(run.files) if run is not None else 0,
        revision=run.revision if run is not None else 0,
        note=run.note if run is not None else "",
        next_ms=inventories.due_ms(job, port.storage.clock_ms()),
        done_ms=run.done_ms if run is not None else 0,
        manifest=run.manifest if run is not None else "",
    )


INVENTORY_ROWS: tuple[Row, ...] = (
    Row(
        "GET",
        "/admin/inventories",
        "listInventories",
        "Inventory configurations of all buckets, and how their last reports went",
        list_inventories,
        InventoriesView,
    ),
    Row(
        "GET",
        "/admin/inventories/{bucket}/{inventory}",
        "getInventory",
        "One inventory configuration, and how its last report went",
        show_inventory,
        InventoryView,
        path_type=InventoryPath,
    ),
    Row(
        "POST",
        "/admin/inventories/{bucket}/{inventory}/run",
        "runInventory",
        "Have a report made now",
        run_inventory,
        InventoryView,
        path_type=InventoryPath,
        conflicts=True,
    ),
)
