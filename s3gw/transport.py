"""Which certificates a role uses, and keeping them, and those of its ports, up to date.

A gateway has those in `tls_dir`; a node too, or else those that it got by joining, in `tls` of its
data directory. Without certificates nothing leaves the machine in the clear unless the operator has
said so (`insecure_listen`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from nodes.tls import CERTIFICATE_FILE, NODE, TlsCredentials, TlsError, is_loopback
from s3gw import pki
from s3gw.config import Config, ConfigError, host_and_port
from s3gw.port_tls import PortCertificate

log = logging.getLogger(__name__)

JOINED_DIRECTORY = "tls"
CHECK_SECONDS = 10.0
WARN_SECONDS_LEFT = 30 * 24 * 3600.0
WARN_EVERY_SECONDS = 24 * 3600.0


def joined_directory(config: Config) -> Path:
    """Where a node keeps the certificate that it got by joining."""
    return Path(config.data).absolute() / JOINED_DIRECTORY


def open_credentials(config: Config, role: str, *, started: bool = False) -> TlsCredentials | None:
    """The certificates of this process; None when there are none. Raises ConfigError when they are
    of another role or cannot be used, or when etcd would be called in the clear; not for one that
    has ended since the role `started`, of which this is one process."""
    _require_safe_etcd(config)
    directory = Path(config.tls_dir) if config.tls_dir else None
    if directory is None and role == NODE:
        joined = joined_directory(config)
        directory = joined if (joined / CERTIFICATE_FILE).exists() else None
    if directory is None:
        return None
    try:
        credentials = TlsCredentials(directory)
        info = pki.inspect(directory)
    except (TlsError, pki.PkiError) as error:
        raise ConfigError(str(error)) from error
    if info.role != role:
        raise ConfigError(
            f"the certificate in {directory} has the role {info.role or 'none'}, not {role}"
        )
    if info.not_after <= time.time() and not started:
        raise ConfigError(f"the certificate in {directory} has expired: renew it")
    if info.revoked:
        raise ConfigError(f"the certificate in {directory} has been revoked: get another")
    return credentials


def _require_safe_etcd(config: Config) -> None:
    """Raises ConfigError for etcd on another machine over plain HTTP: who reads what it says has
    the secret of the cluster, and who changes it the metadata."""
    for url in config.etcd:
        plain = url.lower().startswith("http:") and not is_loopback(_host_of(url))
        if plain and not config.insecure_listen:
            raise ConfigError(
                f"etcd at {url} would be called in the clear: give it certificates and https, or "
                "say --insecure-listen (S3GW_INSECURE_LISTEN=true)"
            )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError as error:
        raise ConfigError(f"{url} is not an etcd endpoint: {error}") from error


def require_safe_listen(config: Config, credentials: TlsCredentials | None) -> None:
    """Raises ConfigError for a node that would serve plain HTTP to other machines."""
    host, _ = host_and_port(config.listen)
    if credentials is None and not is_loopback(host) and not config.insecure_listen:
        raise ConfigError(
            f"a node without certificates listens on loopback only, not on {config.listen}: "
            "join the cluster (--join, --token), name --tls-dir, or say --insecure-listen"
        )


async def keep_certificates(
    credentials: TlsCredentials,
    renewed: Callable[[], None] = lambda: None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """For ever: use certificates that were replaced, and warn of one that ends soon. `renewed` is
    called after each replacement, when connections to peers whose certificate has been revoked
    were ended; `clock` gives Unix seconds."""
    directory = credentials.directory
    revoked: frozenset[int] = frozenset()

    def inspect() -> float:
        nonlocal revoked
        info = pki.inspect(directory)
        revoked = pki.revoked(directory)
        if info.revoked:
            log.warning("the certificate in %s has been revoked", directory)
        return info.not_after

    def taken_over() -> None:
        cut = credentials.cut(revoked)
        if cut:
            log.warning("ended %d connections to peers whose certificate has been revoked", cut)
        renewed()

    await _keep(f"in {directory}", credentials, inspect, taken_over, clock, sleep)


async def keep_port_certificate(
    certificate: PortCertificate,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """For ever: show clients a certificate that was replaced, and warn of one that ends soon."""

    def inspect() -> float:
        return pki.inspect_file(certificate.certificate).not_after

    name = str(certificate.certificate)
    await _keep(name, certificate, inspect, lambda: None, clock, sleep)


class _Files(Protocol):
    """Certificates that can be replaced."""

    def changed(self) -> bool: ...
    def refresh(self) -> bool: ...


async def _keep(
    name: str,
    files: _Files,
    inspect: Callable[[], float],
    taken_over: Callable[[], None],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """For ever: take over what has changed if `inspect`, which returns until when it is valid, has
    nothing against it."""
    not_after: float | None = None
    warned_at = -WARN_EVERY_SECONDS
    warned_of_end = False
    trouble = ""
    replaced = False
    while True:
        try:
            if not_after is None or await asyncio.to_thread(files.changed):
                found = await asyncio.to_thread(inspect)
                replaced = await asyncio.to_thread(files.refresh) or replaced
                if replaced:
                    # Perhaps they were replaced again before they were taken over.
                    found = await asyncio.to_thread(inspect)
                    log.info("the certificate %s was replaced", name)
                    replaced = False
                    taken_over()
                not_after, warned_at, warned_of_end = found, -WARN_EVERY_SECONDS, False
            trouble = ""
        except (TlsError, pki.PkiError) as error:
            if str(error) != trouble:
                log.warning("new certificates are not used: %s", error)
            trouble = str(error)
        now = clock()
        left = WARN_SECONDS_LEFT if not_after is None else not_after - now
        ended = left <= 0
        due = now - warned_at >= WARN_EVERY_SECONDS or ended > warned_of_end
        if left < WARN_SECONDS_LEFT and due:
            warned_at, warned_of_end = now, ended
            if ended:
                log.error("the certificate %s has ended, and peers refuse it: renew it", name)
            else:
                log.warning("the certificate %s ends in %.1f days: renew it", name, left / 86_400)
        await sleep(CHECK_SECONDS)
