"""The drives of one node process: each is a node of the cluster with an id of its own.

The id is in the drive (`id.json`), never in its path. `host.json` in the data directory remembers
what was where, so that a drive that is *missing* is told from one that is *new*:

* a directory that holds a drive of this store is that drive, wherever it was before;
* a directory that is empty, or not there yet, becomes a new drive with a new id; it never takes
  over the id of a drive that was there before, whose shards it does not have;
* a path where a file system was mounted before, and is not now, is a missing drive, not a new one:
  else a disk that was not mounted would be replaced by its mount point;
* a drive that is missing, cannot be read or has lost its shards does not stop the node as long as
  another one works.

A drive of another store, one that another process uses, and a directory full of other files are
mistakes of whoever gave the path: nothing starts.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nodes import identity
from nodes.identity import DriveEmptied, DriveIdentity, IdentityError, NotADrive, Unwritable
from s3gw.config import Config
from s3gw.drives import StartError
from s3gw.files import replace_file

HOST_FILE = "host.json"


class KnownDrive(msgspec.Struct):
    """What was at a path: the drive's id, and whether a file system was mounted there."""

    drive: str
    mounted: bool


class HostRecord(msgspec.Struct):
    """`host.json`: the id that all drives of this data directory share, and where they were."""

    host: str
    drives: dict[str, KnownDrive] = {}


@dataclass(slots=True)
class NodeDrives:
    """The drives found, locked. `warnings` are for the operator, one line each."""

    host: str
    drives: list[DriveIdentity] = field(default_factory=list)
    locks: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def release(self) -> None:
        """Give the locks back."""
        for descriptor in self.locks.values():
            os.close(descriptor)
        self.locks.clear()


class _Missing(Exception):
    """A drive that cannot be served, for a reason that is not a mistake in the configuration."""


def open_node_drives(config: Config, store_id: str) -> NodeDrives:
    """Find, make and lock the drives of a node. Raises StartError."""
    paths = [Path(path).absolute() for path in config.drive or (config.data,)]
    if len(set(paths)) != len(paths):
        raise StartError("a drive is named twice")
    data = Path(config.data).absolute()
    host = _read_host(data / HOST_FILE)
    found = NodeDrives(host.host)
    try:
        # New drives are made after all others were looked at.
        for path in sorted(paths, key=_holds_nothing):
            known = host.drives.get(str(path))
            try:
                drive = _open(path, known, store_id, found)
            except _Missing as error:
                found.warnings.append(f"{error}; the node serves without it")
                continue
            _lock(found, drive)
            host.drives[str(path)] = KnownDrive(drive.identity.drive_id, os.path.ismount(path))
        found.drives.sort(key=lambda drive: paths.index(drive.path))
        if not found.drives:
            raise StartError(found.warnings[0].removesuffix("; the node serves without it"))
        _keep_host(data, host)
    except BaseException:
        found.release()
        raise
    return found


def _holds_nothing(path: Path) -> bool:
    try:
        return identity.is_empty(path)
    except IdentityError:
        return False


def _open(path: Path, known: KnownDrive | None, store_id: str, found: NodeDrives) -> DriveIdentity:
    """The drive at a path. Raises _Missing, StartError."""
    try:
        if not identity.is_empty(path):
            drive = DriveIdentity.open(path, store_id=store_id)
            if known is not None and known.drive != drive.identity.drive_id:
                found.warnings.append(
                    f"{path} is drive {drive.identity.drive_id}, drive {known.drive} was there"
                )
            return drive
        if known is not None and known.mounted and not os.path.ismount(path):
            raise _Missing(f"{path} is not mounted, drive {known.drive} is expected there")
        if known is not None and not path.exists():
            raise _Missing(f"{path} is absent, drive {known.drive} is expected there")
        drive = DriveIdentity.claim(path, store_id)
    except (Unwritable, DriveEmptied) as error:
        raise _Missing(str(error)) from error
    except NotADrive as error:
        if known is not None or (path / identity.ID_FILE).exists():
            raise _Missing(str(error)) from error
        raise StartError(str(error)) from error
    except IdentityError as error:
        raise StartError(str(error)) from error
    if known is not None:
        found.warnings.append(
            f"{path} is empty, drive {known.drive} was there: it is the new drive "
            f"{drive.identity.drive_id} from now on"
        )
    return drive


def _lock(found: NodeDrives, drive: DriveIdentity) -> None:
    """Raises StartError."""
    drive_id = drive.identity.drive_id
    if drive_id in found.locks:
        raise StartError(f"{drive.path} is a copy of another drive given here: {drive_id}")
    try:
        found.locks[drive_id] = identity.lock(drive.path)
        identity.sweep_temporary(drive.path)
    except IdentityError as error:
        raise StartError(str(error)) from error
    found.drives.append(drive)


def _read_host(path: Path) -> HostRecord:
    """Raises StartError for a file that cannot be understood: a new id would make another host of
    the same machine."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=HostRecord)
    except FileNotFoundError:
        return HostRecord(secrets.token_hex(8))
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(f"{path} cannot be read: {error}") from error


def _keep_host(data: Path, host: HostRecord) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        replace_file(data / HOST_FILE, msgspec.json.encode(host), 0o644)
    except OSError as error:
        raise StartError(f"{data} cannot be written: {error.strerror}") from error
