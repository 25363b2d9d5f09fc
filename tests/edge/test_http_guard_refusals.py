"""What the guard refuses on the wire: smuggling, other protocols, oversized and slow heads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from raw_http import HOST, Raw, echo, serving

from tests.edge.smuggling import ATTACKS, SMUGGLED

GET = b"GET /b/k HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize("attack", ATTACKS)
async def test_smuggling_is_answered_with_400_and_the_connection_closed(attack: str) -> None:
    async with serving(echo) as server:
        answer = await server.ask(ATTACKS[attack] + SMUGGLED)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"\r\nconnection: close\r\n" in answer
        assert b"smuggled" not in answer


@pytest.mark.parametrize("attack", ["CL with TE", "bad chunk end", "bare LF", "two CL"])
async def test_smuggling_cut_at_every_offset_is_refused_all_the_same(attack: str) -> None:
    async with serving(echo) as server:

        async def attempt(at: int) -> bytes:
            raw = await server.connect()
            raw.send(ATTACKS[attack][:at])
            await raw.writer.drain()
            raw.send(ATTACKS[attack][at:] + SMUGGLED)
            return await raw.rest()

        cuts = range(1, len(ATTACKS[attack]))
        for answer in await asyncio.gather(*(attempt(at) for at in cuts)):
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1 ") == 1


async def test_smuggling_after_a_good_request_is_refused_too() -> None:
    async with serving(echo) as server:
        answer = await server.ask(GET + b"\r\n" + ATTACKS["CL with TE"])
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1 400 ") == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 33_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 33_000, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417),
    ],
)
async def test_other_refusals_have_their_own_status(request_bytes: bytes, status: int) -> None:
    async with serving(echo) as server:
        answer = await server.ask(request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_an_upgrade_is_not_taken_up() -> None:
    """RFC 9110, section 7.8: a server may ignore Upgrade. Java's client offers h2c each time."""
    kinds: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(scope["type"])
        await echo(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        for upgrade in (
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ):
            raw.send(GET + upgrade + b"\r\n")
            status, headers, _ = await raw.answer()
            assert status == 200
            assert "upgrade" not in headers
    assert kinds == ["lifespan", "http", "http"]


async def test_one_empty_line_before_a_request_is_let_pass_and_a_second_is_not() -> None:
    async with serving(echo) as server:
        raw = await server.connect()
        raw.send(b"\r\n" + GET + b"\r\n")
        assert (await raw.answer())[0] == 200
        raw.send(b"\r")
        raw.send(b"\n" + GET + b"\r\n")
        assert (await raw.answer())[0] == 200
        raw.send(b"\r\n\r\n" + GET + b"\r\n")
        assert (await raw.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_slow_head_is_answered_408_at_the_deadline() -> None:
    async with serving(echo, head_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(b"GET / HTTP/1.1\r\nHost")
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")


async def test_bytes_that_trickle_do_not_extend_the_deadline_of_a_head() -> None:
    async with serving(echo, head_seconds=0.3) as server:
        raw = await server.connect()

        async def trickle() -> None:
            while True:
                raw.send(b"x")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(trickle())
        try:
            assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")
        except ConnectionResetError:
            pytest.fail("the answer was lost in a reset")
        finally:
            task.cancel()


async def test_a_connection_that_sends_nothing_is_closed_silently() -> None:
    async with serving(echo, head_seconds=0.2) as server:
        assert await (await server.connect()).rest() == b""


async def test_an_idle_connection_is_closed_after_the_keep_alive_time_only() -> None:
    async with serving(echo, keep_alive_seconds=0.4, head_seconds=0.1) as server:
        raw = await server.connect()
        raw.send(GET + b"\r\n")
        assert (await raw.answer())[0] == 200
        loop = asyncio.get_running_loop()
        since = loop.time()
        assert await raw.rest() == b""
        assert loop.time() - since > 0.2


async def test_500_slow_heads_do_not_keep_others_from_being_served() -> None:
    async with serving(echo, head_seconds=1.0) as server:
        slow = []
        for _ in range(500):
            slow.append(await server.connect())
            slow[-1].send(b"GET / HTTP/1.1\r\nHo")
        good = await server.connect()
        good.send(GET + b"\r\n")
        status, _, body = await good.answer()
        assert (status, json.loads(body)["method"]) == (200, "GET")

        async def verdict(raw: Raw) -> bytes:
            return await raw.rest()

        for answer in await asyncio.gather(*(verdict(raw) for raw in slow)):
            assert answer.startswith(b"HTTP/1.1 408 ")


async def test_connections_beyond_the_bound_are_answered_503() -> None:
    async with serving(echo, connections_max=2) as server:
        first, second = await server.connect(), await server.connect()
        for raw in (first, second):
            raw.send(GET + b"\r\n")
            assert (await raw.answer())[0] == 200
        third = await server.connect()
        assert (await third.rest()).startswith(b"HTTP/1.1 503 ")
        first.send(GET + b"Connection: close\r\n\r\n")
        assert (await first.answer())[0] == 200
        assert await first.rest() == b""
        await first.close()
        await third.close()
        fourth = await server.connect()
        fourth.send(GET + b"\r\n")
        assert (await fourth.answer())[0] == 200
