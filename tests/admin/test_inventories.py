"""Inventory reports over the admin API: what is told of them, and having one made."""

from __future__ import annotations

from s3gw.admin.inventory_command import show_inventories, show_inventory
from s3gw.workers.inventory import InventoryWorker
from tests.admin.conftest import Admin
from tests.stores.operations import put
from tests.workers.inventories import configuration, configure, make_reports

ONE = "/admin/inventories/bucket/one"


async def test_a_report_is_asked_for_made_and_told(admin: Admin) -> None:
    assert (await admin.get("/admin/inventories"))["inventories"] == []
    await put(admin.process, "a", b"xyz")
    await make_reports(admin.process)
    await configure(admin.process, configuration(enabled="false"))
    found = await admin.get(ONE)
    assert (found["state"], found["next_ms"], found["done_ms"]) == ("none", -1, 0)
    worker = InventoryWorker(admin.process.storage)
    assert await worker.run_once() == 0
    asked = await admin.call("POST", f"{ONE}/run")
    assert asked["state"] == "asked"
    assert "never" in show_inventory(asked)
    assert await worker.run_once() == 1
    (found,) = (await admin.get("/admin/inventories"))["inventories"]
    assert (found["state"], found["rows"], found["files"]) == ("done", 1, 1)
    assert found["manifest"].startswith("out/bucket/one/")
    assert "done" in show_inventories({"inventories": [found], "more": False})
    assert await worker.run_once() == 0


async def test_a_report_that_is_being_made_is_not_asked_for_again(admin: Admin) -> None:
    await put(admin.process, "a", b"xyz")
    await make_reports(admin.process)
    await configure(admin.process, configuration())
    worker = InventoryWorker(admin.process.storage)
    worker._is_stopping = lambda: True  # type: ignore[method-assign]
    await worker.work()
    assert (await admin.get(ONE))["state"] == "writing"
    reply = await admin.send("POST", f"{ONE}/run")
    assert reply.status_code == 409, reply.text


async def test_what_failed_says_why(admin: Admin) -> None:
    await configure(admin.process, configuration(bucket="nowhere"))
    await InventoryWorker(admin.process.storage).run_once()
    found = await admin.get(ONE)
    assert found["state"] == "failed"
    assert found["note"] in show_inventory(found)
    assert found["next_ms"] > admin.process.storage.clock_ms()
