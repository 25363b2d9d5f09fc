"""Request bodies: delivered whole however they are cut, never left unread, bounded in memory; and
clients that go away, stall, or read slowly."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_http import HOST, LIMIT, Serving, echo, forbid, serving

from nodes import http_guard
from nodes.http_connection import BODY_RECEIVE_BYTES
from nodes.http_exchange import READ_AHEAD_BYTES

MIB = 1 << 20
GET = b"GET /b/k HTTP/1.1\r\n" + HOST + b"\r\n"


def put(length: int, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"PUT /b/k HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n" % (HOST, lines, length)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.005)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Delivery.

CHUNKED_PUT = (
    b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: a\r\n\r\n"
)
STREAM = put(11) + b"hello world" + CHUNKED_PUT + GET.replace(b"/b/k", b"/end")


async def bodies_of(segments: list[bytes]) -> list[tuple[str, str]]:
    """What the application saw of requests sent in these segments."""
    async with serving(echo) as server:
        raw = await server.connect()
        for segment in segments:
            raw.send(segment)
            # Let the server take this segment before the next is sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        seen: list[tuple[str, str]] = []
        while not seen or seen[-1][0] != "/end":
            described = json.loads((await raw.answer())[2])
            seen.append((described["raw_path"], described["body"]))
        return seen


EXPECTED = [("/b/k", "hello world"), ("/c", "hello world"), ("/end", "")]


async def test_requests_cut_at_every_offset_are_the_same_requests() -> None:
    assert await bodies_of([STREAM]) == EXPECTED
    assert await bodies_of([bytes([byte]) for byte in STREAM]) == EXPECTED
    for at in range(1, len(STREAM)):
        assert await bodies_of([STREAM[:at], STREAM[at:]]) == EXPECTED


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=20))
def test_requests_cut_anywhere_are_the_same_requests(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(places)]
    assert asyncio.run(bodies_of(pieces)) == EXPECTED


async def test_a_large_body_arrives_whole_and_in_order() -> None:
    body = os.urandom(MIB) * 5 + b"end"
    received = bytearray()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = scope["type"] == "http"
        while more:
            message = await receive()
            received.extend(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app) as server:
        raw = await server.connect()
        for chunked in (False, True):
            received.clear()
            if chunked:
                head = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                raw.send(head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            else:
                raw.send(put(len(body)) + body)
            assert (await raw.answer())[2] == b"ok"
            assert bytes(received) == body


async def test_what_the_application_does_not_read_stays_with_the_client() -> None:
    connections: list[Any] = []
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            connections.append(receive.__self__)
            await go_on.wait()
        await echo(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(put(16 * MIB) + bytes(16 * MIB))
        await until(lambda: bool(connections) and connections[0]._queued >= READ_AHEAD_BYTES)
        held = connections[0]._queued
        for _ in range(100):
            await asyncio.sleep(0)
        assert connections[0]._queued == held <= READ_AHEAD_BYTES + BODY_RECEIVE_BYTES
        go_on.set()
        assert (await raw.head())[0] == 200


# Early answers.


async def test_an_early_answer_is_seen_and_the_connection_closed_when_much_is_left() -> None:
    async with serving(forbid, discard_bytes_max=MIB) as server:
        raw = await server.connect()
        raw.send(put(64 * MIB) + bytes(1000))
        status, headers, body = await raw.answer()
        assert (status, headers["connection"], body) == (403, "close", b"denied")
        assert await raw.rest() == b""


async def test_an_early_answer_is_seen_by_a_client_that_sends_everything_first() -> None:
    async with serving(forbid) as server:
        raw = await server.connect()
        size = 16 * MIB - 1000
        raw.send(put(size) + bytes(size))
        async with asyncio.timeout(LIMIT):
            await raw.writer.drain()
        assert (await raw.answer())[0] == 403
        # The rest fitted the bound: the same connection serves the next request.
        raw.send(GET)
        assert (await raw.answer())[0] == 403


async def test_a_chunked_body_that_is_not_read_is_discarded_and_the_connection_closed() -> None:
    async with serving(forbid) as server:
        answer = await server.ask(CHUNKED_PUT.partition(b"5\r\n")[0] + b"3\r\nabc\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"denied")
        raw = await server.connect()
        raw.send(CHUNKED_PUT + GET)
        assert [(await raw.answer())[0] for _ in range(2)] == [403, 403]


async def test_what_follows_an_unread_body_is_the_next_request_and_the_body_is_not() -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            paths.append(scope["path"])
        await forbid(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        for _ in range(3):
            raw.send(put(len(inner)))
            await until(lambda: True)
            raw.send(inner + GET.replace(b"/b/k", b"/next"))
            assert [(await raw.answer())[0] for _ in range(2)] == [403, 403]
    assert paths == ["/b/k", "/next"] * 3


async def test_discarding_ends_at_its_time() -> None:
    async with serving(forbid, discard_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(put(1000) + b"x")
        assert (await raw.answer())[0] == 403
        assert await raw.rest() == b""


async def test_discarding_ends_at_its_bytes() -> None:
    async with serving(forbid, discard_bytes_max=MIB) as server:
        raw = await server.connect()
        sent = 0
        raw.send(put(1 << 40))
        with pytest.raises(ConnectionError):
            while True:
                raw.send(bytes(65536))
                sent += 65536
                async with asyncio.timeout(LIMIT):
                    await raw.writer.drain()
        # What the two kernels buffer between us comes on top.
        assert sent < 64 * MIB


SOAK = "SOAK" in os.environ
ATTACKS = 1000 if SOAK else 50
ATTACK_BYTES = (64 if SOAK else 8) * MIB


async def attack(server: Serving, hang: bool) -> None:
    """A PUT whose answer comes early: a client that goes on sending, or one that just stops."""
    raw = await server.connect()
    raw.send(put(ATTACK_BYTES))
    assert (await raw.head())[0] == 403
    try:
        for _ in range(1 if hang else ATTACK_BYTES // MIB):
            raw.send(bytes(MIB))
            async with asyncio.timeout(LIMIT):
                await raw.writer.drain()
        await raw.rest() if hang else await raw.close()
    except ConnectionError:
        await raw.close()
    server.opened.remove(raw)
    await raw.close()


async def test_unread_puts_leave_no_task_descriptor_or_memory_behind() -> None:
    """Fault and attack tests, S4 (1,000 of 64 MiB with SOAK set)."""
    async with serving(forbid, discard_seconds=1.0) as server:
        await attack(server, hang=False)
        gc.collect()
        tasks, files, memory = len(asyncio.all_tasks()), descriptors(), resident_bytes()
        for start in range(0, ATTACKS, 25):
            batch = range(start, min(start + 25, ATTACKS))
            await asyncio.gather(*(attack(server, hang=number % 2 == 0) for number in batch))
        await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= files)
        gc.collect()
        assert resident_bytes() - memory < 64 * MIB


# Clients that go away.


async def watched(events: list[str], scope: Any, receive: Any, send: Any) -> None:
    """Reads the body it gets, then waits for the disconnect, as a handler of a slow GET does."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    while True:
        message = await receive()
        events.append(message["type"])
        if message["type"] == "http.disconnect":
            return


@pytest.mark.parametrize("request_bytes", [GET, put(100), put(100) + b"part", put(4) + b"body"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_goes_away_is_told_to_the_application(
    request_bytes: bytes, reset: bool
) -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await watched(events, scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(request_bytes)
        if request_bytes != put(100):
            await until(lambda: bool(events))
        if reset:
            raw.socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await raw.close()
        await until(lambda: events[-1:] == ["http.disconnect"])


async def test_an_application_that_sends_to_a_client_that_went_away_gets_an_error() -> None:
    errors: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                message = {"type": "http.response.body", "body": bytes(MIB), "more_body": True}
                await send(message)
        except OSError as error:
            errors.append(error)
            raise

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(GET)
        await raw.exactly(2 * MIB)
        raw.writer.transport.abort()
        await until(lambda: bool(errors))
    assert isinstance(errors[0], http_guard.ClientDisconnected)


async def test_clients_that_go_away_at_some_byte_leave_nothing_behind() -> None:
    """Fault and attack tests, R21, as far as the server's front goes."""
    request = put(2000) + bytes(2000)
    async with serving(echo) as server:
        raw = await server.connect()
        raw.send(GET)
        await raw.answer()
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for number in range(200):
            gone = await server.connect()
            gone.send(request[: number * 10 % len(request)])
            await asyncio.sleep(0)
            gone.writer.transport.abort()
            server.opened.remove(gone)
        await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= files)
        raw.send(GET)
        assert (await raw.answer())[0] == 200


# Clients that stall.


async def test_a_stalled_body_waits_for_ever_by_default_and_is_cut_off_by_option() -> None:
    async with serving(echo, body_idle_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(put(100_000) + bytes(50_000))
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")
    assert http_guard.GuardOptions().body_idle_seconds == 0


async def test_a_trickled_body_counts_as_stalled_and_a_steady_one_does_not() -> None:
    async with serving(echo, body_idle_seconds=0.3) as server:
        slow, steady = await server.connect(), await server.connect()
        slow.send(put(100_000))
        steady.send(put(100_000))
        for _ in range(10):
            slow.send(b"x")
            steady.send(bytes(10_000))
            await asyncio.sleep(0.1)
        assert (await steady.head())[0] == 200
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")


async def test_an_application_that_reads_slowly_is_not_the_clients_fault() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    async with serving(app, body_idle_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(put(5, b"Expect: 100-continue"))
        assert (await raw.head())[0] == 100
        raw.send(b"hello")
        assert (await raw.answer())[0] == 200


async def endless(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async with serving(endless, send_idle_seconds=0.3) as server:
        await server.ask(b"GET / HTTP/1.0\r\nbad\r\n\r\n")
        files, tasks = descriptors(), len(asyncio.all_tasks())
        slow = [await server.connect(limit=1024) for _ in range(20)]
        for raw in slow:
            raw.send(GET)
            await raw.head()
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        for raw in slow:
            raw.writer.transport.abort()
        server.opened.clear()
        await until(lambda: descriptors() <= files)


async def test_a_client_that_reads_steadily_is_not_cut_off() -> None:
    async with serving(endless, send_idle_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(GET)
        for _ in range(10):
            await raw.exactly(4 * MIB)
            await asyncio.sleep(0.05)


async def test_small_packets_are_not_delayed() -> None:
    options: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            accepted = receive.__self__._connection.transport.get_extra_info("socket")
            options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await echo(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(GET)
        await raw.answer()
    assert options == [1]
