"""Whoever attacks a port that speaks TLS: before, in and after the handshake."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from compose.local import Up, wait_until
from compose.s3_http import S3Http
from s3gw.pki import Authority
from s3gw.transport import CHECK_SECONDS
from tests.attacks.target import BACKGROUND_MAX, HANG_SECONDS, Raw, descriptors
from tests.edge.smuggling import ATTACKS, SMUGGLED
from tests.tls.conftest import HEAD_SECONDS, HOSTS

ATTACKERS = 100
SWEEPS_SECONDS = 4
PORTS = ("s3", "admin")


def port_of(store: Up, port: str) -> int:
    return store.s3_port if port == "s3" else store.admin_port


def answer(port: int, request: bytes, trust: ssl.SSLContext) -> bytes:
    """All that comes back for `request` inside TLS, until the server closes."""
    data = bytearray()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(request)
        try:
            while piece := secure.recv(65536):
                data += piece
        except (ConnectionResetError, ssl.SSLEOFError):
            return bytes(data)
    return bytes(data)


@pytest.mark.parametrize("port", PORTS)
def test_plain_http_is_ended_without_an_answer(store: Up, port: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(store, port), timeout=HANG_SECONDS)
    connection.request("GET", "/")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize("port", PORTS)
def test_smuggling_is_400_and_the_end_of_the_connection(
    store: Up, port: str, trust: ssl.SSLContext
) -> None:
    number = port_of(store, port)
    with ThreadPoolExecutor(len(ATTACKS)) as pool:
        answers = pool.map(lambda each: answer(number, each + SMUGGLED, trust), ATTACKS.values())
    for attack, data in zip(ATTACKS, answers, strict=True):
        assert data.startswith(b"HTTP/1.1 400 "), attack
        assert data.count(b"HTTP/1.1 ") == 1, attack
        assert b"smuggled" not in data, attack


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01"])
def test_slow_handshakes_are_ended_and_others_served(
    store: Up, http: S3Http, bucket: str, hello: bytes
) -> None:
    """Those who connect and say nothing, and those who stop in the midst of their first message."""
    before = descriptors(store.process)
    with ExitStack() as stack:
        started = time.monotonic()
        opened = [stack.enter_context(Raw(store.s3_port)) for _ in range(ATTACKERS)]
        for raw in opened:
            raw.send(hello)
        assert http.request("PUT", f"/{bucket}/meanwhile", body=b"x").status == 200
        for raw in opened:
            raw.socket.settimeout(HEAD_SECONDS + SWEEPS_SECONDS)
            assert raw.rest() == b""
        assert time.monotonic() - started < HEAD_SECONDS + SWEEPS_SECONDS
    wait_until(
        lambda: descriptors(store.process) <= before + BACKGROUND_MAX,
        what="descriptors at rest",
        seconds_max=10,
    )


def test_after_the_handshake_a_head_has_its_deadline(store: Up, trust: ssl.SSLContext) -> None:
    started = time.monotonic()
    data = answer(store.s3_port, b"GET / HTTP/1.1\r\nHost: ", trust)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < HEAD_SECONDS + SWEEPS_SECONDS


def test_old_versions_and_weak_ciphers_are_refused(store: Up, files: Path) -> None:
    def ask(*, version: ssl.TLSVersion, ciphers: str) -> Any:
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        context.set_ciphers(ciphers)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", store.s3_port), timeout=HANG_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.selected_alpn_protocol(), secure.session_reused

    newest, older = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    for version in (newest, older):
        assert ask(version=version, ciphers="DEFAULT") == ("http/1.1", False)
    for version, ciphers in (
        (older, "AES128-GCM-SHA256"),  # no forward secrecy
        (older, "ECDHE-ECDSA-AES128-SHA256"),  # not authenticated while encrypted
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(version=version, ciphers=ciphers)
    old = ("curl", "-sS", "--insecure", "--tlsv1.1", "--tls-max", "1.1")
    weak = ("--ciphers", "DEFAULT:@SECLEVEL=0", store.endpoint)
    done = subprocess.run([*old, *weak], capture_output=True, text=True, timeout=30)
    assert done.returncode == 35, done.stderr  # no handshake


def test_a_replaced_certificate_is_shown_without_a_restart(
    store: Up, authority: Authority, files: Path, trust: ssl.SSLContext, s3: Any, bucket: str
) -> None:
    """Also one whose key and authority are others, to new connections; half of a pair is not."""

    def shown(port: int) -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as plain,
            trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            certificate = secure.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])

    ports = (store.s3_port, store.admin_port)
    before = [shown(port) for port in ports]
    (files / "key.pem").unlink()
    authority.issue("server", HOSTS, files, time.time())
    wait_until(
        lambda: all(shown(port) not in before for port in ports),
        what="the new certificate",
        seconds_max=2 * CHECK_SECONDS + 5,
    )
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] is not None
    assert store.process.running()
