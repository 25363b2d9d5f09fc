"""The trash of buckets and undo over the admin API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from s3gw.workers import on_demand
from tests.admin.conftest import Admin
from tests.stores import operations
from tests.stores.audit import Audit

DAY = 86_400
TRASH, UNDO = "/admin/buckets/bucket/trash", "/admin/buckets/bucket/undo"


async def refused(admin: Admin, method: str, target: str, body: Any = None) -> tuple[int, str]:
    reply = await admin.send(method, target, b"" if body is None else json.dumps(body).encode())
    return reply.status_code, reply.json()["message"]


@pytest.fixture
async def kept(admin: Admin) -> Admin:
    """The bucket keeps what is deleted for a day."""
    await admin.call("PUT", TRASH, {"keep_seconds": DAY})
    return admin


async def test_the_trash_is_listed_counted_and_restored_by_key(kept: Admin) -> None:
    for body in (b"1", b"22", b"333"):
        await operations.put(kept.process, "k", body)
    await operations.delete(kept.process, "k")
    assert await kept.get(TRASH) == {
        "bucket": "bucket",
        "keep_seconds": DAY,
        "objects": 3,
        "bytes": 6,
    }
    [bucket] = (await kept.get("/admin/buckets"))["buckets"]
    figures = ("objects", "bytes", "trash_objects", "trash_bytes")
    assert [bucket[name] for name in figures] == [0, 0, 3, 6]
    listed = await kept.get(f"{TRASH}/entries")
    entries = listed["entries"]
    assert [entry["size"] for entry in entries] == [3, 2, 1]
    assert entries[0]["purge_ms"] - entries[0]["trashed_ms"] == DAY * 1000
    body = {"key": "k", "entry": entries[1]["entry"]}
    answer = await kept.call("POST", f"{TRASH}/restore", body)
    assert answer == {"restored": 1, "occupied": 0, "missing": 0, "next": ""}
    assert await operations.get(kept.process, "k") == b"22"
    assert (await kept.call("POST", f"{TRASH}/restore", {"key": "k"}))["occupied"] == 1
    assert (await kept.call("POST", f"{TRASH}/restore", {"key": "never"}))["missing"] == 1
    answer = await kept.call("POST", f"{TRASH}/restore", {"key": "k", "replace": True})
    assert answer["restored"] == 1
    assert await operations.get(kept.process, "k") == b"333"


async def test_a_prefix_is_restored_and_emptied_in_pages(kept: Admin) -> None:
    for number in range(7):
        for body in (b"old", b"new"):
            await operations.put(kept.process, f"dir/{number}", body)
        await operations.delete(kept.process, f"dir/{number}")
    await operations.put(kept.process, "dir/3", b"there")
    pages, body = 0, {"prefix": "dir/", "limit": 4}
    figures = {"restored": 0, "occupied": 0, "missing": 0}
    while True:
        answer = await kept.call("POST", f"{TRASH}/restore", body)
        pages += 1
        for name in figures:
            figures[name] += answer[name]
        if not answer["next"]:
            break
        body["after"] = answer["next"]
    assert pages > 1
    assert figures == {"restored": 6, "occupied": 1, "missing": 0}
    for number in range(7):
        wanted = b"there" if number == 3 else b"new"
        assert await operations.get(kept.process, f"dir/{number}") == wanted
    removed, more = 0, True
    while more:
        answer = await kept.call("POST", f"{TRASH}/empty", {"prefix": "dir/", "limit": 3})
        removed, more = removed + answer["objects"], answer["more"]
    assert removed == 8
    assert (await kept.get(TRASH))["objects"] == 0
    Audit(kept.cluster, kept.process).check_held()


async def test_pages_of_the_listing(kept: Admin) -> None:
    for number in range(5):
        await operations.put(kept.process, f"{number}", b"x")
        await operations.delete(kept.process, f"{number}")
    keys, after = [], ""
    while True:
        listed = await kept.get(f"{TRASH}/entries?limit=2&after={after}")
        keys += [entry["key"] for entry in listed["entries"]]
        after = listed["next"]
        if not after:
            break
    assert keys == ["0", "1", "2", "3", "4"]


async def test_what_is_due_goes_by_the_worker(kept: Admin) -> None:
    await operations.put(kept.process, "k", b"x")
    await operations.delete(kept.process, "k")
    assert (await kept.call("POST", "/admin/run/trash"))["report"]["objects"] == 0
    kept.cluster.clock.advance(DAY + 1)
    assert (await kept.call("POST", "/admin/run/trash"))["report"]["objects"] == 1


async def test_a_bucket_with_versioning_has_no_trash(admin: Admin) -> None:
    await operations.set_versioning(admin.process, "Enabled")
    status, message = await refused(admin, "PUT", TRASH, {"keep_seconds": DAY})
    assert (status, "versioning" in message) == (409, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "k", "prefix": "p"},
        {"key": ""},
        {"prefix": "p", "entry": "0" * 16},
        {"key": "k", "entry": "x"},
        {"prefix": "", "after": "ff"},
        {"prefix": "x" * 1025},
        {"prefix": "", "limit": 0},
    ],
)
async def test_a_restore_that_makes_no_sense_is_refused(kept: Admin, body: Any) -> None:
    assert (await refused(kept, "POST", f"{TRASH}/restore", body))[0] == 400


async def test_an_undo_is_planned_run_and_told_of(admin: Admin) -> None:
    await operations.set_versioning(admin.process, "Enabled")
    for number in range(3):
        await operations.put(admin.process, f"p/{number}", b"then")
    admin.cluster.clock.advance(1.0)
    moment = admin.process.storage.clock_ms()
    admin.cluster.clock.advance(1.0)
    await operations.put(admin.process, "p/0", b"now")
    await operations.remove(admin.process, "p/1")
    await operations.put(admin.process, "p/new", b"now")
    body: dict[str, Any] = {"prefix": "p/", "at_ms": moment}
    plan = await admin.call("POST", f"{UNDO}/plan", body)
    assert plan == {"keys": 4, "restore": 2, "hide": 1, "left": 0, "next": ""}
    first = await admin.call("POST", f"{UNDO}/plan", {**body, "limit": 1})
    second = await admin.call("POST", f"{UNDO}/plan", {**body, "after": first["next"]})
    assert first["keys"] + second["keys"] == 4
    assert (await admin.call("POST", UNDO, body))["state"] == "walking"
    assert (await refused(admin, "POST", UNDO, body))[0] == 409
    await on_demand.finish_undos(admin.process.storage)
    done = await admin.get(UNDO)
    figures = ("state", "keys", "restored", "hidden", "left")
    assert [done[name] for name in figures] == ["done", 4, 2, 1, 0]
    assert await operations.get(admin.process, "p/0") == b"then"
    assert (await refused(admin, "DELETE", UNDO))[0] == 409


async def test_an_undo_needs_versioning_and_a_moment_that_was(admin: Admin) -> None:
    later = admin.process.storage.clock_ms() + 1
    for path in (UNDO, f"{UNDO}/plan"):
        assert (await refused(admin, "POST", path, {"at_ms": 1}))[0] == 409
    assert (await refused(admin, "GET", UNDO))[0] == 404
    await operations.set_versioning(admin.process, "Enabled")
    assert (await refused(admin, "POST", UNDO, {"at_ms": later}))[0] == 409
    assert (await refused(admin, "POST", UNDO, {"at_ms": -1}))[0] == 400
    bad = await refused(admin, "POST", f"{UNDO}/plan", {"at_ms": 1, "after": "ff"})
    assert bad[0] == 400
