"""The certificate of the S3 and the admin port: what is refused at the start, and what is shown."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3gw import cli, launch, pki
from s3gw.config import Config, ConfigError, load
from s3gw.pki import Authority, PkiError, Request
from s3gw.port_tls import PortCertificate, open_ports, url_of
from s3gw.transport import keep_port_certificate

DAY = 24 * 3600.0
KEYS = {"root_access_key": "AKID", "root_secret_key": "very-secret-key"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "test", time.time())


def issued(authority: Authority, out: Path, *hosts: str, now: float | None = None) -> Path:
    authority.issue("server", hosts or ("127.0.0.1",), out, now or time.time())
    return out


def pair(directory: Path, port: str = "s3") -> dict[str, Any]:
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    return {f"{port}_tls_cert": cert, f"{port}_tls_key": key}


def test_without_certificates_ports_speak_plain_http() -> None:
    ports = open_ports(Config())
    assert (ports.s3, ports.admin, ports.certificates) == (None, None, [])
    assert url_of("127.0.0.1:9000", ports.s3) == "http://127.0.0.1:9000"


def test_the_admin_port_shows_what_the_s3_port_does_unless_it_has_its_own(
    authority: Authority, tmp_path: Path
) -> None:
    one, two = issued(authority, tmp_path / "one"), issued(authority, tmp_path / "two")
    shared = open_ports(Config(**pair(one)))
    assert shared.s3 is shared.admin
    assert len(shared.certificates) == 1
    own = open_ports(Config(**pair(one), **pair(two, "admin")))
    assert [port.certificate.parent for port in own.certificates] == [one, two]
    alone = open_ports(Config(**pair(two, "admin")))
    assert (alone.s3, len(alone.certificates)) == (None, 1)


@pytest.mark.parametrize(
    "given", [{"s3_tls_cert": "c"}, {"s3_tls_key": "k"}, {"admin_tls_cert": "c"}]
)
def test_certificate_and_key_are_given_together(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="must be given together"):
        load(given, {})


def break_files(directory: Path, what: str) -> None:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    if what == "no key":
        key.unlink()
    elif what == "no certificate":
        certificate.unlink()
    elif what == "readable by others":
        key.chmod(0o640)
    elif what == "not a certificate":
        certificate.write_bytes(b"x")
    elif what == "encrypted key":
        command = ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", str(key)]
        subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no key", "key.pem cannot be read: No such file"),
        ("no certificate", "cert.pem cannot be read: No such file"),
        ("readable by others", "key.pem may be read or written by others than its owner: chmod"),
        ("not a certificate", "cannot be used"),
        ("encrypted key", "cannot be used"),
        ("another's key", "key.pem is not the key of .*cert.pem"),
        ("expired", "has expired"),
        ("not yet valid", "is not valid yet"),
    ],
)
@pytest.mark.parametrize("port", ["s3", "admin"])
def test_what_cannot_be_used_ends_the_start_of_every_role_with_one_line(
    authority: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    said: str,
    port: str,
) -> None:
    now = {"expired": time.time() - 366 * DAY, "not yet valid": time.time() + 2 * DAY}.get(what)
    directory = issued(authority, tmp_path / "one", now=now)
    break_files(directory, what)
    if what == "another's key":
        other = issued(authority, tmp_path / "two")
        (directory / "key.pem").write_bytes((other / "key.pem").read_bytes())
    data = tmp_path / "data"
    config = Config(data=str(data), etcd=("http://127.0.0.1:1",), **KEYS, **pair(directory, port))
    with pytest.raises(ConfigError, match=said):
        open_ports(config)
    roles = [launch.gateway, launch.worker, lambda each: launch.up(with_no_etcd(each))]
    for role in roles:
        assert launch.run(role, config) == 2
        error = capsys.readouterr().err
        assert error.startswith("s3gw: ")
        assert error.count("\n") == 1
        assert str(directory) in error
    assert not data.exists()


def with_no_etcd(config: Config) -> Config:
    return Config(
        **{
            name: getattr(config, name)
            for name in config.__struct_fields__
            if name not in ("etcd", "workers")
        }
    )


@pytest.mark.parametrize("key", ["rsa:2048", "ed25519"])
def test_a_certificate_may_be_of_any_authority_and_key(tmp_path: Path, key: str) -> None:
    made = ["openssl", "req", "-x509", "-newkey", key, "-nodes", "-days", "2", "-subj", "/CN=s3"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*made, *files], check=True, capture_output=True)
    (tmp_path / "key.pem").chmod(0o600)
    ports = open_ports(Config(**pair(tmp_path)))
    assert url_of("s3.example:443", ports.s3) == "https://s3.example:443"


@pytest.mark.parametrize(
    ("hosts", "address", "url"),
    [
        (("127.0.0.1",), "127.0.0.1:9000", "https://127.0.0.1:9000"),
        (("*.s3.example", "s3.example"), "0.0.0.0:443", "https://s3.example:443"),
        (("::1",), "[0:0::1]:9000", "https://[0:0::1]:9000"),
        (("::1",), "0.0.0.0:9000", "https://[::1]:9000"),
        (("*.s3.example",), "10.0.0.1:9000", "https://10.0.0.1:9000"),
    ],
)
def test_a_port_is_told_by_a_name_that_its_certificate_has(
    authority: Authority, tmp_path: Path, hosts: tuple[str, ...], address: str, url: str
) -> None:
    ports = open_ports(Config(**pair(issued(authority, tmp_path / "one", *hosts))))
    assert url_of(address, ports.s3) == url


class Stop(Exception):
    """Ends an endless task."""


async def test_a_replaced_pair_is_taken_over_when_it_is_whole(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = issued(authority, tmp_path / "one")
    other = issued(authority, tmp_path / "two")
    certificate = PortCertificate(directory / "cert.pem", directory / "key.pem")
    contexts: list[ssl.SSLContext] = []

    def replace(name: str) -> None:
        os.replace(other / name, directory / name)

    steps: list[Callable[[], None]] = [
        lambda: None,
        lambda: replace("key.pem"),
        lambda: replace("cert.pem"),
        lambda: (directory / "key.pem").chmod(0o644),
        lambda: os.utime(directory / "key.pem"),
        lambda: (directory / "key.pem").chmod(0o600),
    ]

    async def sleep(seconds: float) -> None:
        contexts.append(certificate.context.present)
        if not steps:
            raise Stop
        steps.pop(0)()

    with pytest.raises(Stop):
        await keep_port_certificate(certificate, sleep=sleep)
    first, same, half, whole, *rest = contexts
    assert first is same is half
    assert whole is not first
    # A mode alone is no change; with the next one it is refused, until it is mended.
    assert rest[0] is rest[1] is whole
    assert rest[2] is not whole
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "is not the key of" in warnings[0]
    assert "chmod 600" in warnings[1]


async def test_a_certificate_that_ends_soon_is_warned_of(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = issued(authority, tmp_path / "one", now=time.time() - 340 * DAY)

    async def sleep(seconds: float) -> None:
        raise Stop

    certificate = PortCertificate(directory / "cert.pem", directory / "key.pem")
    with pytest.raises(Stop):
        await keep_port_certificate(certificate, sleep=sleep)
    assert "ends in 25.0 days: renew it" in caplog.text


async def test_a_certificate_that_ends_while_it_is_shown_is_told_at_once_and_then_daily(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = issued(authority, tmp_path / "one", now=time.time() - 364.5 * DAY)
    certificate = PortCertificate(directory / "cert.pem", directory / "key.pem")
    now, ends = time.time(), time.time() + 2 * DAY

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += 3600
        if now > ends:
            raise Stop

    with pytest.raises(Stop):
        await keep_port_certificate(certificate, clock=lambda: now, sleep=sleep)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "ERROR", "ERROR"]
    assert "ends in 0.5 days" in told[0][1]
    assert "has ended, and peers refuse it: renew it" in told[1][1]


@pytest.mark.parametrize("what", ["expired", "not yet valid"])
def test_another_process_of_a_role_that_runs_shows_a_certificate_that_has_ended(
    authority: Authority, tmp_path: Path, what: str
) -> None:
    now = time.time() + {"expired": -366 * DAY, "not yet valid": 2 * DAY}[what]
    directory = issued(authority, tmp_path / "one", now=now)
    config = Config(**pair(directory))
    with pytest.raises(ConfigError):
        open_ports(config)
    assert open_ports(config, started=True).s3 is not None
    break_files(directory, "no key")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_ports(config, started=True)


# What the authority certifies for ports, and for nobody.


def test_a_certificate_of_a_port_serves_and_does_nothing_else(
    authority: Authority, tmp_path: Path
) -> None:
    one = issued(authority, tmp_path / "one", "*.s3.example", "s3.example")
    info = pki.inspect(one)
    assert (info.role, info.hosts) == ("server", ("*.s3.example", "s3.example"))
    ca, certificate = str(one / "ca.pem"), str(one / "cert.pem")
    for purpose, good in (("sslserver", True), ("sslclient", False)):
        command = ["openssl", "verify", "-purpose", purpose, "-CAfile", ca, certificate]
        assert (subprocess.run(command, capture_output=True).returncode == 0) == good


@pytest.mark.parametrize("role", ["node", "gateway", "etcd", "client"])
def test_a_wildcard_is_for_ports_only(authority: Authority, tmp_path: Path, role: str) -> None:
    with pytest.raises(PkiError, match="host name"):
        authority.issue(role, ["*.s3.example"], tmp_path / "one", time.time())
    for host in ("*", "*.*.example", "s3.*.example", "*example"):
        with pytest.raises(PkiError, match="host name"):
            authority.issue("server", [host], tmp_path / "one", time.time())


@pytest.mark.parametrize(
    "host", ["etcd1.etcd.roles.invalid", "ETCD1.ETCD.ROLES.INVALID", "x.roles.invalid"]
)
def test_a_name_that_states_a_role_is_certified_to_nobody_who_asks(
    authority: Authority, tmp_path: Path, host: str
) -> None:
    for role in ("node", "etcd", "server"):
        with pytest.raises(PkiError, match="host name"):
            authority.issue(role, [host], tmp_path / "one", time.time())
    with pytest.raises(PkiError, match="host name"):
        pki.make_request(tmp_path / "own", [host])
    pki.make_request(tmp_path / "own", ["n1"])
    asked = tmp_path / "asked.csr"
    key = ("req", "-new", "-key", str(tmp_path / "own" / "key.pem"), "-subj", "/CN=n1")
    names = ("-addext", f"subjectAltName=DNS:n1,DNS:{host}")
    subprocess.run(["openssl", *key, *names, "-out", str(asked)], check=True)
    with pytest.raises(PkiError, match="host name"):
        Request.parse(asked.read_bytes())


def test_only_etcd_is_called_so(authority: Authority, tmp_path: Path) -> None:
    for role in ("etcd", "node", "gateway", "client", "server"):
        authority.issue(role, ["h1", "10.0.0.7"], tmp_path / role, time.time())
        path = str(tmp_path / role / "cert.pem")
        command = ["openssl", "x509", "-in", path, "-noout", "-ext", "subjectAltName"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("DNS:h1.etcd.roles.invalid" in text) == (role == "etcd")
        assert ("DNS:10.0.0.7.etcd.roles.invalid" in text) == (role == "etcd")
        assert pki.inspect(tmp_path / role).hosts == ("h1", "10.0.0.7")


def test_flags_name_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["config", "--s3-tls-cert", "c", "--s3-tls-key", "k"]
    assert cli.main(words) == 0
    assert '"s3_tls_cert": "c"' in capsys.readouterr().out
