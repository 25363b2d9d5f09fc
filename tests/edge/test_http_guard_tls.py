"""TLS of a server: how many connections it takes, and what applications are told of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from raw_http import HOST, LIMIT, echo, serving

from nodes.http_connection import Connection
from nodes.http_guard import ClientDisconnected

GET = b"GET /b/k HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard-tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    return folder


def server_of(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


def client_of(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "cert"))


async def silent(port: int) -> socket.socket:
    """A connection that says nothing."""
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


async def ended(client: socket.socket) -> bool:
    """Whether the server ends a connection, within the patience of a test."""
    async with asyncio.timeout(LIMIT):
        try:
            return await asyncio.get_running_loop().sock_recv(client, 1) == b""
        except ConnectionResetError:
            return True


async def test_connections_in_their_handshake_count_and_those_above_are_cut_off(
    certificate: Path,
) -> None:
    trusted = client_of(certificate)
    async with serving(echo, tls=server_of(certificate), connections_max=3) as server:
        talking = await server.connect(ssl=trusted, server_hostname="localhost")
        talking.send(GET)
        assert (await talking.answer())[0] == 200
        held = [await silent(server.port) for _ in range(2)]
        above = [await silent(server.port) for _ in range(3)]
        for client in above:
            assert await ended(client)
        talking.send(GET)
        assert (await talking.answer())[0] == 200
        # A place becomes free by a handshake that is given up.
        held.pop().close()
        raw = await asyncio.wait_for(connected(server, trusted), LIMIT)
        raw.send(GET)
        assert (await raw.answer())[0] == 200
        for client in (*held, *above):
            client.close()


async def connected(server: Any, trusted: ssl.SSLContext) -> Any:
    """A connection, as soon as there is a place for it."""
    while True:
        try:
            return await server.connect(ssl=trusted, server_hostname="localhost")
        except (ConnectionError, ssl.SSLError):
            await asyncio.sleep(0)


async def test_places_are_given_back_by_all_who_had_one(certificate: Path) -> None:
    """Whether the handshake came to its end, failed, or was never begun."""
    trusted, stranger = client_of(certificate), ssl.create_default_context()
    async with serving(
        echo, tls=server_of(certificate), connections_max=2, head_seconds=0.2
    ) as server:
        for _ in range(4):
            raw = await asyncio.wait_for(connected(server, trusted), LIMIT)
            raw.send(GET)
            assert (await raw.answer())[0] == 200
            await raw.close()
        for _ in range(4):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await server.connect(ssl=stranger, server_hostname="localhost")
            assert b"200 OK" not in await server.ask(GET)
        for _ in range(4):
            client = await silent(server.port)
            assert await ended(client)
            client.close()
        raw = await asyncio.wait_for(connected(server, trusted), LIMIT)
        raw.send(GET)
        assert (await raw.answer())[0] == 200


async def test_a_client_that_takes_nothing_is_cut_off(certificate: Path) -> None:
    """Buffers of TLS fill up, the application waits, and the idle time passes."""
    gone, sent = asyncio.Event(), 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send(
                    {"type": "http.response.body", "body": bytes(1 << 18), "more_body": True}
                )
                sent += 1 << 18
        except ClientDisconnected:
            gone.set()
            raise

    options = {"tls": server_of(certificate), "send_idle_seconds": 0.3}
    async with serving(app, **options) as server:
        raw = await server.connect(ssl=client_of(certificate), server_hostname="localhost")
        raw.send(GET)
        raw.writer.transport.pause_reading()
        await asyncio.wait_for(gone.wait(), LIMIT)
        raw.writer.transport.abort()
    assert sent < 32 << 20


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Sends 6 MiB, over a connection of which the kernel holds little."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    accepted = receive.__self__._connection.transport.get_extra_info("socket")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
    length = (b"content-length", b"%d" % (6 << 20))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for more in (True, False):
        await send({"type": "http.response.body", "body": bytes(3 << 20), "more_body": more})


async def large_answer(server: Any, certificate: Path, request: bytes) -> Any:
    """A connection over which `large` has answered, and which holds little of it."""
    raw = await server.connect(
        ssl=client_of(certificate), server_hostname="localhost", limit=1 << 14
    )
    raw.socket().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    raw.send(request)
    assert (await raw.head())[0] == 200
    return raw


async def test_a_client_that_takes_little_is_not_cut_off(certificate: Path) -> None:
    """What is encrypted and goes out counts as moved."""
    async with serving(large, tls=server_of(certificate), send_idle_seconds=0.6) as server:
        raw = await large_answer(server, certificate, GET)
        for _ in range(96):
            await raw.exactly(64 << 10)
            await asyncio.sleep(0.025)


async def test_a_client_that_is_late_gets_all_before_its_connection_closes(
    certificate: Path,
) -> None:
    """An answer is not over as long as much of it lies encrypted in the process."""
    request = b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    async with serving(large, tls=server_of(certificate), discard_seconds=0.5) as server:
        raw = await large_answer(server, certificate, request)
        await raw.exactly(4 << 20)
        await asyncio.sleep(1.0)
        await raw.exactly(2 << 20)


async def test_an_idle_client_that_does_not_look_is_not_waited_for(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a client does that keeps its connection in a pool. It finds a proper end all the same."""
    async with serving(echo, tls=server_of(certificate), graceful_seconds=1.0) as server:
        raw = await server.connect(ssl=client_of(certificate), server_hostname="localhost")
        raw.send(GET)
        assert (await raw.answer())[0] == 200
        raw.writer.transport.pause_reading()
        server.shutdown.set()
        async with asyncio.timeout(LIMIT):
            await asyncio.shield(server.task)
        assert "did not end before shutdown" not in caplog.text
        raw.writer.transport.resume_reading()
        assert await raw.rest() == b""


async def test_a_connection_that_is_lost_when_it_is_cut_off_ends_no_other(
    certificate: Path,
) -> None:
    """asyncio drops the socket first, and says so a moment later."""
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        connection = receive.__self__._connection
        connection.transport._ssl_protocol._transport.abort()
        while connection.transport.get_extra_info("socket") is not None:
            await asyncio.sleep(0)
        assert connection.phase.name != "CLOSED"
        connection.reset()
        done.set()

    async with serving(app, tls=server_of(certificate)) as server:
        raw = await server.connect(ssl=client_of(certificate), server_hostname="localhost")
        raw.send(GET)
        await asyncio.wait_for(done.wait(), LIMIT)
        raw.writer.transport.abort()


async def test_deadlines_go_on_when_one_could_not_be_kept(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, sweep = [RuntimeError("once")], Connection.sweep

    def failing(connection: Connection, now: float) -> None:
        if failures:
            raise failures.pop()
        sweep(connection, now)

    monkeypatch.setattr(Connection, "sweep", failing)
    async with serving(echo, tls=server_of(certificate), head_seconds=0.3) as server:
        raw = await server.connect(ssl=client_of(certificate), server_hostname="localhost")
        assert await raw.rest() == b""
    assert not failures


async def test_an_application_is_told_what_was_agreed_on(certificate: Path) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            told.append(scope["extensions"])
        await echo(scope, receive, send)

    trusted = client_of(certificate)
    trusted.maximum_version = ssl.TLSVersion.TLSv1_2
    trusted.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    async with serving(app, tls=server_of(certificate)) as server:
        raw = await server.connect(ssl=trusted, server_hostname="localhost")
        raw.send(GET)
        await raw.answer()
    async with serving(app) as server:
        raw = await server.connect()
        raw.send(GET)
        await raw.answer()
    session = {"version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES128-GCM-SHA256"}
    assert told == [{"tls_session": session}, {}]
