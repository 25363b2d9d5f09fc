"""Mutual TLS on the node port: who is let in, and certificates that are replaced."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from nodes.client import RemoteDrive, open_session
from nodes.memory import MemoryDrive
from nodes.protocol import DriveError, DriveRefused, DriveUnreachable, ShardMissing, ShardName
from nodes.tls import GATEWAY_CALLS, TlsCredentials, TlsError, is_loopback
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import Registration
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata.records import NodeRecord
from tests.nodes.drives import SECRET, Clock, make_shard
from tests.nodes.secure import HOST, Pki, client_context, node_context, serving_tls

NAME = ShardName("p", 1, bytes(16), 0)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


async def reach(url: str, tls: ssl.SSLContext) -> None:
    """A call of a gateway; raises DriveError or DriveUnreachable when it does not get through."""
    async with open_session(tls) as session:
        await RemoteDrive(session, url, "d1", SECRET).stats()


async def test_a_gateway_writes_and_reads_shards_over_mutual_tls(pki: Pki) -> None:
    shard = make_shard(NAME, os.urandom(3_000_000), 100_000)
    gateway = pki.credentials("gateway").client(GATEWAY_CALLS)
    node = serving_tls({"d1": MemoryDrive()}, node_context(pki))
    async with node as url, open_session(gateway) as session:
        drive = RemoteDrive(session, url, "d1", SECRET, plain_allowed=False)
        await drive.write(NAME, shard)
        size = sum(map(len, shard))
        assert await drive.size(NAME) == size
        assert await drive.read(NAME, 0, size) == b"".join(shard)


def test_a_key_that_others_may_read_is_warned_of_once(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = pki.credentials("gateway")
    assert not caplog.records
    (credentials.directory / "key.pem").chmod(0o640)
    again = TlsCredentials(credentials.directory)
    again.refresh()
    again.client(GATEWAY_CALLS)
    (record,) = caplog.records
    assert "key.pem may be read or written by others" in record.getMessage()


@pytest.mark.parametrize("role", ["gateway", "node"])
async def test_gateways_and_nodes_may_call_a_node(pki: Pki, role: str) -> None:
    async with serving_tls({"d1": MemoryDrive()}, node_context(pki)) as url:
        await reach(url, pki.credentials(role).client(GATEWAY_CALLS))


@pytest.mark.parametrize("role", ["etcd", "client", "ca", "", "gateway,node", "gatewa"])
async def test_a_certificate_of_another_role_does_not_open_a_node(
    pki: Pki, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = pki.directory / "stranger"
    pki.authority.issue(role or " ", [HOST], stranger, time.time())
    async with serving_tls({"d1": MemoryDrive()}, node_context(pki)) as url:
        context = client_context(stranger, stranger)
        with pytest.raises((DriveError, DriveUnreachable)):
            await reach(url, context)
    assert "refused a peer" in caplog.text


async def test_without_a_certificate_or_with_one_of_another_authority_nobody_gets_in(
    pki: Pki, tmp_path: Path
) -> None:
    foreign = Pki(tmp_path / "foreign").issue("gateway")
    trusted = pki.issue("gateway")
    async with serving_tls({"d1": MemoryDrive()}, node_context(pki)) as url:
        for context in (client_context(trusted), client_context(trusted, foreign)):
            with pytest.raises((DriveError, DriveUnreachable)):
                await reach(url, context)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(url.replace("https", "http") + "/health")


@pytest.mark.parametrize("role", ["gateway", "etcd", "client", "ca"])
async def test_a_gateway_does_not_talk_to_a_server_that_is_not_a_node(pki: Pki, role: str) -> None:
    impostor = pki.credentials(role).server({"gateway"})
    async with serving_tls({"d1": MemoryDrive()}, impostor) as url:
        with pytest.raises(DriveUnreachable, match="role"):
            await reach(url, pki.credentials("gateway").client(GATEWAY_CALLS))


async def test_a_gateway_does_not_talk_to_a_node_of_another_host_or_authority(
    pki: Pki, tmp_path: Path
) -> None:
    gateway = pki.credentials("gateway")
    elsewhere = pki.credentials("node", "10.9.8.7").server({"gateway"})
    foreign = Pki(tmp_path / "foreign").credentials("node").server({"gateway"})
    for context in (elsewhere, foreign):
        async with serving_tls({"d1": MemoryDrive()}, context) as url:
            with pytest.raises(DriveUnreachable, match="verify failed"):
                await reach(url, gateway.client(GATEWAY_CALLS))


async def test_only_tls_1_3_and_http_1_1_are_spoken(pki: Pki) -> None:
    own = pki.issue("gateway")
    async with serving_tls({"d1": MemoryDrive()}, node_context(pki)) as url:
        port = int(url.rpartition(":")[2])
        context = client_context(own, own)
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection(HOST, port, ssl=context)
        tls = writer.get_extra_info("ssl_object")
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        assert tls.session is None or not tls.session.has_ticket
        writer.close()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(HOST, port, ssl=context)


def served_by(port: int, own: Path) -> bytes:
    """The certificate, DER, that a new connection is shown. Blocks."""
    with (
        socket.create_connection((HOST, port), timeout=5) as plain,
        client_context(own, own).wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_live_on(
    pki: Pki,
) -> None:
    node, gateway = pki.credentials("node"), pki.credentials("gateway")
    own = gateway.directory
    async with serving_tls({"d1": MemoryDrive()}, node.server({"gateway"})) as url:
        port = int(url.rpartition(":")[2])
        async with open_session(gateway.client(GATEWAY_CALLS)) as session:
            drive = RemoteDrive(session, url, "d1", SECRET)
            await drive.stats()
            before = await asyncio.to_thread(served_by, port, own)
            assert not node.refresh()
            pki.issue("node")
            assert await asyncio.to_thread(served_by, port, own) == before
            assert node.refresh()
            assert not node.refresh()
            assert await asyncio.to_thread(served_by, port, own) != before
            await drive.stats()


async def test_a_change_of_the_authority_with_both_trusted_in_between(
    pki: Pki, tmp_path: Path
) -> None:
    """Old only; both trusted everywhere; new certificates everywhere; new only."""
    new = Pki(tmp_path / "new")
    node, gateway = pki.credentials("node"), pki.credentials("gateway")
    both = pki.authority.bundle + new.authority.bundle
    lists = pki.authority.revocations + new.authority.revocations
    async with serving_tls({"d1": MemoryDrive()}, node.server({"gateway"})) as url:
        calls = gateway.client(GATEWAY_CALLS)
        await reach(url, calls)
        for files in (node, gateway):
            (files.directory / "ca.pem").write_bytes(both)
            (files.directory / "crl.pem").write_bytes(lists)
            assert files.refresh()
            await reach(url, calls)
        for role, files in (("node", node), ("gateway", gateway)):
            new.authority.issue(role, [HOST], files.directory, time.time())
            (files.directory / "ca.pem").write_bytes(both)
            (files.directory / "crl.pem").write_bytes(lists)
            assert files.refresh()
            await reach(url, calls)
        (node.directory / "ca.pem").write_bytes(new.authority.bundle)
        assert node.refresh()
        await reach(url, calls)
        with pytest.raises((DriveError, DriveUnreachable)):
            await reach(url, client_context(gateway.directory, pki.issue("node")))


async def test_half_replaced_files_change_nothing_until_they_are_whole(pki: Pki) -> None:
    node, gateway = pki.credentials("node"), pki.credentials("gateway").client(GATEWAY_CALLS)
    async with serving_tls({"d1": MemoryDrive()}, node.server({"gateway"})) as url:
        fresh = pki.issue("node", "localhost")
        shutil.copy(fresh / "key.pem", node.directory / "key.pem")
        for _ in range(2):
            with pytest.raises(TlsError, match="not the key of"):
                node.refresh()
        await reach(url, gateway)
        (node.directory / "ca.pem").unlink()
        with pytest.raises(TlsError, match=r"ca\.pem cannot be read"):
            node.refresh()
        await reach(url, gateway)
        pki.issue("node")
        assert node.refresh()
        await reach(url, gateway)


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_files_that_cannot_be_used_are_named(pki: Pki, name: str, content: bytes | None) -> None:
    directory = pki.issue("node")
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(TlsError, match=str(directory)):
        TlsCredentials(directory)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "node1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


async def test_nothing_is_sent_in_the_clear_to_another_machine() -> None:
    async with open_session() as session:
        drive = RemoteDrive(session, "http://10.9.8.7:1", "d1", SECRET, plain_allowed=False)
        for call in (drive.stats(), drive.write(NAME, [b"x"]), drive.read(NAME, 0, 1)):
            with pytest.raises(DriveUnreachable, match="refused"):
                await call
        async with serving_tls({"d1": MemoryDrive()}, None) as url:
            await RemoteDrive(session, url, "d1", SECRET, plain_allowed=False).stats()


async def test_a_node_that_lost_its_lease_refuses_writes_until_it_is_registered_again() -> None:
    """Over HTTP, with the lease of a real registration and a clock that the test moves."""
    clock = Clock()
    kv = MemoryKV(MemoryStore(clock))
    lease = ProcessLease(kv, ttl_seconds=15, heartbeat_seconds=5, clock=clock)
    await lease.take()
    record = NodeRecord("127.0.0.1:1", "z", "h", 1, 1, "n", "0", 0)
    registration = Registration(kv, lease, {"d1": record})
    await registration.register()
    shard = make_shard(NAME, b"payload")
    drive = MemoryDrive()
    async with serving_tls({"d1": drive}, None, registration) as url, open_session() as session:
        remote = RemoteDrive(session, url, "d1", SECRET)
        await remote.write(NAME, shard)
        clock.now += 15
        other = ShardName("p", 1, bytes(16), 1)
        for _ in range(2):
            with pytest.raises(DriveError, match="lease-ended"):
                await remote.write(other, make_shard(other, b"payload"))
            assert await remote.read(NAME, 0, 10_000) == b"".join(shard)
            await lease.renew()  # a new lease alone is not enough
        with pytest.raises(ShardMissing):
            await remote.size(other)
        await registration.register()
        await remote.write(other, make_shard(other, b"payload"))
        with pytest.raises(DriveRefused):
            await RemoteDrive(session, url, "d1", b"not the secret at all").stats()
