"""Who may call a node (S9), by unit and through a real server."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

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
from nodes.protocol import DriveError, DriveRefused, DriveUnreachable, ShardName
from tests.nodes.drives import SECRET, Clock, make_shard, serving
from tests.nodes.secure import Pki, client_context, node_context, serving_tls

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


def forged_headers(method: str, target: str) -> dict[str, dict[str, str]]:
    """What an attacker may send: nothing, nonsense, a guess, and signatures of other requests."""
    signer = Signer(SECRET)
    other_method = "GET" if method != "GET" else "DELETE"
    genuine = signer.sign(method, target, None)
    signatures = {
        "another scheme": "Basic dXNlcjpwYXNz",
        "a guess": genuine.rpartition("=")[0] + "=" + "0" * 64,
        "wrong secret": Signer(b"x" * 32).sign(method, target, None),
        "expired": Signer(SECRET, lambda: time.time() - 120).sign(method, target, None),
        "from the future": Signer(SECRET, lambda: time.time() + 120).sign(method, target, None),
        "another method": signer.sign(other_method, target, None),
        "another query": signer.sign(method, target + "0", None),
        "another drive": signer.sign(method, target.replace("d1", "d2") + "&", None),
        "another shard": signer.sign(method, wire.shard_target("d1", OTHER), None),
        "another body": signer.sign(method, target, 5),
    }
    return {
        "no credentials": {},
        **{name: {"Authorization": signature} for name, signature in signatures.items()},
    }


NO_ANSWER = 0


async def status_of(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> int:
    """The status of the answer, which tells nothing of a shard; NO_ANSWER without one."""
    try:
        async with session.request(method, URL(url, encoded=True), **options) as response:
            assert b"payload" not in await response.read()
            return response.status
    except aiohttp.ClientError:
        return NO_ANSWER


def strangers(pki: Pki, tmp_path: Path) -> dict[str, ssl.SSLContext]:
    """Peers who trust the node but are not of a role, or not of the cluster, that it trusts."""
    trusted = pki.issue("gateway")
    foreign = Pki(tmp_path / "foreign").issue("gateway")
    contexts = {
        "no client certificate": client_context(trusted),
        "certificate of another authority": client_context(trusted, foreign),
        "expired certificate": client_context(trusted, pki.issue("gateway", "old", now=1e9)),
    }
    for role in ("etcd", "client", "ca", "admin"):
        contexts[f"certificate of role {role}"] = client_context(trusted, pki.issue(role))
    return contexts


async def test_no_route_answers_without_credentials_of_exactly_this_request(
    tmp_path: Path,
) -> None:
    """S9: every route, each way of not being a gateway of this cluster; in the clear (on loopback)
    and over TLS, where neither a signature nor a certificate alone is enough."""
    drive = MemoryDrive()
    shard = b"".join(make_shard(NAME, b"payload"))
    drive.shards[NAME] = shard
    pki = Pki(tmp_path / "pki")
    gateway = client_context(pki.issue("gateway"), pki.issue("gateway"))
    unwelcome = strangers(pki, tmp_path)
    accepted, tried = [], 0
    plain, secure = serving({"d1": drive}), serving_tls({"d1": drive}, node_context(pki))
    async with plain as plain_url, secure as secure_url, aiohttp.ClientSession() as session:
        for method, target in ROUTES:
            for name, headers in forged_headers(method, target).items():
                for url in (plain_url + target, secure_url + target):
                    tried += 1
                    found = await status_of(session, method, url, headers=headers, ssl=gateway)
                    if found != 401:
                        accepted.append((method, url, name, found))
            url = secure_url + target
            for name, context in unwelcome.items():
                tried += 1
                headers = {"Authorization": Signer(SECRET).sign(method, target, None)}
                found = await status_of(session, method, url, headers=headers, ssl=context)
                if found != NO_ANSWER:
                    accepted.append((method, url, name, found))
    print(f"S9: {tried} forged requests to {len(ROUTES)} routes, {len(accepted)} accepted")
    assert accepted == []
    assert tried == len(ROUTES) * (2 * 11 + 7)
    assert drive.shards == {NAME: shard}
    assert drive.calls == []


async def test_every_route_accepts_its_own_request_once_and_never_again() -> None:
    """S9, replays. That each is accepted first shows that the others were refused for what they
    were, not for being unknown requests."""
    replays = 0
    for method, target in ROUTES:
        drive = MemoryDrive()
        shard = b"".join(make_shard(NAME, b"payload"))
        body = shard if method == "PUT" and "/shards/" in target else None
        if body is None:
            drive.shards[NAME] = shard
        header = Signer(SECRET).sign(method, target, len(body) if body else None)
        async with serving({"d1": drive}) as url, aiohttp.ClientSession() as session:
            statuses = []
            for _ in range(2):
                async with session.request(
                    method,
                    URL(url + target, encoded=True),
                    headers={"Authorization": header},
                    data=body,
                ) as response:
                    statuses.append(response.status)
        first = {"/": 400, "/v1/no-such-drive/stats": 503}.get(target, 200)
        assert statuses == [first, 401], (method, target)
        replays += 1
    print(f"S9: {replays} replayed requests, 0 accepted")


async def test_a_put_is_not_accepted_with_another_body() -> None:
    """The signature covers the length, and the shard format's checksums the rest: bodies of another
    length, with a flipped bit, or of another shard."""
    target = wire.shard_target("d1", NAME)
    shard = b"".join(make_shard(NAME, b"payload" * 100))
    other = b"".join(make_shard(OTHER, b"payload" * 100))
    flipped = [bytearray(shard) for _ in range(64)]
    for number, body in enumerate(flipped):
        body[len(body) * number // 64] ^= 1 << number % 8
    bodies = [shard + b"\0", shard[:-1], b"", other, *map(bytes, flipped)]
    drive = MemoryDrive()
    async with serving({"d1": drive}) as url, aiohttp.ClientSession() as session:
        for body in bodies:
            header = {"Authorization": Signer(SECRET).sign("PUT", target, len(shard))}
            async with session.put(url + target, headers=header, data=body) as response:
                assert response.status == (400 if len(body) == len(shard) else 401)
    print(f"S9: {len(bodies)} replaced bodies, 0 accepted")
    assert drive.shards == {}


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


async def test_a_drive_that_the_node_does_not_serve_counts_as_unreachable() -> None:
    """Its registration may live on for a while after the drive was lost or replaced."""
    async with serving({"d1": MemoryDrive()}) as url, open_session() as session:
        drive = RemoteDrive(session, url, "d2", SECRET)
        with pytest.raises(DriveUnreachable):
            await drive.stats()
        with pytest.raises(DriveUnreachable):
            await drive.read(NAME, 0, 1)
        with pytest.raises(DriveError):
            await drive.size(NAME)
