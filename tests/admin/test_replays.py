"""A signed request that changes something is done once, and only on the port it was signed for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from s3gw.admin.replays import LEASE_SECONDS, ROTATION_SECONDS
from s3gw.limits import CLOCK_SKEW_SECONDS_MAX
from s3gw.metadata import keys
from tests.admin.conftest import Admin, make_admin
from tests.stores.memory_store import MemoryCluster


async def again(admin: Admin, reply: httpx.Response) -> httpx.Response:
    """The request that got this reply, sent once more as it was."""
    sent = reply.request
    return await admin.http.request(
        sent.method, sent.url, content=sent.content, headers=sent.headers
    )


async def state_of(admin: Admin, node: str) -> Any:
    return (await admin.get(f"/admin/nodes/{node}"))["state"]


async def signatures(admin: Admin) -> int:
    prefix = keys.signed(b"")
    page = await admin.process.kv.scan(prefix, keys.after_prefix(prefix), limit=100)
    return len(page.items)


async def test_an_old_drain_does_not_undo_what_came_after_it(memory_cluster: MemoryCluster) -> None:
    admin, other = await make_admin(memory_cluster), await make_admin(memory_cluster)
    drain = await admin.send("POST", "/admin/nodes/d0/drain")
    assert drain.status_code == 200
    assert (await other.send("POST", "/admin/nodes/d0/activate")).status_code == 200
    for gateway in (admin, other):
        reply = await again(gateway, drain)
        assert (reply.status_code, reply.json()["error"]) == (403, "RequestReplayed")
    assert await state_of(admin, "d0") == "active"
    assert (await admin.send("POST", "/admin/nodes/d0/drain")).status_code == 200, "signed anew"
    await admin.http.aclose()
    await other.http.aclose()


async def test_put_and_delete_are_done_once_too(admin: Admin) -> None:
    for method, target, body in (
        ("PUT", "/admin/tunables", b'{"rebuild_groups_at_once":3}'),
        ("DELETE", "/admin/layout/draft", b""),
    ):
        first = await admin.send(method, target, body)
        assert first.status_code == 200
        assert (await again(admin, first)).status_code == 403


async def test_of_many_that_bring_a_signature_at_once_one_is_done(admin: Admin) -> None:
    target = "/admin/nodes/d0/cordon"
    spoilt = await admin.send("POST", target, b"{}")
    assert spoilt.status_code == 400, "what is refused as malformed uses nothing up"
    assert await signatures(admin) == 0
    headers = await _signed(admin, "POST", target)
    replies = await asyncio.gather(
        *(admin.http.request("POST", target, headers=headers) for _ in range(8))
    )
    assert sorted(reply.status_code for reply in replies) == [200] + 7 * [403]


async def _signed(admin: Admin, method: str, target: str) -> Any:
    """Headers of a request that is signed and not sent."""
    kept: list[httpx.Request] = []

    async def keep(request: httpx.Request) -> None:
        kept.append(request)
        raise httpx.ConnectError("kept back")

    admin.http.event_hooks = {"request": [keep]}
    with pytest.raises(httpx.ConnectError):
        await admin.send(method, target)
    admin.http.event_hooks = {}
    return kept[0].headers


async def test_reading_and_running_a_worker_are_not_remembered(admin: Admin) -> None:
    for method, target in (("GET", "/admin/nodes"), ("POST", "/admin/run/garbage")):
        first = await admin.send(method, target)
        assert (await again(admin, first)).status_code == first.status_code == 200
    assert await signatures(admin) == 0


async def test_a_signature_is_remembered_for_as_long_as_it_is_good(
    memory_cluster: MemoryCluster,
) -> None:
    admin = await make_admin(memory_cluster)
    # The lease that a signature hangs on is at its oldest.
    await admin.call("POST", "/admin/nodes/d0/cordon")
    memory_cluster.clock.advance(ROTATION_SECONDS - 1)
    late = await admin.send("POST", "/admin/nodes/d1/cordon")
    assert late.status_code == 200
    memory_cluster.clock.advance(2 * CLOCK_SKEW_SECONDS_MAX + 60)
    assert (await again(admin, late)).status_code == 403
    memory_cluster.clock.advance(LEASE_SECONDS)
    await admin.process.kv.get_many([keys.STORE])
    assert await signatures(admin) == 0
    assert (await admin.send("POST", "/admin/nodes/d0/uncordon")).status_code == 200
    await admin.http.aclose()


async def test_a_lease_that_is_gone_is_replaced(admin: Admin) -> None:
    await admin.call("POST", "/admin/nodes/d0/cordon")
    prefix = keys.signed(b"")
    (item,) = (await admin.process.kv.scan(prefix, keys.after_prefix(prefix), limit=9)).items
    await admin.process.kv.revoke_lease(item.lease)
    await admin.call("POST", "/admin/nodes/d0/uncordon")
    assert await signatures(admin) == 1
