"""Who may call a node (S9), by unit and through a real server."""

from __future__ import annotations

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from nodes import wire
from nodes.auth import (
    NONCES_OUT_OF_ORDER_MAX,
    Authenticator,
    Replayed,
    Signer,
    Unauthenticated,
)
from nodes.client import RemoteDrive, open_session
from nodes.memory import MemoryDrive
from nodes.protocol import DriveRefused, ShardName
from tests.nodes.drives import SECRET, Clock, make_shard, serving

NAME = ShardName("p", 1, bytes(16), 0)
OTHER = ShardName("p", 1, bytes(16), 1)
TARGET = "/v1/d1/stats"


def check(authenticator: Authenticator, header: str, method: str = "GET") -> None:
    authenticator.check(method, TARGET, None, header.encode())


def test_a_signed_request_is_accepted_once(clock: Clock) -> None:
    header = Signer(SECRET, clock).sign("GET", TARGET, None)
    authenticator = Authenticator(SECRET, clock)
    check(authenticator, header)
    with pytest.raises(Replayed):
        check(authenticator, header)


def test_what_the_signature_covers_cannot_be_changed(clock: Clock) -> None:
    header = Signer(SECRET, clock).sign("PUT", "/v1/d1/a?x=1", 10).encode()
    authenticator = Authenticator(SECRET, clock)
    changed: list[tuple[str, str, bytes | None]] = [
        ("DELETE", "/v1/d1/a?x=1", b"10"),
        ("PUT", "/v1/d1/b?x=1", b"10"),
        ("PUT", "/v1/d2/a?x=1", b"10"),
        ("PUT", "/v1/d1/a?x=2", b"10"),
        ("PUT", "/v1/d1/a", b"10"),
        ("PUT", "/v1/d1/a?x=1", b"11"),
        ("PUT", "/v1/d1/a?x=1", None),
    ]
    for method, target, length in changed:
        with pytest.raises(Unauthenticated):
            authenticator.check(method, target, length, header)
    authenticator.check("PUT", "/v1/d1/a?x=1", b"10", header)


def test_another_secret_is_refused(clock: Clock) -> None:
    with pytest.raises(Unauthenticated):
        check(
            Authenticator(SECRET, clock),
            Signer(b"another secret....", clock).sign("GET", TARGET, 0),
        )


@pytest.mark.parametrize("secret", [b"", b"fifteen bytes..", b"x"])
def test_a_short_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError):
        Authenticator(secret)
    with pytest.raises(ValueError):
        Signer(secret)


@pytest.mark.parametrize("seconds", [-3600, -62, 62, 3600])
def test_a_clock_that_is_off_by_more_than_a_minute_is_refused(clock: Clock, seconds: int) -> None:
    header = Signer(SECRET, clock).sign("GET", TARGET, None)
    clock.now += seconds
    with pytest.raises(Unauthenticated):
        check(Authenticator(SECRET, clock), header)


def test_requests_may_overtake_each_other_and_none_is_accepted_twice(clock: Clock) -> None:
    signer, authenticator = Signer(SECRET, clock), Authenticator(SECRET, clock)
    headers = [signer.sign("GET", TARGET, None) for _ in range(300)]
    order = [(n * 37) % 300 for n in range(300)]
    for n in order:
        check(authenticator, headers[n])
    for n in order:
        with pytest.raises(Replayed):
            check(authenticator, headers[n])


def test_a_request_overtaken_by_too_many_is_refused(clock: Clock) -> None:
    signer, authenticator = Signer(SECRET, clock), Authenticator(SECRET, clock)
    first, second = (signer.sign("GET", TARGET, None) for _ in range(2))
    for _ in range(NONCES_OUT_OF_ORDER_MAX - 1):
        last = signer.sign("GET", TARGET, None)
    check(authenticator, last)
    check(authenticator, second)
    with pytest.raises(Replayed):
        check(authenticator, first)


@given(st.binary(max_size=200))
def test_no_header_crashes_the_check(header: bytes) -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(SECRET).check("GET", TARGET, None, header)


@given(st.data())
def test_no_changed_header_is_accepted(data: st.DataObject) -> None:
    clock = Clock()
    header = bytearray(Signer(SECRET, clock).sign("GET", TARGET, None).encode())
    at = data.draw(st.integers(0, len(header) - 1))
    header[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unauthenticated):
        Authenticator(SECRET, clock).check("GET", TARGET, None, bytes(header))


ROUTES = [
    ("PUT", wire.shard_target("d1", NAME)),
    ("GET", wire.shard_target("d1", NAME) + "?offset=0&length=10"),
    ("HEAD", wire.shard_target("d1", NAME)),
    ("DELETE", wire.shard_target("d1", NAME) + "?pg_revision=1"),
    ("POST", wire.shard_target("d1", NAME) + "/verify"),
    ("POST", wire.shard_target("d1", NAME) + "/quarantine"),
    ("GET", "/v1/d1/shards/p/1"),
    ("PUT", "/v1/d1/pg/p/1?revision=7"),
    ("GET", "/v1/d1/stats"),
    ("GET", "/v1/no-such-drive/stats"),
    ("GET", "/"),
]


def forged_headers(method: str, target: str) -> list[dict[str, str]]:
    """What an attacker may send: nothing, nonsense, a guess, and signatures of other requests."""
    signer = Signer(SECRET)
    other_method = "GET" if method != "GET" else "DELETE"
    genuine = signer.sign(method, target, None)
    signatures = [
        "Basic dXNlcjpwYXNz",
        genuine.rpartition("=")[0] + "=" + "0" * 64,
        Signer(b"x" * 32).sign(method, target, None),
        Signer(SECRET, lambda: 1.0).sign(method, target, None),
        signer.sign(other_method, target, None),
        signer.sign(method, target + "0", None),
        signer.sign(method, target.replace("d1", "d2") + "&", None),
        signer.sign(method, wire.shard_target("d1", OTHER), None),
        signer.sign(method, target, 5),
    ]
    return [{}, *({"Authorization": signature} for signature in signatures)]


async def test_no_route_answers_without_credentials_of_exactly_this_request() -> None:
    drive = MemoryDrive()
    shard = b"".join(make_shard(NAME, b"payload"))
    drive.shards[NAME] = shard
    tried = 0
    async with serving({"d1": drive}) as url, aiohttp.ClientSession() as session:
        for method, target in ROUTES:
            for headers in forged_headers(method, target):
                async with session.request(
                    method, URL(url + target, encoded=True), headers=headers
                ) as response:
                    assert response.status == 401, (method, target, headers)
                    assert b"payload" not in await response.read()
                tried += 1
    assert tried == len(ROUTES) * 10
    assert drive.shards == {NAME: shard}
    assert drive.calls == []


async def test_a_replayed_request_is_refused_by_the_server() -> None:
    drive = MemoryDrive()
    header = {"Authorization": Signer(SECRET).sign("GET", TARGET, None)}
    async with serving({"d1": drive}) as url, aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(2):
            async with session.get(url + TARGET, headers=header) as response:
                statuses.append(response.status)
                body = await response.read()
    assert statuses == [200, 401]
    assert b'"replayed"' in body


async def test_health_needs_no_credentials_and_tells_nothing() -> None:
    async with serving({"d1": MemoryDrive()}) as url, aiohttp.ClientSession() as session:
        async with session.get(url + "/health") as response:
            assert (response.status, await response.read()) == (200, b'{"status":"ok"}')
        async with session.delete(url + "/health") as response:
            assert response.status == 401


async def test_a_client_with_a_wrong_secret_is_told_refused() -> None:
    async with serving({"d1": MemoryDrive()}) as url, open_session() as session:
        with pytest.raises(DriveRefused):
            await RemoteDrive(session, url, "d1", b"not the secret at all").stats()
        with pytest.raises(DriveRefused):
            await RemoteDrive(session, url, "d2", SECRET).stats()
