"""Certificates that are revoked: the list, who takes it, and peers that are shut out by it."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodes.client import RemoteDrive, open_session
from nodes.memory import MemoryDrive
from nodes.protocol import DriveError, DriveUnreachable
from nodes.tls import GATEWAY_CALLS, NODE_SERVES, TlsCredentials, TlsError
from s3gw import cli, pki
from s3gw.config import Config, ConfigError
from s3gw.pki import Authority, PkiError
from s3gw.transport import keep_certificates, open_credentials
from tests.nodes.drives import SECRET
from tests.nodes.secure import HOST, Pki, serving_tls

REVOKED = (DriveError, DriveUnreachable)


@pytest.fixture
def pki_of(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def revoke(made: Pki, owner: Path, *told: Path) -> None:
    """Revoke the certificate in a directory, and bring the list to others."""
    made.authority.revoke([made.authority.require_own(owner / "cert.pem")], time.time())
    for directory in told:
        (directory / "crl.pem").write_bytes(made.authority.revocations)


class Stop(Exception):
    """Ends an endless task."""


async def once(credentials: TlsCredentials) -> None:
    """What a running process does of itself with files that were replaced."""

    async def stop(seconds: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        await keep_certificates(credentials, sleep=stop)


async def test_a_gateway_that_is_revoked_is_shut_out_also_of_its_open_connection(
    pki_of: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    node, stolen = pki_of.credentials("node"), pki_of.credentials("gateway")
    other = pki_of.credentials("gateway", "localhost")
    async with serving_tls({"d1": MemoryDrive()}, node.server(NODE_SERVES)) as url:
        async with (
            open_session(stolen.client(GATEWAY_CALLS)) as held,
            open_session(other.client(GATEWAY_CALLS)) as kept,
        ):
            open_connection = RemoteDrive(held, url, "d1", SECRET)
            good_connection = RemoteDrive(kept, url, "d1", SECRET)
            await open_connection.stats()
            await good_connection.stats()
            revoke(pki_of, stolen.directory, node.directory)
            await once(node)
            assert "ended 1 connections" in caplog.text
            for _ in range(2):
                with pytest.raises(REVOKED):
                    await open_connection.stats()
            await good_connection.stats()
        async with open_session(stolen.client(GATEWAY_CALLS)) as again:
            with pytest.raises(REVOKED):
                await RemoteDrive(again, url, "d1", SECRET).stats()
        async with open_session(other.client(GATEWAY_CALLS)) as again:
            await RemoteDrive(again, url, "d1", SECRET).stats()


async def test_a_gateway_calls_no_node_that_is_revoked(pki_of: Pki) -> None:
    node, gateway = pki_of.credentials("node"), pki_of.credentials("gateway")
    drives = {"d1": MemoryDrive()}
    async with (
        serving_tls(drives, node.server(NODE_SERVES)) as url,
        open_session(gateway.client(GATEWAY_CALLS)) as session,
    ):
        drive = RemoteDrive(session, url, "d1", SECRET)
        await drive.stats()
        revoke(pki_of, node.directory, gateway.directory)
        await once(gateway)
        for _ in range(2):
            with pytest.raises(REVOKED):
                await drive.stats()
        # The same node with a certificate of its own again.
        for name in ("key.pem", "cert.pem"):
            (node.directory / name).unlink()
        pki_of.issue("node")
        await once(node)
        await drive.stats()


def pump(source: ssl.MemoryBIO, target: ssl.MemoryBIO) -> None:
    target.write(source.read())


def test_a_handshake_that_began_before_the_revocation_does_not_end_well(pki_of: Pki) -> None:
    """Whoever holds one open would otherwise be let in by what was true then."""
    node, stolen = pki_of.credentials("node"), pki_of.credentials("gateway")
    ins, outs = [ssl.MemoryBIO() for _ in "cs"], [ssl.MemoryBIO() for _ in "cs"]
    client = stolen.client(GATEWAY_CALLS).wrap_bio(ins[0], outs[0], server_hostname=HOST)
    server = node.server(NODE_SERVES).wrap_bio(ins[1], outs[1], server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    pump(outs[0], ins[1])
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    pump(outs[1], ins[0])
    client.do_handshake()
    pump(outs[0], ins[1])
    revoke(pki_of, stolen.directory, node.directory)
    assert node.refresh()
    assert node.cut(pki.revoked(node.directory)) == 0
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        server.do_handshake()


async def test_without_a_list_nobody_is_revoked(pki_of: Pki) -> None:
    node, gateway = pki_of.credentials("node"), pki_of.credentials("gateway")
    revoke(pki_of, gateway.directory)
    (node.directory / "crl.pem").unlink()
    context = TlsCredentials(node.directory).server(NODE_SERVES)
    async with (
        serving_tls({"d1": MemoryDrive()}, context) as url,
        open_session(gateway.client(GATEWAY_CALLS)) as session,
    ):
        await RemoteDrive(session, url, "d1", SECRET).stats()


def test_each_trusted_authority_needs_a_list(pki_of: Pki, tmp_path: Path) -> None:
    """Else all whose authority has none would be refused."""
    new = Pki(tmp_path / "new", "new")
    directory = pki_of.issue("node")
    credentials = TlsCredentials(directory)
    both = pki_of.authority.bundle + new.authority.bundle
    (directory / "ca.pem").write_bytes(both)
    with pytest.raises(TlsError, match="lists of 1 of the 2 authorities"):
        credentials.refresh()
    lists = pki_of.authority.revocations + new.authority.revocations
    (directory / "crl.pem").write_bytes(lists)
    assert credentials.refresh()
    assert pki.inspect(directory).role == "node"


def test_two_lists_of_one_authority_are_none_of_another(pki_of: Pki, tmp_path: Path) -> None:
    """OpenSSL, which counts lists, would take the files, and then refuse all of the other's."""
    node = pki_of.issue("node")
    other = Authority.create(tmp_path / "other", "other", time.time())
    first = pki_of.authority.revocations
    pki_of.authority.revoke([7], time.time())
    (node / "ca.pem").write_bytes(pki_of.authority.bundle + other.bundle)
    (node / "crl.pem").write_bytes(first + pki_of.authority.revocations)
    TlsCredentials(node)
    with pytest.raises(PkiError, match="no list of every authority"):
        pki.inspect(node)
    (node / "crl.pem").write_bytes(pki_of.authority.revocations + other.revocations)
    assert not pki.inspect(node).revoked


def test_an_authority_keeps_the_lists_of_others_behind_its_own(pki_of: Pki, tmp_path: Path) -> None:
    """etcd reads the first alone."""
    old = Pki(tmp_path / "old", "old")
    revoke(old, old.issue("node"))
    path = pki_of.directory / "ca" / "crl.pem"
    path.write_bytes(old.authority.revocations + pki_of.authority.revocations)
    (pki_of.directory / "ca" / "ca.pem").write_bytes(old.authority.bundle + pki_of.authority.bundle)
    serials = [pki_of.authority.require_own(pki_of.issue("node") / "cert.pem") for _ in range(2)]
    for serial in serials:
        pki_of.authority.revoke([serial], time.time())
    said = subprocess.run(
        ["openssl", "crl", "-in", str(path), "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.count("Serial Number:") == 2
    old_serial = old.authority.require_own(old.directory / f"node@{HOST}" / "cert.pem")
    assert pki.revoked(path.parent) == {*serials, old_serial}


async def test_of_two_lists_of_one_moment_the_later_one_counts(pki_of: Pki) -> None:
    """Whoever appends a list to another of the same authority, before or behind it."""
    node = pki_of.credentials("node")
    owners = [pki_of.issue("gateway", f"127.0.0.{number}") for number in (1, 2, 3)]
    now, lists = time.time() // 1, []
    for number, owner in enumerate(owners):
        pki_of.authority.revoke(
            [pki_of.authority.require_own(owner / "cert.pem")], now + number / 9
        )
        lists.append(pki_of.authority.revocations)
    for order in (lists, lists[::-1]):
        (node.directory / "crl.pem").write_bytes(b"".join(order))
        served = TlsCredentials(node.directory).server(NODE_SERVES)
        async with serving_tls({"d1": MemoryDrive()}, served) as url:
            for owner in owners:
                async with open_session(TlsCredentials(owner).client(GATEWAY_CALLS)) as session:
                    with pytest.raises(REVOKED):
                        await RemoteDrive(session, url, "d1", SECRET).stats()


def test_openssl_finds_the_list_right(pki_of: Pki) -> None:
    out = pki_of.issue("node")
    revoke(pki_of, out)
    ca = pki_of.directory / "ca"
    files = ("-CAfile", str(ca / "ca.pem"), "-CRLfile", str(ca / "crl.pem"), "-crl_check")
    verify = ["openssl", "verify", *files]
    for certificate, message in ((out, "certificate revoked"), (pki_of.issue("gateway"), ": OK")):
        path = str(certificate / "cert.pem")
        done = subprocess.run([*verify, path], capture_output=True, text=True)
        assert message in done.stdout + done.stderr


async def test_a_list_that_is_no_good_is_not_taken_over(
    pki_of: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half written, empty, or of another authority: with it nobody could connect."""
    node = pki_of.credentials("node")
    good = pki_of.authority.revocations
    foreign = Pki(tmp_path / "foreign").authority.revocations
    gateway = pki_of.credentials("gateway").client(GATEWAY_CALLS)
    async with serving_tls({"d1": MemoryDrive()}, node.server(NODE_SERVES)) as url:
        for bad in (good[:200], b"", foreign):
            caplog.clear()
            (node.directory / "crl.pem").write_bytes(bad)
            await once(node)
            assert "new certificates are not used" in caplog.text
            async with open_session(gateway) as session:
                await RemoteDrive(session, url, "d1", SECRET).stats()
            with pytest.raises(ConfigError):
                open_credentials(Config(tls_dir=str(node.directory)), "node")
        (node.directory / "crl.pem").write_bytes(good)
        caplog.clear()
        await once(node)
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_process_does_not_start_with_a_revoked_certificate(pki_of: Pki) -> None:
    out = pki_of.issue("node")
    config = Config(tls_dir=str(out))
    assert open_credentials(config, "node") is not None
    revoke(pki_of, out, out)
    with pytest.raises(ConfigError, match="has been revoked"):
        open_credentials(config, "node")


def test_a_revoked_key_is_not_certified_again(pki_of: Pki) -> None:
    out = pki_of.issue("node")
    revoke(pki_of, out)
    with pytest.raises(PkiError, match="has been revoked"):
        pki_of.issue("node")
    (out / "cert.pem").unlink()
    (out / "key.pem").unlink()
    pki_of.issue("node")
    assert not pki.inspect(out).revoked


def test_two_revocations_at_once_are_both_in_the_list(pki_of: Pki) -> None:
    ca = str(pki_of.directory / "ca")
    outs = [pki_of.issue("node", f"n{number}") for number in range(4)]
    serials = {pki_of.authority.require_own(out / "cert.pem") for out in outs}
    script = "import sys; from s3gw import cli; sys.exit(cli.main(sys.argv[1:]))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, "ca", "revoke", "--dir", ca, "--host", host]
        )
        for host in ("n0", "n1", "n2", "n3")
    ]
    assert [each.wait(60) for each in running] == [0, 0, 0, 0]
    assert pki.revoked(Path(ca)) == serials


def test_the_command_line(pki_of: Pki, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ca = pki_of.directory / "ca"
    base = ["ca", "revoke", "--dir", str(ca)]
    one, two = pki_of.issue("node", "n1"), pki_of.issue("gateway", "n1")
    serials = [pki_of.authority.require_own(out / "cert.pem") for out in (one, two)]
    assert cli.main([*base, "--host", "N1", "--role", "gateway"]) == 0
    assert pki.revoked(ca) == {serials[1]}
    assert f"revoked {serials[1]:x} (gateway)" in capsys.readouterr().out
    assert cli.main([*base, "--cert", str(one / "cert.pem")]) == 0
    assert pki.revoked(ca) == set(serials)
    capsys.readouterr()
    foreign = Pki(tmp_path / "foreign").issue("node")
    for wrong in (
        [],
        ["--host", "nobody"],
        ["--cert", str(foreign / "cert.pem")],
        ["--cert", str(tmp_path / "none")],
    ):
        assert cli.main([*base, *wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("s3gw: ")
        assert error.count("\n") == 1
    assert pki.revoked(ca) == set(serials)


def test_an_authority_of_before_has_no_list_until_it_revokes(pki_of: Pki) -> None:
    (pki_of.directory / "ca" / "crl.pem").unlink()
    opened = Authority.open(pki_of.directory / "ca")
    out = pki_of.directory / "n1"
    opened.issue("node", ["n1"], out, time.time())
    assert not (out / "crl.pem").exists()
    opened.revoke([opened.require_own(out / "cert.pem")], time.time())
    opened.issue("node", ["n2"], pki_of.directory / "n2", time.time())
    assert pki.revoked(pki_of.directory / "n2")
