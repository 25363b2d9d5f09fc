"""etcd over mutual TLS, and certificates that are replaced under a watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from compose.certificates import HOST, Certificates
from compose.local import Etcd
from nodes.tls import TlsCredentials
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import At, EventKind, Put, Unavailable


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path_factory.mktemp("etcd") / "etcd", certificates=certificates).start()
    yield etcd
    etcd.stop()


@pytest.fixture
async def engine(server: Etcd, certificates: Certificates) -> AsyncIterator[EtcdKV]:
    credentials = TlsCredentials(certificates.of("gateway"))
    connected = await EtcdKV.connect([server.url], tls=credentials)
    yield connected
    await connected.close()


async def test_reads_commits_and_leases(engine: EtcdKV) -> None:
    lease = await engine.grant_lease(30)
    await engine.commit([At(b"k", 0)], [Put(b"k", b"v", lease)])
    (item,) = (await engine.get_many([b"k"])).items
    assert item is not None
    assert item.value == b"v"
    await engine.revoke_lease(lease)
    assert (await engine.get_many([b"k"])).items == [None]


async def test_a_watch_goes_on_while_certificates_are_replaced(
    engine: EtcdKV, certificates: Certificates
) -> None:
    start = (await engine.get_many([])).revision
    seen: list[bytes] = []

    async def follow() -> None:
        async for event in engine.watch(b"w/", after_revision=start):
            seen.extend([event.key] if event.kind is EventKind.PUT else [])

    following = asyncio.create_task(follow())
    for number in range(6):
        await engine.commit([], [Put(b"w/%d" % number, b"")])
        async with asyncio.timeout(10):
            while len(seen) <= number:
                await asyncio.sleep(0.01)
        if number % 2:
            await asyncio.to_thread(certificates.issue, "gateway", certificates.of("gateway"))
            engine.reconnect()
    following.cancel()
    assert seen == [b"w/%d" % number for number in range(6)]


async def test_new_channels_use_the_new_certificate(
    engine: EtcdKV, certificates: Certificates, tmp_path: Path
) -> None:
    """Seen by what happens when the new one is no good: calls fail, and mend with the next."""
    own = certificates.of("gateway")
    other = await asyncio.to_thread(Certificates, tmp_path)
    kept = {name: (own / name).read_bytes() for name in ("key.pem", "cert.pem")}
    await engine.get_many([b"k"])
    for name in kept:
        (own / name).write_bytes((other.of("gateway") / name).read_bytes())
    engine.reconnect()
    with pytest.raises(Unavailable):
        await engine.get_many([b"k"])
    for name, content in kept.items():
        (own / name).write_bytes(content)
    engine.reconnect()
    await engine.get_many([b"k"])


@pytest.mark.parametrize(
    ("role", "host"),
    [("node", HOST), ("gateway", HOST), ("client", HOST), ("server", HOST), ("etcd", "10.9.8.7")],
)
async def test_what_the_authority_did_not_make_etcd_at_this_host_is_not_asked(
    role: str, host: str, server: Etcd, engine: EtcdKV, certificates: Certificates
) -> None:
    """etcd shows what it finds for every connection: here a certificate of the same authority, of
    another role or for another host."""
    own, posing = certificates.of("etcd"), certificates.directory / f"posing-{role}"
    await asyncio.to_thread(certificates.issue, role, posing, host)
    kept = {name: (own / name).read_bytes() for name in ("key.pem", "cert.pem")}
    await engine.get_many([b"k"])
    for name in kept:
        (own / name).write_bytes((posing / name).read_bytes())
    credentials = TlsCredentials(certificates.of("gateway"))
    other = await EtcdKV.connect([server.url], deadline_seconds=2, tls=credentials)
    try:
        with pytest.raises(Unavailable):
            await other.get_many([b"k"])
    finally:
        for name, content in kept.items():
            (own / name).write_bytes(content)
    other.reconnect()
    await other.get_many([b"k"])
    await other.close()


async def test_a_certificate_of_the_s3_port_opens_nothing(
    server: Etcd, certificates: Certificates
) -> None:
    own = certificates.directory / "for-the-world"
    await asyncio.to_thread(certificates.issue, "server", own)
    engine = await EtcdKV.connect([server.url], deadline_seconds=2, tls=TlsCredentials(own))
    with pytest.raises(Unavailable):
        await engine.get_many([b"k"])
    await engine.close()


async def test_etcd_refuses_a_revoked_certificate(server: Etcd, certificates: Certificates) -> None:
    """It reads `crl.pem` for every connection."""
    own = certificates.directory / "to-be-revoked"
    await asyncio.to_thread(certificates.issue, "node", own)
    engine = await EtcdKV.connect([server.url], deadline_seconds=2, tls=TlsCredentials(own))
    await engine.get_many([b"k"])
    await engine.close()
    await asyncio.to_thread(certificates.revoke, own)
    again = await EtcdKV.connect([server.url], deadline_seconds=2, tls=TlsCredentials(own))
    with pytest.raises(Unavailable):
        await again.get_many([b"k"])
    await again.close()


async def test_without_the_right_certificates_nothing_is_read(server: Etcd, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs certificates"):
        await EtcdKV.connect([server.url])
    stranger = await asyncio.to_thread(Certificates, tmp_path)
    credentials = TlsCredentials(stranger.of("gateway"))
    for url in (server.url, server.url.replace("https", "http")):
        engine = await EtcdKV.connect([url], deadline_seconds=2, tls=credentials)
        with pytest.raises(Unavailable):
            await engine.get_many([b"k"])
        await engine.close()
