"""Nodes and layout through the admin API: states, simulated failure, and whether one may stop."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from s3gw.admin import survey, views
from s3gw.cluster import layouts
from s3gw.kv.interface import Put, Unavailable
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, PgRecord, Repair, Slot, encode
from s3gw.metadata.store import OutcomeUnknown
from tests.admin.conftest import Admin, make_admin
from tests.stores.memory_store import BUCKET, PROFILE, MemoryCluster
from tests.stores.operations import put


async def blob_of(admin: Admin, size: int = 200_000) -> BlobRef:
    """An object's blob."""
    record = await put(admin.process, "key", b"x" * size)
    assert isinstance(record.data, BlobRef)
    return record.data


async def lose_shards(admin: Admin, count: int = 1) -> BlobRef:
    """An object that has lost `count` shards, and is in the repair queue for it; d7 is down."""
    ref = await blob_of(admin)
    group = admin.process.topology.group_of(ref.profile, ref.blob)
    lost = tuple(range(count))
    entry = Repair(ref.profile, group.number, ref.blob, "gone", 0, lost=lost)
    key = keys.repair(2, ref.profile, group.number, ref.blob)
    await admin.process.kv.commit([], [Put(key, encode(entry))])
    node = admin.process.directory.get("d7")
    assert node is not None
    node.live = False
    return ref


async def test_nodes_are_those_of_layout_and_directory(admin: Admin) -> None:
    nodes = (await admin.get("/admin/nodes"))["nodes"]
    assert [node["node"] for node in nodes] == [f"d{number}" for number in range(8)]
    assert {node["state"] for node in nodes} == {"active"}
    assert all(node["live"] and node["capacity_bytes"] for node in nodes)
    slots = sum(node["slots"] for node in nodes)
    assert slots == 8 * 6 + 8 * 3  # groups × width of the profile and of its companion
    assert (await admin.get("/admin/nodes/d3"))["node"] == "d3"


async def test_a_node_goes_from_active_over_draining_out_of_the_layout(admin: Admin) -> None:
    answer = await admin.call("POST", "/admin/nodes/d0/cordon")
    assert (answer["state"], answer["epoch"], answer["done"]) == ("cordoned", 2, True)
    again = await admin.call("POST", "/admin/nodes/d0/cordon")
    assert again["epoch"] == 2, "what is so already makes no new layout"
    assert (await admin.call("POST", "/admin/nodes/d0/uncordon"))["epoch"] == 3
    answer = await admin.call("POST", "/admin/nodes/d0/decommission")
    assert (answer["state"], answer["epoch"], answer["done"]) == ("draining", 4, False)
    assert answer["slots"] > 0
    again = await admin.call("POST", "/admin/nodes/d0/decommission")
    assert again["epoch"] == 4
    assert not again["done"]
    await take_off(admin, "d0")
    done = await admin.call("POST", "/admin/nodes/d0/decommission")
    assert (done["state"], done["epoch"], done["done"]) == ("", 5, True)
    layout = await admin.get("/admin/layout")
    assert "d0" not in [node["node"] for node in layout["nodes"]]
    gone = await admin.send("POST", "/admin/nodes/d0/decommission")
    assert gone.status_code == 404  # though it is listed: it is registered
    assert gone.json()["message"] == "there is no node d0 in the layout"


async def test_a_drain_says_what_no_other_node_can_take(memory_cluster: MemoryCluster) -> None:
    """Of eight nodes six may hold shards, and then five: one shard of each group has no place."""
    admin = await make_admin(memory_cluster)
    for node in ("d0", "d1"):
        answer = await admin.call("POST", f"/admin/nodes/{node}/drain")
        assert (answer["stranded"], answer["done"]) == (0, False)
        await take_off(admin, node)
    answer = await admin.call("POST", "/admin/nodes/d2/decommission")
    assert answer["stranded"] == 8  # of the profile; its companion is three wide
    again = await admin.call("POST", "/admin/nodes/d2/decommission")
    assert again["stranded"] == 8
    stranded = {
        node["node"]: node["stranded"] for node in (await admin.get("/admin/nodes"))["nodes"]
    }
    assert {node: count for node, count in stranded.items() if count} == {"d2": 8}
    assert "8 of them have no other node to go to: add one" in views.VIEWS["state"](again)
    _, text = views.slots_left(again["slots"])(again)
    assert "8 of them have no other node to go to" in text


async def take_off(admin: Admin, node: str) -> None:
    """Put groups where the layout wants them, as the rebalancer does."""
    layout = await layouts.current(admin.process.kv)
    for profile in admin.process.topology.profiles():
        for number in range(profile.pg_count):
            target = layout.target(profile.name, number)
            assert target is not None
            assert node not in target
            record = PgRecord(9, tuple(Slot(name) for name in target))
            await admin.process.kv.commit([], [Put(keys.pg(profile.name, number), encode(record))])


async def test_a_change_of_state_that_makes_no_sense_is_409(admin: Admin) -> None:
    assert (await admin.send("POST", "/admin/nodes/d0/uncordon")).status_code == 200  # it is active
    await admin.call("POST", "/admin/nodes/d0/drain")
    reply = await admin.send("POST", "/admin/nodes/d0/cordon")
    assert reply.status_code == 409
    assert "draining" in reply.json()["message"]
    # More than the scheme can spare.
    for number in range(1, 5):
        await admin.call("POST", f"/admin/nodes/d{number}/drain")
    reply = await admin.send("POST", "/admin/nodes/d5/drain")
    assert reply.status_code == 409
    assert "needed" in reply.json()["message"]


async def test_changes_are_staged_previewed_and_applied(admin: Admin) -> None:
    for target in ("/admin/layout/draft", "/admin/layout/plan"):
        assert (await admin.send("GET", target)).status_code == 404
    changes = [
        {"change": "state", "node": "d0", "state": "draining"},
        {"change": "weight", "node": "d1", "weight": 3},
        {"change": "zone", "node": "d2", "zone": "elsewhere"},
        {"change": "add", "node": "d9", "zone": "z9", "weight": 1},
    ]
    await admin.call("POST", "/admin/layout/draft", {"changes": changes[:2]})
    draft = await admin.call("POST", "/admin/layout/draft", {"changes": changes[2:]})
    nodes = {node["node"]: node for node in draft["nodes"]}
    assert nodes["d0"]["state"] == "draining"
    assert nodes["d1"]["weight"] == 3
    assert nodes["d2"]["zone"] == "elsewhere"
    assert nodes["d9"]["zone"] == "z9"
    plan = await admin.get("/admin/layout/plan")
    assert plan["moves"] > 0
    assert any("d9" in warning for warning in plan["warnings"])
    reply = await admin.send("POST", "/admin/layout/apply", b'{"epoch":7}')
    assert reply.status_code == 409
    assert (await admin.call("POST", "/admin/layout/apply", {"epoch": 1}))["epoch"] == 2
    assert (await admin.get("/admin/layout"))["epoch"] == 2
    assert (await admin.send("GET", "/admin/layout/draft")).status_code == 404


async def test_what_others_have_staged_since_the_plan_is_not_applied_with_it(admin: Admin) -> None:
    change = {"change": "weight", "node": "d0", "weight": 2}
    staged = await admin.call("POST", "/admin/layout/draft", {"changes": [change]})
    plan = await admin.get("/admin/layout/plan")
    assert plan["draft"] == staged["draft"] > 0
    other = {"change": "state", "node": "d1", "state": "out"}
    await admin.call("POST", "/admin/layout/draft", {"changes": [other]})
    body = json.dumps({"epoch": plan["epoch"], "draft": plan["draft"]}).encode()
    reply = await admin.send("POST", "/admin/layout/apply", body)
    assert reply.status_code == 409
    assert "look at them again" in reply.json()["message"]
    assert (await admin.get("/admin/layout"))["epoch"] == 1
    plan = await admin.get("/admin/layout/plan")
    await admin.call("POST", "/admin/layout/apply", {"draft": plan["draft"]})
    assert (await admin.get("/admin/layout"))["epoch"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"change": "remove", "node": "nobody"},
        {"change": "add", "node": "d0", "zone": "z", "weight": 1},
        {"change": "add", "node": "unregistered"},
        {"change": "weight", "node": "d0", "weight": -1},
        {"change": "weight", "node": "d0", "weight": 2**63},
        {"change": "state", "node": "d0", "state": "asleep"},
        {"change": "zone", "node": "d0", "zone": "\x1b[2J"},
        {"change": "surprise", "node": "d0"},
        {"node": "d0"},
    ],
)
async def test_a_change_that_makes_no_sense_is_400_and_stages_nothing(
    admin: Admin, change: dict[str, Any]
) -> None:
    body = {"changes": [{"change": "weight", "node": "d1", "weight": 2}, change]}
    reply = await admin.send("POST", "/admin/layout/draft", json.dumps(body).encode())
    assert reply.status_code == 400, reply.text
    assert (await admin.send("GET", "/admin/layout/draft")).status_code == 404


async def test_a_simulated_failure_is_seen_by_other_processes_and_ends_by_itself(
    memory_cluster: MemoryCluster,
) -> None:
    admin, other = await make_admin(memory_cluster), await make_admin(memory_cluster)
    following = asyncio.create_task(other.membership.follow())
    try:
        await other.membership.load()
        await admin.call("POST", "/admin/nodes/d2/fail", {"seconds": 30})
        node = other.process.directory.get("d2")
        assert node is not None
        await until(lambda: not node.live)
        assert node.failing
        memory_cluster.clock.advance(31)
        await other.process.kv.get_many([keys.STORE])  # whoever comes next ends the lease
        await until(lambda: node.live)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await admin.http.aclose()
        await other.http.aclose()


async def test_a_simulation_leaves_as_many_nodes_as_writes_need_unless_forced(
    admin: Admin,
) -> None:
    for number in range(5):
        await admin.call("POST", f"/admin/nodes/d{number}/fail", {"seconds": 300})
    # This process has not heard of them yet: the records count, not what it believes.
    reply = await admin.send("POST", "/admin/nodes/d5/fail", b'{"seconds":300}')
    assert reply.status_code == 409
    assert "2 nodes would take writes, 3 are needed" in reply.json()["message"]
    again = {"seconds": 300}
    await admin.call("POST", "/admin/nodes/d4/fail", again)  # longer: no further node
    await admin.call("POST", "/admin/nodes/d5/fail", {"seconds": 300, "force": True})


async def test_of_two_simulations_at_once_one_is_refused_when_both_are_too_many(
    admin: Admin,
) -> None:
    for number in range(4):
        await admin.call("POST", f"/admin/nodes/d{number}/fail")
    replies = await asyncio.gather(
        *(admin.send("POST", f"/admin/nodes/d{number}/fail", b"{}") for number in (4, 5))
    )
    assert sorted(reply.status_code for reply in replies) == [200, 409]


async def test_a_simulation_is_ended_before_its_time(memory_cluster: MemoryCluster) -> None:
    admin = await make_admin(memory_cluster)
    following = asyncio.create_task(admin.membership.follow())
    try:
        await admin.membership.load()
        await admin.call("POST", "/admin/nodes/d2/fail", {"seconds": 3600})
        node = admin.process.directory.get("d2")
        assert node is not None
        await until(lambda: not node.live)
        assert (await admin.call("DELETE", "/admin/nodes/d2/fail"))["seconds"] == 0
        await until(lambda: node.live)
        await admin.call("DELETE", "/admin/nodes/d2/fail")  # it is so already
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await admin.http.aclose()


async def test_what_force_gives_up_is_told_and_must_be_repeated(admin: Admin) -> None:
    await blob_of(admin)
    await admin.call(
        "POST", "/admin/layout/draft", {"changes": [{"change": "remove", "node": "d0"}]}
    )
    plan = await admin.get("/admin/layout/plan")
    assert plan["gives_up"] > 0
    assert "d0" in plan["refusals"][0]
    for wrong in (b'{"force":true}', b'{"force":true,"confirm":1}', b'{"confirm":1}'):
        reply = await admin.send("POST", "/admin/layout/apply", wrong)
        assert reply.status_code == 409
        assert "node d0 holds shards" in reply.json()["message"]
    assert str(plan["gives_up"]) in reply.json()["message"]
    assert (await admin.get("/admin/layout"))["epoch"] == 1
    body = {"force": True, "confirm": plan["gives_up"], "draft": plan["draft"]}
    assert (await admin.call("POST", "/admin/layout/apply", body))["epoch"] == 2


async def test_force_needs_no_confirmation_where_it_gives_up_nothing(admin: Admin) -> None:
    change = {"change": "weight", "node": "d0", "weight": 2}
    await admin.call("POST", "/admin/layout/draft", {"changes": [change]})
    assert (await admin.get("/admin/layout/plan"))["gives_up"] == 0
    assert (await admin.call("POST", "/admin/layout/apply", {"force": True}))["epoch"] == 2


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_one_of_eight_may_stop_and_with_one_down_another_may_not(admin: Admin) -> None:
    answer = await admin.get("/admin/nodes/d0/may-stop")
    assert answer["may_stop"] is True
    assert answer["reasons"] == []
    assert answer["writable_nodes_left"] == 7
    affected = {row["profile"]: row["affected"] for row in answer["profiles"]}
    assert 0 < affected[PROFILE] <= 8
    down = admin.process.directory.get("d1")
    assert down is not None
    down.live = False
    answer = await admin.get("/admin/nodes/d0/may-stop")
    assert answer["may_stop"] is False
    assert any("one more loss" in reason for reason in answer["reasons"])
    assert sum(row["critical"] for row in answer["profiles"]) > 0
    assert (await admin.get("/admin/nodes/d1/may-stop"))["may_stop"] is True, "it is down already"


async def test_a_blob_in_the_repair_queue_keeps_a_node_from_stopping(admin: Admin) -> None:
    ref = await lose_shards(admin)
    for number in range(8):
        node = admin.process.directory.get(f"d{number}")
        assert node is not None
        node.live = True
    group = admin.process.topology.group_of(ref.profile, ref.blob)
    holders = set(group.nodes)
    for number in range(8):
        answer = await admin.get(f"/admin/nodes/d{number}/may-stop")
        # The one whose shard is lost adds nothing to what is lost; strangers to the blob do not.
        expected = f"d{number}" not in holders or f"d{number}" == group.nodes[0]
        assert answer["may_stop"] is expected, (number, answer)


async def test_all_drives_of_a_host_stop_together(admin: Admin) -> None:
    for name in ("d0", "d1"):
        node = admin.process.directory.get(name)
        assert node is not None
        node.host = "machine"
    answer = await admin.get("/admin/nodes/d0/may-stop")
    assert answer["nodes"] == ["d0", "d1"]
    assert answer["may_stop"] is False


async def test_the_summary_follows_what_happens(admin: Admin) -> None:
    assert (await admin.get("/admin/summary"))["health"] == {"score": 100, "reasons": []}
    await lose_shards(admin)
    assert (await admin.get("/admin/summary"))["health"]["score"] == 100, "it is a few seconds old"
    admin.forget_survey()
    summary = await admin.get("/admin/summary")
    assert summary["nodes"] == {"known": 8, "live": 7, "by_state": {"active": 8}}
    assert summary["objects"] == 1
    assert summary["bytes"] == 200_000
    assert summary["repairs_waiting"] == 1
    assert summary["health"]["score"] <= 80
    ledger = await admin.get("/admin/ledger")
    assert ledger["healed"] is False
    assert ledger["nodes_down"] == ["d7"]
    assert ledger["total"]["full"]["blobs"] == 0
    assert [row["bucket"] for row in ledger["rows"]] == [BUCKET]
    assert (await admin.get("/health"))["score"] == summary["health"]["score"]


class DeadKV(MemoryKV):
    """An engine that stops to answer when told to."""

    error: Exception | None = None

    async def get_many(self, keys: Any) -> Any:
        if self.error:
            raise self.error
        return await super().get_many(keys)

    async def scan(self, *arguments: Any, **options: Any) -> Any:
        if self.error:
            raise self.error
        return await super().scan(*arguments, **options)

    async def commit(self, guards: Any, writes: Any) -> int:
        if self.error:
            raise self.error
        return await super().commit(guards, writes)


async def test_an_unknown_outcome_is_503_and_says_so(memory_cluster: MemoryCluster) -> None:
    kv = DeadKV(memory_cluster.engine)
    admin = await make_admin(memory_cluster, kv)
    kv.error = OutcomeUnknown()
    reply = await admin.send("PUT", "/admin/tunables", b'{"rebuild_groups_at_once":2}')
    assert (reply.status_code, reply.json()["error"]) == (503, "OutcomeUnknown")
    assert reply.headers["retry-after"] == "1"
    await admin.http.aclose()


async def test_trouble_of_the_engine_is_503_with_a_time_to_come_again(
    memory_cluster: MemoryCluster,
) -> None:
    kv = DeadKV(memory_cluster.engine)
    admin = await make_admin(memory_cluster, kv)
    kv.error = Unavailable("gone")
    body = b'{"rebuild_groups_at_once":2}'
    for method, target, sent in (
        ("GET", "/admin/nodes", b""),
        ("GET", "/admin/repairs", b""),
        ("PUT", "/admin/tunables", body),
        ("GET", "/admin/summary", b""),
        ("POST", "/admin/nodes/d0/cordon", b""),
    ):
        reply = await admin.send(method, target, sent)
        assert reply.status_code == 503, (target, reply.text)
        assert reply.headers["retry-after"] == "1"
        assert reply.json()["message"]
    health = await admin.http.get("/health")
    assert health.json()["score"] == 0
    assert (await admin.http.get("/metrics")).status_code == 200
    assert (await admin.http.get("/health/live")).status_code == 200
    kv.error = None
    admin.forget_survey()
    assert (await admin.http.get("/health")).json()["score"] == 100
    await admin.http.aclose()


async def test_readiness_says_why_not(admin: Admin) -> None:
    assert (await admin.http.get("/health/ready")).json() == {"status": "ready", "reason": ""}
    admin.ready_reason = "because"
    reply = await admin.http.get("/health/ready")
    assert (reply.status_code, reply.json()["reason"]) == (503, "because")


async def test_polling_costs_one_gathering(admin: Admin) -> None:
    drive = admin.cluster.drives["d0"]
    await asyncio.gather(*(admin.http.get("/health") for _ in range(20)))
    await asyncio.gather(*(admin.http.get("/metrics") for _ in range(20)))
    assert [operation for operation, _ in drive.calls].count("stats") == 1


async def test_a_ledger_that_takes_long_is_no_silence_of_the_engine(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a long repair queue it does: the last one is shown meanwhile, and who asks for the
    ledger itself waits."""
    go_on = asyncio.Event()
    real = survey.read_ledger

    async def slow(*arguments: Any) -> Any:
        await go_on.wait()
        return await real(*arguments)

    monkeypatch.setattr(survey, "read_ledger", slow)
    monkeypatch.setattr(survey, "LEDGER_SECONDS_MAX", 0.01)
    health = (await admin.http.get("/health")).json()
    assert health["score"] == 80
    assert "being made" in health["reasons"][0]
    assert (await admin.http.get("/metrics")).status_code == 200
    asked = asyncio.ensure_future(admin.get("/admin/ledger"))
    await asyncio.sleep(0)
    go_on.set()
    assert (await asked)["healed"] is True
    go_on.clear()
    admin.port.surveyor.survey.forget()
    admin.port.surveyor.ledger._fresh_until = 0.0
    assert (await admin.http.get("/health")).json()["score"] == 100, "as it was a moment ago"
    go_on.set()


async def test_healed_is_never_what_was_so_before_a_loss(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that took long is shown for long by health and metrics, and another may be on its
    way: who asks for the ledger itself gets neither."""
    now = 1000.0
    ledger = admin.port.surveyor.ledger
    monkeypatch.setattr(ledger, "_clock", lambda: now)
    read, go_on = survey.read_ledger, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        nonlocal now
        found = await read(*arguments)
        await go_on.wait()
        now += 60
        return found

    monkeypatch.setattr(survey, "read_ledger", slow)
    go_on.set()
    assert (await admin.get("/admin/ledger"))["healed"] is True
    node = admin.process.directory.get("d7")
    assert node is not None
    node.live = False
    now += 6
    assert (await ledger.get()).healed, "one of a minute ago is good enough for health"
    assert (await admin.get("/admin/ledger"))["healed"] is False
    node.live = True
    now += 1000
    go_on.clear()
    begun = asyncio.ensure_future(ledger.get())
    await asyncio.sleep(0.01)
    node.live = False
    now += 6
    asked = asyncio.ensure_future(admin.get("/admin/ledger"))
    await asyncio.sleep(0.01)
    go_on.set()
    assert (await begun).healed
    assert (await asked)["healed"] is False
