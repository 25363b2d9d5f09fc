"""The drives of one process group: found, checked, claimed and locked before anything starts.

Nothing is touched until everything has been looked at: a drive of another store, an empty
directory where a known drive is expected, or shards without metadata end the start with one line.
A known drive whose directory is *absent* is a lost drive: the store starts without it. An *empty*
directory is not: it may be a file system that was not mounted.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodes import identity
from nodes.identity import DriveIdentity, IdentityError
from s3gw.config import Config

JOURNAL = "journal"
DATABASE = "metadata"


class StartError(Exception):
    """The store cannot start; the message is one line for the operator."""


@dataclass(slots=True)
class DriveSet:
    """The drives found. `absent` are paths of drives that are not there."""

    store_id: str
    new: bool
    drives: list[DriveIdentity] = field(default_factory=list)
    absent: list[Path] = field(default_factory=list)
    locks: dict[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        return [drive.path for drive in self.drives]


def paths_of(config: Config) -> list[Path]:
    """The directories of the drives: those named, else `drive-1` … below the data directory."""
    if config.drive:
        return [Path(path).absolute() for path in config.drive]
    data = Path(config.data).absolute()
    return [data / f"drive-{number}" for number in range(1, config.drives + 1)]


def metadata_directory(config: Config) -> Path:
    return Path(config.data).absolute() / DATABASE


def open_drives(config: Config, store_id: str = "") -> DriveSet:
    """Find the drives of a store on this machine, or make those of a new one; all are locked.

    `store_id` names the store that they must belong to; "": whichever it is, or a new one. Raises
    StartError.
    """
    paths = paths_of(config)
    if len(set(paths)) != len(paths):
        raise StartError("a drive is named twice")
    metadata = metadata_directory(config)
    try:
        known = [DriveIdentity.open(path) for path in paths if not identity.is_empty(path)]
        empty = [path for path in paths if path.exists() and identity.is_empty(path)]
    except IdentityError as error:
        raise StartError(str(error)) from error
    absent = [path for path in paths if not path.exists()]
    stores = sorted({drive.identity.store_id for drive in known})
    if len(stores) > 1:
        raise StartError(f"the drives belong to different stores: {', '.join(stores)}")
    if store_id and stores and stores != [store_id]:
        raise StartError(
            f"{known[0].path} is a drive of store {stores[0]}, but etcd holds store {store_id}"
        )
    if known and not _unfinished(known, metadata):
        if empty:
            raise StartError(
                f"{empty[0]} is empty, but store {stores[0]} expects a drive there: mount it, or "
                "remove the directory to start without that drive, or make it a new drive with "
                "`s3gw drive add`"
            )
        found = DriveSet(stores[0], new=False, drives=known, absent=absent)
    elif metadata.exists() and any(metadata.iterdir()) and not known:
        raise StartError(
            f"{metadata} holds the metadata of a store, but none of its drives is there"
        )
    else:
        _require_writable(Path(config.data).absolute())
        store_id = store_id or (stores[0] if stores else secrets.token_hex(8))
        found = DriveSet(store_id, new=True, drives=known)
        found.drives += _claim(store_id, [*empty, *absent])
        found.drives.sort(key=lambda drive: paths.index(drive.path))
    _lock(found)
    return found


def add_drive(config: Config, path: Path, metadata_store: str) -> DriveIdentity:
    """Make an empty directory a drive, with a new id, of the store of this machine; a start of `up`
    that is given it opens it. Nothing but this directory is written to, so the store may run.

    `metadata_store` is the store that the database belongs to, "" when there is none: then the
    other drives say it. Raises StartError.
    """
    try:
        others = [
            DriveIdentity.open(other)
            for other in paths_of(config)
            if other != path and other.exists() and not identity.is_empty(other)
        ]
        stores = sorted({other.identity.store_id for other in others} | {metadata_store} - {""})
        if len(stores) > 1:
            raise StartError(f"the drives belong to different stores: {', '.join(stores)}")
        if not stores:
            raise StartError(
                f"there is no store in {Path(config.data).absolute()}: name its directory with "
                "--data, or its drives with --drive"
            )
        if not identity.is_empty(path) and (path / identity.ID_FILE).exists():
            known = DriveIdentity.open(path, store_id=stores[0])
            raise StartError(
                f"{path} is drive {known.identity.drive_id} of this store already: start `s3gw up` "
                "with it"
            )
        _require_writable(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = identity.lock(path)
        try:
            return DriveIdentity.claim(path, stores[0])
        finally:
            os.close(lock)
    except IdentityError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from error


def _unfinished(known: Sequence[DriveIdentity], metadata: Path) -> bool:
    """Whether these drives are of a store whose making was interrupted before its metadata: no
    shard, no journal and no database anywhere."""
    if metadata.exists() and any(metadata.iterdir()):
        return False
    return not any(_has_content(drive.path) for drive in known)


def _has_content(path: Path) -> bool:
    for name in (JOURNAL, "data"):
        try:
            if any((path / name).iterdir()):
                return True
        except FileNotFoundError:
            continue
    return False


def holds_shards(drives: Sequence[DriveIdentity]) -> bool:
    """Whether any drive has a shard file."""
    for drive in drives:
        for _, _, files in os.walk(drive.path / "data"):
            if files:
                return True
    return False


def _require_writable(path: Path) -> None:
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StartError(f"{path} cannot be written")


def _claim(store_id: str, paths: Sequence[Path]) -> list[DriveIdentity]:
    try:
        return [DriveIdentity.claim(path, store_id) for path in paths]
    except IdentityError as error:
        raise StartError(str(error)) from error


def _lock(found: DriveSet) -> None:
    try:
        for drive in found.drives:
            found.locks[drive.identity.drive_id] = identity.lock(drive.path)
        for drive in found.drives:
            identity.sweep_temporary(drive.path)
    except IdentityError as error:
        release(found)
        raise StartError(str(error)) from error


def release(found: DriveSet) -> None:
    """Give the locks back."""
    for descriptor in found.locks.values():
        os.close(descriptor)
    found.locks.clear()
