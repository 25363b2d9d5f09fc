"""The server as a whole: binding, TLS, sharing a socket, shutdown, and a real SDK against it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from raw_http import HOST, LIMIT, echo, forbid, serving

from nodes.http_guard import BindError, GuardOptions, bind, serve
from s3gw import limits

GET = b"GET /b/k HTTP/1.1\r\n" + HOST + b"\r\n"


def test_a_busy_port_is_an_error_that_names_it() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            bind("127.0.0.1", port)


def test_a_port_can_be_shared_when_both_ask_for_it() -> None:
    with bind("127.0.0.1", 0, reuse_port=True) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port, reuse_port=True) as second:
            assert second.getsockname()[1] == port


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("192.0.2.1", 0, "this machine has no such address"),
        ("127.0.0.1", 70_000, "port must be 0-65535"),
        ("no-such-host.invalid", 0, "."),
    ],
)
def test_an_address_that_cannot_be_bound_is_an_error_that_names_it(
    host: str, port: int, reason: str
) -> None:
    with pytest.raises(BindError, match=f"{host}:{port}: .*{reason}"):
        bind(host, port)


def test_a_port_is_free_again_at_once() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        first.setblocking(True)
        first.accept()[0].close()
        client.close()
    bind("127.0.0.1", port).close()


def test_a_peer_whose_machine_has_gone_is_noticed() -> None:
    """Its connection would else be kept for ever, and on a node the unfinished shard with it."""
    with bind("127.0.0.1", 0) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, pause, probes = (
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + pause * probes <= 180


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_ipv6_is_served_where_the_machine_has_it() -> None:
    if not has_ipv6():
        with pytest.raises(BindError):
            bind("::1", 0)
        return
    listener = bind("::1", 0)
    port = listener.getsockname()[1]
    shutdown = asyncio.Event()
    task = asyncio.create_task(serve(echo, [listener], GuardOptions(), shutdown))
    reader, writer = await asyncio.open_connection("::1", port)
    writer.write(GET)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    shutdown.set()
    await task


async def test_two_applications_are_served_in_one_process() -> None:
    async with serving(echo) as first, serving(forbid) as second:
        for server, status in ((first, 200), (second, 403)):
            raw = await server.connect()
            raw.send(GET)
            assert (await raw.answer())[0] == status


async def test_the_backlog_is_deep_though_connections_are_accepted_one_by_one() -> None:
    """So that a burst is neither lost nor taken whole by one of several processes."""
    async with serving(echo) as server:
        clients = []
        for _ in range(300):
            client = socket.socket()
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.connect(("127.0.0.1", server.port))
            client.setblocking(True)
            clients.append(client)
        # The loop has not turned: all of them wait in the backlog, and none was refused.
        for client in clients:
            client.sendall(GET)
        loop = asyncio.get_running_loop()
        for client in clients:
            client.setblocking(False)
            async with asyncio.timeout(LIMIT):
                assert (await loop.sock_recv(client, 15)) == b"HTTP/1.1 200 OK"
            client.close()


async def test_a_failing_lifespan_fails_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(Exception, match="no disk"):
        await serve(app, [bind("127.0.0.1", 0)], GuardOptions(), asyncio.Event())


# Shutdown.


async def test_shutdown_finishes_what_is_in_flight_and_closes_what_is_idle() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/wait":
            await go_on.wait()
        await echo(scope, receive, send)

    async with serving(app, graceful_seconds=10.0) as server:
        idle, busy, late = [await server.connect() for _ in range(3)]
        idle.send(GET)
        await idle.answer()
        busy.send(GET.replace(b"/b/k", b"/wait"))
        late.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
        await asyncio.sleep(0.05)
        server.shutdown.set()
        assert await idle.rest() == b""
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await server.connect()
        assert not server.task.done()
        go_on.set()
        late.send(b"llo")
        for raw in (busy, late):
            status, headers, _ = await raw.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await raw.rest() == b""
        async with asyncio.timeout(LIMIT):
            await server.task


async def test_shutdown_serves_the_first_request_of_a_new_connection() -> None:
    async with serving(echo) as server:
        raw = await server.connect()
        await asyncio.sleep(0.02)
        server.shutdown.set()
        await asyncio.sleep(0.02)
        raw.send(GET)
        assert (await raw.answer())[1]["connection"] == "close"


@pytest.mark.parametrize("stubborn", [False, True])
async def test_shutdown_ends_what_does_not_end_itself(stubborn: bool) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            if not stubborn:
                raise

    async with serving(app, graceful_seconds=0.2) as server:
        raw = await server.connect()
        raw.send(GET)
        await asyncio.sleep(0.05)
        server.shutdown.set()
        async with asyncio.timeout(5):
            await server.task
        assert cancelled.is_set()
        with pytest.raises(ConnectionError):
            await raw.rest()


async def test_a_cancelled_server_does_not_wait_for_what_is_in_flight() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await asyncio.Event().wait()

    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    task = asyncio.create_task(serve(app, [listener], GuardOptions(), asyncio.Event()))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionError):
            await reader.read()
    writer.close()


def test_the_bounds_are_those_of_the_gateway() -> None:
    """Duplicated, because this package imports nothing of the gateway."""
    options = GuardOptions()
    assert options.head_bytes_max == limits.REQUEST_HEAD_BYTES_MAX
    assert options.headers_max == limits.REQUEST_HEADERS_MAX
    assert options.head_seconds == limits.HEAD_DEADLINE_SECONDS
    assert options.keep_alive_seconds == limits.KEEP_ALIVE_SECONDS
    assert options.discard_bytes_max == limits.DISCARD_BYTES_MAX
    assert options.discard_seconds == limits.DISCARD_SECONDS_MAX


async def test_shutdown_without_connections_is_immediate() -> None:
    async with serving(echo) as server:
        server.shutdown.set()
        async with asyncio.timeout(1):
            await server.task


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    pem = folder / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(pem), "-out", str(folder / "cert")]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (folder / "cert").read_text())
    return pem


def contexts(pem: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_tls_serves_http_1_1_only(certificate: Path) -> None:
    server_context, client_context = contexts(certificate)
    client_context.set_alpn_protocols(["h2", "http/1.1"])
    schemes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    async with serving(app, tls=server_context) as server:
        raw = await server.connect(ssl=client_context, server_hostname="localhost")
        assert raw.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        body = os.urandom(1 << 20)
        for _ in range(2):
            raw.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            described = json.loads((await raw.answer())[2])
            assert described["body"].encode("latin-1") == body
    assert schemes == ["https", "https"]


async def test_an_early_answer_over_tls_is_seen_and_the_connection_closed(
    certificate: Path,
) -> None:
    server_context, client_context = contexts(certificate)
    async with serving(forbid, tls=server_context, discard_seconds=0.5) as server:
        raw = await server.connect(ssl=client_context, server_hostname="localhost")
        raw.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        status, headers, body = await raw.answer()
        assert (status, headers["connection"], body) == (403, "close", b"denied")
        await raw.rest()


async def test_plain_http_on_a_tls_port_ends_and_others_are_served(certificate: Path) -> None:
    server_context, client_context = contexts(certificate)
    async with serving(echo, tls=server_context) as server:
        assert b"200 OK" not in await server.ask(GET)
        raw = await server.connect(ssl=client_context, server_hostname="localhost")
        raw.send(GET)
        assert (await raw.answer())[0] == 200


# A real SDK.


def client_of(port: int, **options: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20, **options),
    )


async def in_thread(function: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        return await asyncio.to_thread(function)


@pytest.mark.parametrize("size", [0, 1000, 8 << 20, 64 << 20])
async def test_boto3_sees_the_403_of_an_upload_that_nobody_read(size: int) -> None:
    async with serving(forbid) as server:
        client = client_of(server.port)

        def put() -> Any:
            with pytest.raises(ClientError) as caught:
                client.put_object(Bucket="b", Key="k", Body=bytes(size))
            return caught.value.response["ResponseMetadata"]["HTTPStatusCode"]

        for _ in range(3):
            assert await in_thread(put) == 403
        client.close()


async def test_boto3_uploads_and_its_connection_is_used_again() -> None:
    connections: set[Any] = set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            connections.add(scope["client"])
        while scope["type"] == "http" and (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"e"')]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as server:
        client = client_of(server.port)
        for size in (10, 6 << 20):
            answer = await in_thread(
                lambda size=size: client.put_object(Bucket="b", Key="k", Body=bytes(size))
            )
            assert answer["ETag"] == '"e"'
        client.close()
    assert len(connections) == 1
