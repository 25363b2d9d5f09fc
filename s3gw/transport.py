"""Which certificates a role uses, and keeping them up to date while it runs.

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
from urllib.parse import urlsplit

from nodes.tls import CERTIFICATE_FILE, NODE, TlsCredentials, TlsError, is_loopback
from s3gw import pki
from s3gw.config import Config, ConfigError, host_and_port

log = logging.getLogger(__name__)

JOINED_DIRECTORY = "tls"
CHECK_SECONDS = 10.0
WARN_SECONDS_LEFT = 30 * 24 * 3600.0
WARN_EVERY_SECONDS = 24 * 3600.0


def joined_directory(config: Config) -> Path:
    """Where a node keeps the certificate that it got by joining."""
    return Path(config.data).absolute() / JOINED_DIRECTORY


def open_credentials(config: Config, role: str) -> TlsCredentials | None:
    """The certificates of this process; None when there are none. Raises ConfigError when they are
    of another role or cannot be used, or when etcd would be called in the clear."""
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
    if info.not_after <= time.time():
        raise ConfigError(f"the certificate in {directory} has expired: renew it")
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
    called after each replacement; `clock` gives Unix seconds."""
    not_after: float | None = None
    warned_at = -WARN_EVERY_SECONDS
    trouble = ""
    while True:
        try:
            if await asyncio.to_thread(credentials.refresh):
                log.info("the certificates in %s were replaced", credentials.directory)
                not_after = None
                renewed()
            if not_after is None:
                info = await asyncio.to_thread(pki.inspect, credentials.directory)
                not_after, warned_at = info.not_after, -WARN_EVERY_SECONDS
            trouble = ""
        except (TlsError, pki.PkiError) as error:
            if str(error) != trouble:
                log.warning("new certificates are not used: %s", error)
            trouble = str(error)
        now = clock()
        left = WARN_SECONDS_LEFT if not_after is None else not_after - now
        if left < WARN_SECONDS_LEFT and now - warned_at >= WARN_EVERY_SECONDS:
            warned_at = now
            log.warning(
                "the certificate in %s ends in %.1f days: renew it",
                credentials.directory,
                left / 86_400,
            )
        await sleep(CHECK_SECONDS)
