"""Which certificates a process uses, when it refuses to start, and how it follows changes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nodes.tls import TlsCredentials
from s3gw import launch
from s3gw.config import Config, ConfigError
from s3gw.pki import Authority
from s3gw.transport import keep_certificates, open_credentials, require_safe_listen

DAY = 24 * 3600.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "test", time.time())


def test_without_certificates_there_are_none(tmp_path: Path) -> None:
    config = Config(data=str(tmp_path))
    assert open_credentials(config, "node") is None
    assert open_credentials(config, "gateway") is None


def test_a_node_uses_what_it_got_by_joining_and_what_is_configured_wins(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("node", ["n1"], tmp_path / "data" / "tls", time.time())
    authority.issue("node", ["n1"], tmp_path / "own", time.time())
    config = Config(data=str(tmp_path / "data"))
    joined = open_credentials(config, "node")
    assert joined is not None
    assert joined.directory == tmp_path / "data" / "tls"
    assert open_credentials(config, "gateway") is None
    named = open_credentials(Config(data=config.data, tls_dir=str(tmp_path / "own")), "node")
    assert named is not None
    assert named.directory == tmp_path / "own"


def test_certificates_that_would_not_work_end_the_start(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("gateway", ["g"], tmp_path / "gateway", time.time())
    authority.issue("node", ["n"], tmp_path / "old", time.time() - 366 * DAY)
    foreign = Authority.create(tmp_path / "foreign", "test", time.time())
    authority.issue("node", ["n"], tmp_path / "mixed", time.time())
    (tmp_path / "mixed" / "ca.pem").write_bytes(foreign.bundle)
    for name, message in (
        ("gateway", "has the role gateway, not node"),
        ("old", "has expired"),
        ("mixed", "is not signed by"),
        ("missing", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_credentials(Config(tls_dir=str(tmp_path / name)), "node")
    ended = Config(tls_dir=str(tmp_path / "old"))
    assert open_credentials(ended, "node", started=True) is not None


@pytest.mark.parametrize("listen", ["0.0.0.0:9100", "[::]:9100", "10.0.0.1:9100", "n1:9100"])
def test_a_node_in_the_clear_listens_on_loopback_only(
    authority: Authority, tmp_path: Path, listen: str
) -> None:
    with pytest.raises(ConfigError, match="--insecure-listen"):
        require_safe_listen(Config(listen=listen), None)
    require_safe_listen(Config(listen=listen, insecure_listen=True), None)
    authority.issue("node", ["n1"], tmp_path / "n1", time.time())
    require_safe_listen(Config(listen=listen), TlsCredentials(tmp_path / "n1"))
    require_safe_listen(Config(listen="127.0.0.1:9100"), None)


def test_what_lacks_certificates_ends_with_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, etcd = str(tmp_path / "data"), ("http://127.0.0.1:1",)
    node = Config(data=data, listen="0.0.0.0:9100", advertise="n1:9100", etcd=etcd)
    secure_etcd = Config(data=data, etcd=("https://127.0.0.1:1",))
    gateway = Config(
        etcd=secure_etcd.etcd, root_access_key="AKID", root_secret_key="very-secret-key"
    )
    for role, config, message in (
        (launch.node, node, "--insecure-listen"),
        (launch.node, secure_etcd, "--tls-dir"),
        (launch.gateway, gateway, "--tls-dir"),
    ):
        assert launch.run(role, config) == 2
        error = capsys.readouterr().err
        assert error.startswith("s3gw: ")
        assert error.count("\n") == 1
        assert message in error
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["http://10.0.0.1:2379", "HTTP://etcd1:2379", "http://[fd00::1]:2"])
@pytest.mark.parametrize("role", ["gateway", "node"])
def test_etcd_on_another_machine_is_not_called_in_the_clear(
    url: str, role: str, authority: Authority, tmp_path: Path
) -> None:
    authority.issue(role, ["h"], tmp_path / "own", time.time())
    for tls_dir in ("", str(tmp_path / "own")):
        config = Config(data=str(tmp_path), tls_dir=tls_dir, etcd=("http://[::1]:1", url))
        with pytest.raises(ConfigError, match="in the clear"):
            open_credentials(config, role)
        allowed = Config(data=config.data, tls_dir=tls_dir, etcd=(url,), insecure_listen=True)
        assert (open_credentials(allowed, role) is not None) == bool(tls_dir)


class Stop(Exception):
    """Ends an endless task."""


class Script:
    """A clock that `sleep` moves, doing one of `steps` each time; then the task ends."""

    def __init__(self, *steps: Callable[[], None], seconds: float | None = None) -> None:
        self.now = time.time()
        self.steps = list(steps)
        self.seconds = seconds
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += self.seconds or seconds
        if not self.steps:
            raise Stop
        self.steps.pop(0)()


async def test_replaced_certificates_are_taken_over_and_told(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "n1"
    authority.issue("node", ["n1"], own, time.time())
    credentials = TlsCredentials(own)
    told: list[float] = []

    def renew() -> None:
        authority.issue("node", ["n1"], own, time.time())

    def touch() -> None:
        os.utime(own / "cert.pem", (1.0, 1.0))

    def break_key() -> None:
        (own / "key.pem").write_bytes(b"half")

    def nothing() -> None:
        pass

    def mend() -> None:
        (own / "key.pem").unlink()
        renew()

    script = Script(nothing, renew, nothing, touch, break_key, nothing, mend, nothing)
    with pytest.raises(Stop):
        await keep_certificates(
            credentials,
            lambda: told.append(script.now),
            clock=script.clock,
            sleep=script.sleep,
        )
    assert len(told) == 3
    assert set(script.slept) == {10.0}
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1  # of the broken key, once and not every ten seconds
    assert "not used" in warnings[0].getMessage()


async def test_a_certificate_that_ends_soon_is_warned_of_daily_until_it_is_renewed(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "n1"
    made = time.time() - 334.1 * DAY
    authority.issue("node", ["n1"], own, made)  # 30.9 days are left

    def nothing() -> None:
        pass

    def renew() -> None:
        authority.issue("node", ["n1"], own, time.time())

    steps = [nothing] * 15 + [renew] + [nothing] * 8
    script = Script(*steps, seconds=DAY / 4)
    with pytest.raises(Stop):
        await keep_certificates(TlsCredentials(own), clock=script.clock, sleep=script.sleep)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text.partition("ends in ")[2] for text in warnings] == [
        "29.9 days: renew it",
        "28.9 days: renew it",
        "27.9 days: renew it",
    ]
