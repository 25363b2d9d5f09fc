"""The authority: what it makes, what it refuses, and that nothing is overwritten."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest

from nodes.tls import TlsCredentials
from s3gw import cli, pki
from s3gw.pki import Authority, PkiError, Request

NOW = 1_900_000_000.0
DAY = 24 * 3600


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "test", time.time())


def openssl(*arguments: str) -> str:
    """An independent opinion."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_keys_are_private_and_the_authority_is_made_once(tmp_path: Path) -> None:
    Authority.create(tmp_path / "ca", "test", NOW)
    key = (tmp_path / "ca" / "ca.key").read_bytes()
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    with pytest.raises(PkiError, match="never overwritten"):
        Authority.create(tmp_path / "ca", "test", NOW)
    assert (tmp_path / "ca" / "ca.key").read_bytes() == key
    opened = Authority.open(tmp_path / "ca")
    opened.issue("node", ["n1"], tmp_path / "n1", NOW)
    assert stat.S_IMODE((tmp_path / "n1" / "key.pem").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path / "n1")) == ["ca.pem", "cert.pem", "crl.pem", "key.pem"]


def test_an_authority_is_not_overwritten_by_what_another_issues(tmp_path: Path) -> None:
    Authority.create(tmp_path / "ca", "test", NOW)
    other = Authority.create(tmp_path / "other", "other", NOW)
    with pytest.raises(PkiError, match="directory of an authority"):
        other.issue("node", ["n1"], tmp_path / "ca", NOW)
    assert Authority.open(tmp_path / "ca").fingerprint != other.fingerprint


def test_openssl_accepts_what_is_issued(authority: Authority, tmp_path: Path) -> None:
    authority.issue("node", ["n1.example", "10.0.0.7", "::1"], tmp_path / "n1", time.time())
    ca, certificate = str(tmp_path / "n1" / "ca.pem"), str(tmp_path / "n1" / "cert.pem")
    for purpose in ("sslserver", "sslclient"):
        said = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, certificate)
        assert said.endswith(": OK\n")
    text = openssl("x509", "-in", certificate, "-noout", "-text")
    assert "DNS:n1.example, IP Address:10.0.0.7, IP Address:0:0:0:0:0:0:0:1" in text
    assert "OU = node" in text
    assert "CA:FALSE" in text
    root = openssl("x509", "-in", ca, "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in root
    assert "prime256v1" in root
    fingerprint = openssl("x509", "-in", ca, "-noout", "-fingerprint", "-sha256")
    assert fingerprint.strip().partition("=")[2].replace(":", "").lower() == authority.fingerprint


def test_what_a_certificate_says(authority: Authority, tmp_path: Path) -> None:
    authority.issue("gateway", ["g1", "10.0.0.7"], tmp_path / "g1", NOW)
    info = pki.inspect(tmp_path / "g1")
    assert (info.role, info.hosts) == ("gateway", ("g1", "10.0.0.7"))
    assert info.not_after == NOW + 365 * DAY


def test_a_renewal_keeps_the_key_and_replaces_the_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("node", ["n1"], tmp_path / "n1", NOW)
    key, certificate = ((tmp_path / "n1" / name).read_bytes() for name in ("key.pem", "cert.pem"))
    authority.issue("node", ["n1"], tmp_path / "n1", NOW + 300 * DAY)
    assert (tmp_path / "n1" / "key.pem").read_bytes() == key
    assert (tmp_path / "n1" / "cert.pem").read_bytes() != certificate
    assert pki.inspect(tmp_path / "n1").not_after == NOW + 665 * DAY
    TlsCredentials(tmp_path / "n1")


def test_the_authority_may_trust_others_beside_itself(tmp_path: Path) -> None:
    old = Authority.create(tmp_path / "old", "test", NOW)
    new = Authority.create(tmp_path / "new", "test", NOW)
    (tmp_path / "new" / "ca.pem").write_bytes(old.bundle + new.bundle)
    (tmp_path / "new" / "crl.pem").write_bytes(new.revocations + old.revocations)
    opened = Authority.open(tmp_path / "new")
    assert opened.fingerprint == new.fingerprint != old.fingerprint
    opened.issue("node", ["n1"], tmp_path / "n1", NOW)
    assert pki.fingerprints((tmp_path / "n1" / "ca.pem").read_bytes()) == [
        old.fingerprint,
        new.fingerprint,
    ]
    assert pki.inspect(tmp_path / "n1").role == "node"
    (tmp_path / "n1" / "ca.pem").write_bytes(old.bundle)
    with pytest.raises(PkiError, match="is not signed by"):
        pki.inspect(tmp_path / "n1")


@pytest.mark.parametrize(
    "host", ["", "*.example", "a b", "a/b", "-a", "a..b", "a\n", "10.0.0.0/8", "x" * 254, "ü"]
)
def test_hosts_are_names_or_addresses(authority: Authority, tmp_path: Path, host: str) -> None:
    with pytest.raises(PkiError, match="host name"):
        authority.issue("node", [host], tmp_path / "n", NOW)
    assert not (tmp_path / "n").exists()


def test_a_request_is_signed_for_its_key_and_hosts_and_nothing_else(
    authority: Authority, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    request = Request.parse(pki.make_request(own, ["n1", "10.0.0.7"]))
    pem = authority.sign_request(request, "node", time.time())
    pki.store_certificate(own, pem, authority.bundle)
    info = pki.inspect(own)
    assert (info.role, info.hosts) == ("node", ("n1", "10.0.0.7"))
    TlsCredentials(own)


def test_bad_requests_are_refused(authority: Authority, tmp_path: Path) -> None:
    good = pki.make_request(tmp_path / "own", ["n1"])
    rsa = str(tmp_path / "rsa.csr")
    openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=n", "-out", rsa),
        *("-keyout", str(tmp_path / "rsa.key"), "-addext", "subjectAltName=DNS:n1"),
    )
    nameless, mail = str(tmp_path / "nameless.csr"), str(tmp_path / "mail.csr")
    own_key = ("req", "-new", "-key", str(tmp_path / "own" / "key.pem"), "-subj", "/CN=n1")
    openssl(*own_key, "-out", nameless)
    openssl(*own_key, "-out", mail, "-addext", "subjectAltName=email:a@b.c")
    der = ssl.PEM_cert_to_DER_cert(
        good.decode().replace("CERTIFICATE REQUEST", "CERTIFICATE").strip()
    )
    broken = bytearray(der)
    broken[-5] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(broken)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    unnamed, twice = str(tmp_path / "unnamed.csr"), str(tmp_path / "twice.csr")
    openssl(*own_key, "-out", unnamed, "-addext", "2.5.29.17=DER:3004a5023000")  # ediPartyName
    names = ("-addext", "subjectAltName=DNS:n1", "-addext", "2.5.29.99=DER:300482026e31")
    openssl(*own_key, "-outform", "DER", "-out", twice, *names)
    same = Path(twice).read_bytes().replace(b"\x55\x1d\x63", b"\x55\x1d\x11")
    doubled = ssl.DER_cert_to_PEM_cert(same).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    bad = [
        b"",
        b"x",
        good[:-60],
        forged.encode(),
        doubled.encode(),
        Path(unnamed).read_bytes(),
        *(Path(p).read_bytes() for p in (rsa, nameless, mail)),
    ]
    for pem in bad:
        with pytest.raises(PkiError):
            Request.parse(pem)
    assert Request.parse(good).hosts == ("n1",)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca, out = str(tmp_path / "ca"), str(tmp_path / "n1")
    assert cli.main(["ca", "init", "--dir", ca, "--name", "mine"]) == 0
    issue = ["ca", "issue", "--dir", ca, "--role", "node", "--host", "n1,10.0.0.7", "--out", out]
    assert cli.main(issue) == 0
    assert pki.inspect(Path(out)).hosts == ("n1", "10.0.0.7")
    assert cli.main(["ca", "token", "--dir", ca]) == 0
    token = capsys.readouterr().out.splitlines()[-1]
    assert token.count(".") == 2
    assert token.endswith(Authority.open(Path(ca)).fingerprint)
    for arguments in (
        ["ca", "init", "--dir", ca],
        ["ca", "token", "--dir", str(tmp_path / "none")],
        ["ca", "token", "--dir", ca, "--ttl", "0"],
        ["ca", "serve", "--dir", ca, "--listen", "nowhere"],
        [*issue[:7], "*", *issue[8:]],
    ):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("s3gw: ")
        assert error.count("\n") == 1
    for refused in (["ca"], ["ca", "issue", "--dir", ca, "--role", "ca", "--host", "x"]):
        with pytest.raises(SystemExit):
            cli.main(refused)
