"""Starting a role: what happens once, before its worker processes exist.

Sockets are bound first, so that a busy port ends the start before anything is touched; then the
drives are checked and locked, then the store is found or made, then the supervisor runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nodes.http_guard import BindError, bind
from nodes.http_share import SHARE, make_share
from nodes.tls import CERTIFICATE_FILE, GATEWAY, NODE, TlsCredentials
from s3gw import app
from s3gw.cluster.founding import found_store, layout_exists, scheme_of
from s3gw.config import Config, ConfigError, host_and_port, load
from s3gw.drive_scout import DriveScout
from s3gw.drives import (
    DriveAt,
    DriveSet,
    StartError,
    add_drive,
    holds_shards,
    metadata_directory,
    open_drives,
    paths_of,
    release,
)
from s3gw.files import sync_directory, write_new
from s3gw.join import JoinError, join
from s3gw.key_sources import kept_path, master_keys, sources_of, with_kept_master_key
from s3gw.kv.interface import KV, EngineError
from s3gw.kv.journal import JournalError
from s3gw.metrics import boards_of
from s3gw.node_drives import NodeDrives, open_node_drives
from s3gw.objects.keyring.master import BadMasterKeys, new_text
from s3gw.objects.keyring.ring import require_master_keys
from s3gw.port_tls import Ports, open_ports, url_of
from s3gw.supervisor import Supervisor
from s3gw.transport import joined_directory, open_credentials, require_safe_listen

CREDENTIALS_FILE = "credentials.json"
EXIT_START = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
ETCD_PATIENCE_SECONDS = 60.0
ETCD_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Credentials:
    """Root's keys as kept in the data directory."""

    access_key: str
    secret_key: str


def up(config: Config) -> int:
    """`s3gw up`: everything on one machine. Returns the exit code."""
    if not config.workers:
        raise ConfigError("`workers` is for gateways: on one machine `up` does the background work")
    _require_drives(config)
    ports = open_ports(config)
    sockets = [bind(*host_and_port(config.s3)), bind(*host_and_port(config.admin))]
    found = open_drives(config)
    try:
        if not found.new and not _metadata_there(config, found):
            raise StartError(
                f"the drives hold shards, but there is no metadata in {metadata_directory(config)} "
                "and no journal on the drives: run `s3gw rescue`, nothing was changed"
            )
        drives = _places(found)
        config = with_kept_master_key(config)
        asyncio.run(_prepare_store(config, found, drives))
        config = _with_master_key(config)
        for path in found.absent:
            _say(f"warning: drive {path} is absent")
        for path, reason in found.failed.items():
            _say(f"warning: drive {path} is left out: {reason}")
        shows_secret = not config.root_secret_key or sys.stdout.isatty()
        config = _with_credentials(config)
        task = app.Task(config, found.store_id, drives)
        supervisor = Supervisor(
            main=app.up_worker,
            payload=task,
            processes=_processes(config),
            sockets=sockets,
            fds={
                **found.locks,
                **boards_of(_processes(config)),
                SHARE: make_share(_processes(config)),
            },
            scout=DriveScout(config, found.store_id, found.locks),
            announce=lambda: _announce_up(config, ports, shows_secret),
        )
        return supervisor.run()
    finally:
        release(found)


def gateway(config: Config) -> int:
    """`s3gw gateway`: a stateless gateway on etcd."""
    _require_etcd(config)
    sources_of(config)
    if not config.root_access_key:
        raise ConfigError(
            "a gateway needs root credentials: set S3GW_ROOT_ACCESS_KEY and S3GW_ROOT_SECRET_KEY"
        )
    _require_credentials(config, open_credentials(config, GATEWAY))
    ports = open_ports(config)
    sockets = [bind(*host_and_port(config.s3)), bind(*host_and_port(config.admin))]
    supervisor = Supervisor(
        main=app.gateway_worker,
        payload=app.Task(config, ""),
        processes=_processes(config),
        sockets=sockets,
        fds={**boards_of(_processes(config)), SHARE: make_share(_processes(config))},
        announce=lambda: _say(
            f"gateway: S3 on {url_of(config.s3, ports.s3)}, "
            f"admin on {url_of(config.admin, ports.admin)}"
        ),
    )
    return supervisor.run()


def worker(config: Config) -> int:
    """`s3gw worker`: the background work of a cluster, without an S3 port."""
    if not config.etcd:
        raise ConfigError(
            "a worker belongs to a cluster, whose etcd --etcd URL[,URL…] names: on one machine "
            "`s3gw up` does the background work"
        )
    if config.admin and not config.root_access_key:
        raise ConfigError(
            "the admin port needs root credentials: set S3GW_ROOT_ACCESS_KEY and "
            'S3GW_ROOT_SECRET_KEY, or do without the port with --admin ""'
        )
    sources_of(config)
    config = msgspec.structs.replace(config, workers=True)
    _require_credentials(config, open_credentials(config, GATEWAY))
    ports = open_ports(config)
    supervisor = Supervisor(
        main=app.background_worker,
        payload=app.Task(config, ""),
        processes=_processes(config),
        sockets=[bind(*host_and_port(config.admin))] if config.admin else [],
        fds=boards_of(_processes(config)),
        announce=lambda: _say(
            f"worker: admin on {url_of(config.admin, ports.admin)}"
            if config.admin
            else "worker: it works"
        ),
    )
    return supervisor.run()


def node(config: Config) -> int:
    """`s3gw node`: a storage node of a cluster, with its drives (or one, in its data directory)."""
    _require_etcd(config)
    host, _ = host_and_port(app.advertised(config))
    joined = joined_directory(config)
    if config.join and not (joined / CERTIFICATE_FILE).exists():
        join(config.join, config.token, [host], joined)
    credentials = open_credentials(config, NODE)
    require_safe_listen(config, credentials)
    _require_credentials(config, credentials)
    sockets = [bind(*host_and_port(config.listen))]
    store_id = asyncio.run(_store_of_cluster(config, credentials))
    found = open_node_drives(config, store_id)
    try:
        for warning in found.warnings:
            _say(f"warning: {warning}")
        drives = _places(found)
        names = ", ".join(drive.drive_id for drive in drives)
        supervisor = Supervisor(
            main=app.node_worker,
            payload=app.Task(config, store_id, drives, found.host),
            processes=1,
            sockets=sockets,
            fds=found.locks,
            announce=lambda: _say(f"node: {names} in {config.zone}, on {config.listen}"),
        )
        return supervisor.run()
    finally:
        found.release()


def run(role: Callable[[Config], int], config: Config) -> int:
    """Run a role; what cannot start says why in one line."""
    try:
        return role(config)
    except (BindError, ConfigError, StartError, JoinError, JournalError, EngineError) as error:
        _say(f"s3gw: {error}")
        return EXIT_START
    except BrokenPipeError:
        # Who reads has gone (`| head`); nothing is to be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # before there was anything to stop
        return EXIT_INTERRUPTED


def drive_add(arguments: argparse.Namespace) -> int:
    """`s3gw drive add`: make an empty directory a drive of a store on this machine. Returns the
    exit code."""

    def add(config: Config) -> int:
        path = Path(arguments.path).absolute()
        made = add_drive(config, path, app.store_of_metadata(metadata_directory(config)))
        if not os.path.ismount(path):
            _say(f"warning: no disk of its own is mounted at {path}")
        _say(
            DRIVE_ADDED.format(
                path=path, drive=made.identity.drive_id, store=made.identity.store_id
            )
        )
        return 0

    try:
        given = {key: getattr(arguments, key) for key in ("data", "drives", "drive")}
        flags = {key: value for key, value in given.items() if value is not None}
        config = load(flags, file=arguments.config)
    except ConfigError as error:
        _say(f"s3gw: {error}")
        return EXIT_START
    return run(add, config)


def rescue(arguments: argparse.Namespace) -> int:
    """`s3gw rescue`: recovery from the drives alone. Returns the exit code."""
    from s3gw.rescue import commands  # half a second that no other role should wait

    async def embedded(data: str, paths: Sequence[Path]) -> KV:
        config = load({"data": data, "drive": [str(path) for path in paths]})
        return await app.open_sqlite(config, paths_of(config), metadata_directory(config))

    async def etcd(urls: Sequence[str]) -> KV:
        config = load({"etcd": list(urls)})
        return await app.open_etcd(config, open_credentials(config, GATEWAY))

    engines = commands.Engines(app.open_bare_sqlite, embedded, etcd)
    return run(lambda _: commands.run(arguments, engines), Config())


async def _prepare_store(config: Config, found: DriveSet, drives: tuple[DriveAt, ...]) -> None:
    """Recover the metadata from the journal if need be, and make the store if it is new."""
    kv = await app.open_sqlite(config, found.paths, metadata_directory(config))
    try:
        lacking = [*found.absent, *found.failed]
        if lacking and not await layout_exists(kv):
            raise StartError(
                f"the store was never finished and drive {lacking[0]} is not there: its layout is "
                "made over all of its drives"
            )
        record = await app.found_on_drives(kv, config, drives, found.store_id)
        if record.store_id != found.store_id:
            raise StartError(
                f"{metadata_directory(config)} belongs to store {record.store_id}, "
                f"the drives to store {found.store_id}"
            )
        _require_newest(found, record.incarnation, (await kv.get_many([])).revision)
        try:
            await require_master_keys(kv, master_keys(config))
        except BadMasterKeys as error:
            raise StartError(str(error)) from error
        _warn_of_drives(drives, await app.layout_nodes(kv))
    finally:
        await kv.close()


def _warn_of_drives(drives: Sequence[DriveAt], expected: Mapping[str, str]) -> None:
    """Say which drives are there and not in the layout, and the other way round."""
    for drive in drives:
        if drive.drive_id not in expected:
            _say(
                f"warning: drive {drive.path} is not part of the layout and holds nothing: "
                f"`s3gw admin layout stage add {drive.drive_id}`, then `s3gw admin layout apply`"
            )
    missing = sorted(expected.keys() - {drive.drive_id for drive in drives})
    if missing:
        _say(
            f"warning: {len(missing)} drives of the layout are not here ({', '.join(missing)}): "
            "the store runs with reduced redundancy until their shards are rebuilt on others"
        )


def _require_newest(found: DriveSet, incarnation: int, revision: int) -> None:
    """Refuse metadata older than what the drives have seen: blobs written since would look like
    orphans. Raises StartError."""
    for drive in found.drives:
        seen = (drive.identity.incarnation, drive.identity.revision)
        if seen > (incarnation, revision):
            raise StartError(
                f"the metadata (revision {revision}) is older than what drive {drive.path} has "
                f"seen (revision {seen[1]}): restore a newer copy, or run `s3gw rescue`; "
                "nothing was changed"
            )


async def _store_of_cluster(config: Config, credentials: TlsCredentials | None) -> str:
    """The id of the cluster's store; waits a little for etcd. Raises EngineError."""
    kv = await app.open_etcd(config, credentials)
    started = time.monotonic()
    try:
        while True:
            try:
                return (await found_store(kv, time.time_ns() // 1_000_000)).store_id
            except EngineError:
                if time.monotonic() - started > ETCD_PATIENCE_SECONDS:
                    raise
            await asyncio.sleep(ETCD_RETRY_SECONDS)
    finally:
        await kv.close()


def _metadata_there(config: Config, found: DriveSet) -> bool:
    """Whether there is anything to open or recover the metadata from."""
    metadata = metadata_directory(config)
    if metadata.exists() and any(metadata.iterdir()):
        return True
    if any((drive.path / "journal").exists() for drive in found.drives):
        return True
    return not holds_shards(found.drives)


def _require_drives(config: Config) -> None:
    scheme = scheme_of(config)
    count = len(config.drive) or config.drives
    if count < scheme.width:
        raise ConfigError(
            f"profile {config.profile} needs {scheme.width} drives, {count} are given"
        )


def _require_etcd(config: Config) -> None:
    if not config.etcd:
        raise ConfigError("name the etcd endpoints with --etcd URL[,URL…]")


def _require_credentials(config: Config, credentials: TlsCredentials | None) -> None:
    if credentials is None and any(url.startswith("https:") for url in config.etcd):
        raise ConfigError("etcd at https needs certificates: name them with --tls-dir")


def _places(found: DriveSet | NodeDrives) -> tuple[DriveAt, ...]:
    return tuple(DriveAt(str(drive.path), drive.identity.drive_id) for drive in found.drives)


def _processes(config: Config) -> int:
    return config.processes or len(os.sched_getaffinity(0))


def _with_credentials(config: Config) -> Config:
    """Root's keys: from the configuration, else kept in the data directory, made on first start."""
    if config.root_access_key:
        return config
    path = Path(config.data).absolute() / CREDENTIALS_FILE
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        kept = Credentials("S3GW" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30))
        _keep(path, msgspec.json.encode(kept))
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(f"{path} cannot be read: {error}") from error
    return msgspec.structs.replace(
        config, root_access_key=kept.access_key, root_secret_key=kept.secret_key
    )


def _with_master_key(config: Config) -> Config:
    """A master key, made when there is none: nothing is encrypted under another one then."""
    if not (config.master_key or config.master_key_file or config.vault_master_key):
        _keep(kept_path(config), new_text())
    return with_kept_master_key(config)


def _keep(path: Path, data: bytes) -> None:
    """Durably write a private file, whole or not at all whoever dies; the drives' locks make us
    the only one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write_new(temporary, data, 0o600)
    os.rename(temporary, path)
    sync_directory(path.parent)


DRIVE_ADDED = """\
{path} is drive {drive} of store {store} now. Next:

  s3gw admin nodes                      lists it within seconds, while the store runs
  s3gw admin layout stage add {drive}
  s3gw admin layout plan                what would move
  s3gw admin layout apply"""
AS_CONFIGURED = '"$S3GW_ROOT_SECRET_KEY"'
ANNOUNCEMENT = """
s3gw is up.

  S3 endpoint   {endpoint}   (region {region})
  admin         {admin}
  access key    {access_key}
  secret key    {secret_key}

aws cli:

  export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key}
  export AWS_DEFAULT_REGION={region} AWS_ENDPOINT_URL={endpoint}{aws_trust}
  aws s3 mb s3://my-bucket
  aws s3 cp README.md s3://my-bucket/

boto3 (with the variables above):

  python3 -c "import boto3; print(boto3.client('s3').list_buckets()['Buckets'])"

rclone:

  export RCLONE_CONFIG_S3GW_TYPE=s3 RCLONE_CONFIG_S3GW_PROVIDER=Minio
  export RCLONE_CONFIG_S3GW_ENDPOINT={endpoint}
  export RCLONE_CONFIG_S3GW_ACCESS_KEY_ID={access_key}
  export RCLONE_CONFIG_S3GW_SECRET_ACCESS_KEY={secret_key}{rclone_trust}
  rclone copy docs s3gw:my-bucket/docs

Ctrl-C stops it; the next start finds its data in {data}.
"""


# For clients that do not know the certificate's authority by themselves. (rclone up to 1.60 cannot
# use the variable of the others, and stops when it is set.)
AWS_TRUST = "\n  export AWS_CA_BUNDLE=ca.pem     # if a private authority signed the certificate"
RCLONE_TRUST = "\n  export AWS_CA_BUNDLE= RCLONE_CA_CERT=ca.pem                     # likewise"


def _announce_up(config: Config, ports: Ports, shows_secret: bool) -> None:
    """Endpoint, keys and lines to paste, when the store serves. A secret that the operator chose
    is shown at a terminal alone: elsewhere what is printed here is a log."""
    _say(
        ANNOUNCEMENT.format(
            endpoint=url_of(config.s3, ports.s3),
            aws_trust=AWS_TRUST if ports.s3 else "",
            rclone_trust=RCLONE_TRUST if ports.s3 else "",
            region=config.region,
            admin=url_of(config.admin, ports.admin),
            access_key=shlex.quote(config.root_access_key),
            secret_key=shlex.quote(config.root_secret_key) if shows_secret else AS_CONFIGURED,
            data=Path(config.data).absolute(),
        )
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr if text.startswith("s3gw:") else sys.stdout, flush=True)


ROLES: dict[str, Callable[[Config], int]] = {
    "up": up,
    "gateway": gateway,
    "worker": worker,
    "node": node,
}
