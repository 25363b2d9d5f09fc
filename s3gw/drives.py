"""The drives of one process group: found, checked, claimed and locked before anything starts.

Nothing is touched until everything has been looked at: a drive of another store, an empty
directory where a known drive is expected, or shards without metadata end the start with one line.
A known drive whose directory is *absent*, cannot be read, hangs or has lost its shards is a lost
drive: the store starts without it. An *empty* directory is not: it may be a file system that was
not mounted.

`drive add` notes the path of a new drive in `drives.json` of the data directory, so that a running
`up` finds it there (s3gw.drive_scout), and every later one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nodes import identity
from nodes.disk_threads import DiskCall
from nodes.identity import DriveEmptied, DriveIdentity, IdentityError, Unwritable
from s3gw.config import Config
from s3gw.files import replace_file

JOURNAL = "journal"
DATABASE = "metadata"
ADDED_FILE = "drives.json"
# As long as a disk that stood still may take.
LOOK_SECONDS_MAX = 30.0
# Making the drives of a store takes less, unless a disk hangs.
ALONE_SECONDS_MAX = 10.0
ALONE_RETRY_SECONDS = 0.05


class StartError(Exception):
    """The store cannot start; the message is one line for the operator."""


@dataclass(frozen=True)
class DriveAt:
    """A drive of this machine: where it is and who it is."""

    path: str
    drive_id: str


class AddedDrives(msgspec.Struct):
    """`drives.json`: the paths of drives that `drive add` made, beside those of the settings."""

    added: list[str] = []


@dataclass(slots=True)
class DriveSet:
    """The drives found. `absent` are paths of drives that are not there, `failed` those of drives
    that cannot be used, and why."""

    store_id: str
    new: bool
    drives: list[DriveIdentity] = field(default_factory=list)
    absent: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
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


def all_paths(config: Config) -> list[Path]:
    """The directories of the drives, also those that `drive add` made. Raises StartError."""
    configured = paths_of(config)
    added = [Path(path) for path in _read_added(_added_file(config)).added]
    return configured + [path for path in added if path not in configured]


def metadata_directory(config: Config) -> Path:
    return Path(config.data).absolute() / DATABASE


def open_drives(config: Config, store_id: str = "") -> DriveSet:
    """Find the drives of a store on this machine, or make those of a new one; all are locked.

    `store_id` names the store that they must belong to; "": whichever it is, or a new one. Of two
    who do so at once with one data directory one waits for the other. Raises StartError.
    """
    data = Path(config.data).absolute()
    if not data.exists() and _known(config, store_id) is None:
        _require_writable(data)
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"{data} cannot be made: {error.strerror}") from error
    # A drive that is the data directory, too, has a lock of its own there.
    with _alone(data) if data not in all_paths(config) else nullcontext():
        found = _known(config, store_id)
        if found is None:
            _require_writable(data)
            found = _made(config, store_id)
        _lock(found)
    return found


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold off others who look for drives with this data directory, and may make them."""
    try:
        directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # the drives of a known store have their locks; whoever makes one says what is wrong
        return
    try:
        deadline = time.monotonic() + ALONE_SECONDS_MAX
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StartError(f"another process is starting on {data}") from None
                time.sleep(ALONE_RETRY_SECONDS)
            else:
                break
        yield
    finally:
        os.close(directory)


def _known(config: Config, store_id: str) -> DriveSet | None:
    """The drives of the store that is there, not locked; None when one is to be made, or was begun
    to be. Raises StartError."""
    paths = all_paths(config)
    if len(set(paths)) != len(paths):
        raise StartError("a drive is named twice")
    metadata = metadata_directory(config)
    known, empty, absent, failed = _look_at(paths)
    stores = sorted({drive.identity.store_id for drive in known})
    if len(stores) > 1:
        raise StartError(f"the drives belong to different stores: {', '.join(stores)}")
    if store_id and stores and stores != [store_id]:
        raise StartError(
            f"{known[0].path} is a drive of store {stores[0]}, but etcd holds store {store_id}"
        )
    if failed and (not known or _unfinished(known, metadata)):
        raise StartError(next(iter(failed.values())))
    if known and not _unfinished(known, metadata):
        if empty:
            raise StartError(
                f"{empty[0]} is empty, but store {stores[0]} expects a drive there: mount it, or "
                "remove the directory to start without that drive, or make it a new drive with "
                "`s3gw drive add`"
            )
        return DriveSet(stores[0], new=False, drives=known, absent=absent, failed=failed)
    if metadata.exists() and any(metadata.iterdir()) and not known:
        raise StartError(
            f"{metadata} holds the metadata of a store, but none of its drives is there"
        )
    return None


def _made(config: Config, store_id: str) -> DriveSet:
    """The drives of a new store, those that are there already included."""
    paths = all_paths(config)
    known, empty, absent, _ = _look_at(paths)
    store_id = store_id or (known[0].identity.store_id if known else secrets.token_hex(8))
    found = DriveSet(store_id, new=True, drives=known)
    found.drives += _claim(store_id, [*empty, *absent])
    found.drives.sort(key=lambda drive: paths.index(drive.path))
    return found


def _look_at(
    paths: Sequence[Path],
) -> tuple[list[DriveIdentity], list[Path], list[Path], dict[Path, str]]:
    """Which directories hold drives, which are empty, which are not there, and which cannot be used
    and why. Raises StartError for one that is no drive."""
    known: list[DriveIdentity] = []
    empty: list[Path] = []
    absent: list[Path] = []
    failed: dict[Path, str] = {}
    looks = {path: DiskCall(_drive_at, path) for path in paths}
    end = time.monotonic() + LOOK_SECONDS_MAX
    for path, look in looks.items():
        try:
            if not look.ended(max(0.0, end - time.monotonic())):
                failed[path] = f"{path} hangs"
                continue
            found = look.result()
        except (Unwritable, DriveEmptied) as error:
            failed[path] = str(error)
        except IdentityError as error:
            raise StartError(str(error)) from error
        else:
            if isinstance(found, DriveIdentity):
                known.append(found)
            else:
                (empty if found else absent).append(path)
    return known, empty, absent, failed


def _drive_at(path: Path) -> DriveIdentity | bool:
    """The drive in a directory; when there is none, whether there is a directory. Raises
    IdentityError."""
    return path.exists() if identity.is_empty(path) else DriveIdentity.open(path)


def add_drive(config: Config, path: Path, metadata_store: str) -> DriveIdentity:
    """Make an empty directory a drive, with a new id, of the store of this machine, and note its
    path; a running `up` opens it within seconds. Nothing else is written to, so the store may run.

    `metadata_store` is the store that the database belongs to, "" when there is none: then the
    other drives say it. Raises StartError.
    """
    try:
        others = [
            DriveIdentity.open(other)
            for other in all_paths(config)
            if other != path and _holds_drive(other)
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
            _note_added(config, path)  # who added it may have died in between
            raise StartError(f"{path} is drive {known.identity.drive_id} of this store already")
        _require_writable(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = identity.lock(path)
        try:
            made = DriveIdentity.claim(path, stores[0])
        finally:
            os.close(lock)
        _note_added(config, path)
        return made
    except IdentityError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from error


def _holds_drive(path: Path) -> bool:
    """Whether there is a drive that can be asked which store it belongs to."""
    try:
        DriveIdentity.open(path)
    except (Unwritable, DriveEmptied):
        return False
    except IdentityError:
        if identity.is_empty(path):
            return False
        raise
    return True


def _added_file(config: Config) -> Path:
    return Path(config.data).absolute() / ADDED_FILE


def _read_added(path: Path) -> AddedDrives:
    """Raises StartError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AddedDrives)
    except (FileNotFoundError, NotADirectoryError):
        return AddedDrives()
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(f"{path} cannot be read: {error}") from error


def _note_added(config: Config, path: Path) -> None:
    """Durably note the path of a new drive, unless the settings name it. Raises OSError,
    StartError."""
    if path in paths_of(config):
        return
    file = _added_file(config)
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # two may be added at once
        noted = _read_added(file).added
        if str(path) not in noted:
            replace_file(file, msgspec.json.encode(AddedDrives([*noted, str(path)])), 0o644)
    finally:
        os.close(directory)


def _unfinished(known: Sequence[DriveIdentity], metadata: Path) -> bool:
    """Whether these drives are of a store whose making was interrupted before its metadata: no
    shard, no journal and no database anywhere."""
    if metadata.exists() and any(metadata.iterdir()):
        return False
    return not any(_has_content(drive.path) for drive in known)


def _has_content(path: Path) -> bool:
    for name in (JOURNAL, "data"):
        try:
            if any(entry != path / identity.MARK for entry in (path / name).iterdir()):
                return True
        except FileNotFoundError:
            continue
    return False


def holds_shards(drives: Sequence[DriveIdentity]) -> bool:
    """Whether any drive has a shard file."""
    for drive in drives:
        for directory, _, files in os.walk(drive.path / "data"):
            if any(Path(directory, file) != drive.path / identity.MARK for file in files):
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
    """Lock all drives, before any of them is written to; one that fails at that is left out, unless
    the store is new. Raises StartError."""
    try:
        for step in (_take, _sweep):
            for drive in list(found.drives):
                try:
                    step(found, drive)
                except Unwritable as error:
                    if found.new or len(found.drives) == 1:
                        raise
                    found.drives.remove(drive)
                    found.failed[drive.path] = str(error)
    except IdentityError as error:
        release(found)
        raise StartError(str(error)) from error


def _take(found: DriveSet, drive: DriveIdentity) -> None:
    found.locks[drive.identity.drive_id] = identity.lock(drive.path)


def _sweep(found: DriveSet, drive: DriveIdentity) -> None:
    try:
        identity.sweep_temporary(drive.path)
    except Unwritable:
        os.close(found.locks.pop(drive.identity.drive_id))
        raise


def release(found: DriveSet) -> None:
    """Give the locks back."""
    for descriptor in found.locks.values():
        os.close(descriptor)
    found.locks.clear()
