"""What the admin port tells of lifecycle rules, and running them at once."""

from __future__ import annotations

from s3gw.admin.lifecycle_views import show_lifecycle
from tests.admin.conftest import Admin
from tests.stores.operations import put
from tests.workers.lifecycle_rules import DAY, ROUNDED, expires, rule, set_rules


async def test_queue_walks_and_the_last_run_are_told(admin: Admin) -> None:
    process = admin.process
    assert (await admin.get("/admin/lifecycle"))["queued"] == 0
    await put(process, "early", b"x")
    await set_rules(process, rule(expires(1)))
    await put(process, "late", b"x")
    found = await admin.get("/admin/lifecycle")
    assert (found["queued"], found["due"], found["more"]) == (1, 0, False)
    assert found["next_ms"] > process.storage.clock_ms()
    assert [walk["bucket"] for walk in found["walks"]] == ["bucket"]
    assert "bucket" in show_lifecycle(found)
    ran = await admin.call("POST", "/admin/run/lifecycle")
    assert ran["report"]["removed"] == 0
    process.cluster.clock.advance(DAY + ROUNDED)
    found = await admin.get("/admin/lifecycle")
    assert (found["queued"], found["due"], found["walks"]) == (2, 2, [])
    ran = await admin.call("POST", "/admin/run/lifecycle")
    assert ran["report"]["removed"] == 2
    found = await admin.get("/admin/lifecycle")
    assert (found["queued"], found["last"]["removed"]) == (0, 2)
    assert found["first_ms"] == found["next_ms"] == 0
    assert "removed  2" in " ".join(show_lifecycle(found).split("\n")).replace("   ", "  ")
