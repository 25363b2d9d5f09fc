"""A drive of this machine has no record in the engine: it is added to the layout as it is."""

from __future__ import annotations

import json

from nodes.memory import Fault, MemoryDrive
from nodes.protocol import DriveError
from s3gw.cluster.directory import Node
from tests.admin.conftest import Admin

ADD = {"changes": [{"change": "add", "node": "new"}]}


def plug_in(admin: Admin) -> MemoryDrive:
    drive = MemoryDrive(drive_id="new")
    admin.process.directory.add(Node("new", "its-zone", drive))
    return drive


async def staged(admin: Admin) -> tuple[str, int]:
    """Zone and weight of the new drive after it was staged."""
    draft = await admin.call("POST", "/admin/layout/draft", ADD)
    return next((n["zone"], n["weight"]) for n in draft["nodes"] if n["node"] == "new")


async def weigh(admin: Admin, weight: int) -> None:
    """Give every drive of the layout this weight."""
    nodes = [node["node"] for node in (await admin.get("/admin/layout"))["nodes"]]
    changes = [{"change": "weight", "node": node, "weight": weight} for node in nodes]
    await admin.call("POST", "/admin/layout/draft", {"changes": changes})


async def test_a_drive_weighs_its_capacity_beside_others_that_do(admin: Admin) -> None:
    drive = plug_in(admin)
    await weigh(admin, 10**12)
    assert await staged(admin) == ("its-zone", (await drive.stats()).capacity_bytes)


async def test_a_drive_weighs_as_much_as_the_others_where_all_count_as_equals(admin: Admin) -> None:
    plug_in(admin)
    await weigh(admin, 1)
    assert await staged(admin) == ("its-zone", 1)


async def test_a_drive_that_does_not_answer_cannot_be_added_unseen(admin: Admin) -> None:
    plug_in(admin).inject(Fault(error=DriveError("EIO")))
    reply = await admin.send("POST", "/admin/layout/draft", json.dumps(ADD).encode())
    assert reply.status_code == 400
    assert "give its zone and its weight" in reply.json()["message"]


async def test_a_drive_that_is_not_in_the_layout_is_listed_without_a_state(admin: Admin) -> None:
    plug_in(admin)
    view = await admin.get("/admin/nodes/new")
    assert (view["state"], view["live"], view["slots"]) == ("", True, 0)
