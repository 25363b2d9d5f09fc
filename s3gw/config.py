"""The configuration: one frozen, validated object.

Values come from a TOML file, then the environment (`S3GW_` and the key in capitals), then flags;
what comes later wins. Unknown keys are errors everywhere. Lists are written with commas in the
environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from erasure.scheme import Scheme

ENVIRONMENT_PREFIX = "S3GW_"
CONFIG_FILE_VARIABLE = "S3GW_CONFIG"
SECRET_KEYS = frozenset({"root_secret_key", "master_key", "token"})
URL_KEYS = frozenset({"etcd", "join", "vault_address"})
LIST_KEYS = frozenset({"drive", "etcd", "domains", "website_domains"})


class ConfigError(Exception):
    """The configuration is wrong; the message is one line for the operator."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of all roles; each role reads its own. Times in seconds."""

    data: str = "./data"
    drives: int = 6
    drive: tuple[str, ...] = ()
    s3: str = "127.0.0.1:9000"
    admin: str = "127.0.0.1:9001"
    listen: str = "127.0.0.1:9100"
    advertise: str = ""
    zone: str = "default"
    etcd: tuple[str, ...] = ()
    etcd_quota_bytes: int = 8 * 1024**3
    processes: int = 0
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()
    website_domains: tuple[str, ...] = ()
    profile: str = "4+2"
    journal_drives: int = 0
    pg_count: int = 256
    failure_domain: Literal["drive", "node", "zone"] = "node"
    stripe_bytes: int = 1024 * 1024
    reserve_percent: float = 1.0
    root_access_key: str = ""
    root_secret_key: str = ""
    lease_seconds: int = 15
    heartbeat_seconds: float = 5.0
    settle_seconds: float = 3.0
    history_window_seconds: int = 3600
    # A client that takes longer for a request's head, or stands still for so long in a body or an
    # answer, is cut off.
    head_seconds: float = 30.0
    idle_seconds: float = 60.0
    garbage_after_seconds: float = 3600.0
    orphan_after_seconds: float = 24 * 3600.0
    stale_upload_seconds: float = 7 * 24 * 3600.0
    # Whether a gateway does background work; without it `s3gw worker` does.
    workers: bool = True
    worker_interval_seconds: float = 10.0
    # A day of lifecycle rules; with another length than that of a day nothing waits for midnight.
    lifecycle_day_seconds: int = 86_400
    lifecycle_interval_seconds: float = 60.0
    snapshot_interval_seconds: float = 24 * 3600.0
    # Lines of access logs are kept so long and so many before they become an object.
    access_log_seconds: float = 300.0
    access_log_buffer_bytes: int = 16 * 1024 * 1024
    # Keys of server-side encryption (s3gw.key_sources).
    master_key: str = ""
    master_key_file: str = ""
    kms_default_key: str = "default"
    vault_address: str = ""
    vault_token_file: str = ""
    vault_mount: str = "transit"
    vault_master_key: str = ""
    allow_ssec_over_http: bool = False
    # Whether a signature that does not match is explained also to who does not ask for it.
    explain_signatures: bool = False
    # Certificates (nodes.tls); "": none, or of a node that joined those in its data directory.
    tls_dir: str = ""
    join: str = ""
    token: str = ""
    insecure_listen: bool = False
    # What clients of the S3 and the admin port see (s3gw.port_tls); "": plain HTTP, or, of the
    # admin port, as the S3 port.
    s3_tls_cert: str = ""
    s3_tls_key: str = ""
    admin_tls_cert: str = ""
    admin_tls_key: str = ""
    # What `s3gw admin` trusts, if not the authorities of the system.
    admin_ca: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        bounds: list[tuple[str, float, float, float]] = [
            ("drives", self.drives, 1, 256),
            ("processes", self.processes, 0, 256),
            ("journal_drives", self.journal_drives, 0, 64),
            ("pg_count", self.pg_count, 1, 65_536),
            ("stripe_bytes", self.stripe_bytes, 64 * 1024, 8 * 1024 * 1024),
            ("lease_seconds", self.lease_seconds, 2, 600),
            ("heartbeat_seconds", self.heartbeat_seconds, 0.2, self.lease_seconds / 2),
            ("history_window_seconds", self.history_window_seconds, 60, 7 * 24 * 3600),
            ("head_seconds", self.head_seconds, 0.5, 3600),
            ("idle_seconds", self.idle_seconds, 0.5, 3600),
            ("garbage_after_seconds", self.garbage_after_seconds, 0, 30 * 24 * 3600),
            ("orphan_after_seconds", self.orphan_after_seconds, 0, 30 * 24 * 3600),
            ("snapshot_interval_seconds", self.snapshot_interval_seconds, 0, 30 * 24 * 3600),
            ("stale_upload_seconds", self.stale_upload_seconds, 0, 3650 * 24 * 3600),
            ("reserve_percent", self.reserve_percent, 0, 50),
            ("settle_seconds", self.settle_seconds, 0, 3600),
            ("worker_interval_seconds", self.worker_interval_seconds, 0.1, 3600),
            ("lifecycle_day_seconds", self.lifecycle_day_seconds, 1, 86_400),
            ("lifecycle_interval_seconds", self.lifecycle_interval_seconds, 0.1, 24 * 3600),
            ("access_log_seconds", self.access_log_seconds, 0.1, 24 * 3600),
            ("access_log_buffer_bytes", self.access_log_buffer_bytes, 64 * 1024, 2**30),
            ("etcd_quota_bytes", self.etcd_quota_bytes, 1024 * 1024, 2**50),
        ]
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise ValueError(f"{name} must be between {least:g} and {most:g}, not {value:g}")
        try:
            Scheme.parse(self.profile)
        except ValueError as error:
            raise ValueError(f"profile: {error}") from error
        if bool(self.root_access_key) != bool(self.root_secret_key):
            raise ValueError("root_access_key and root_secret_key must be given together")
        if self.root_secret_key and len(self.root_secret_key) < 8:
            raise ValueError("root_secret_key must have at least 8 characters")
        if self.master_key and self.master_key_file:
            raise ValueError("master_key and master_key_file cannot be given together")
        if bool(self.vault_address) != bool(self.vault_token_file):
            raise ValueError("vault_address and vault_token_file must be given together")
        if self.vault_master_key and not self.vault_address:
            raise ValueError("vault_master_key needs vault_address")
        for domain in set(self.domains) & set(self.website_domains):
            raise ValueError(f"{domain} cannot be in domains and in website_domains")
        if bool(self.join) != bool(self.token):
            raise ValueError("join and token must be given together")
        if bool(self.s3_tls_cert) != bool(self.s3_tls_key):
            raise ValueError("s3_tls_cert and s3_tls_key must be given together")
        if bool(self.admin_tls_cert) != bool(self.admin_tls_key):
            raise ValueError("admin_tls_cert and admin_tls_key must be given together")

    def __repr__(self) -> str:
        return f"Config({self.shown()!r})"

    def shown(self) -> dict[str, Any]:
        """The settings without secrets."""
        return {
            name: "***"
            if name in SECRET_KEYS and value
            else (_without_password(value) if name in URL_KEYS else value)
            for name, value in msgspec.structs.asdict(self).items()
        }


def _without_password(value: Any) -> Any:
    """URLs without what stands before an `@` in them.

    >>> _without_password(("https://root:secret@etcd1:2379", "https://etcd2:2379"))
    ('https://***@etcd1:2379', 'https://etcd2:2379')
    """
    if isinstance(value, str):
        # Up to the last @: a password that was not encoded may have one itself.
        return re.sub(r"^(\w+://)?.*@", r"\1***@", value, flags=re.DOTALL)
    return tuple(map(_without_password, value))


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    file: str | None = None,
) -> Config:
    """The effective configuration. `flags` has only what was given. Raises ConfigError."""
    values: dict[str, Any] = {}
    path = file or environment.get(CONFIG_FILE_VARIABLE)
    if path:
        values.update(_from_file(Path(path)))
    values.update(_from_environment(environment))
    values.update(flags)
    try:
        return msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_FILE_VARIABLE:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        values[key] = text.split(",") if key in LIST_KEYS and text else text
    return values


def host_and_port(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[V6]:PORT`. Raises ConfigError.

    >>> host_and_port("127.0.0.1:9000"), host_and_port("[::1]:9000")
    (('127.0.0.1', 9000), ('::1', 9000))
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104
