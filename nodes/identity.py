"""Who a drive is, and that only one instance uses it.

`id.json` names format, store, drive and a nonce (with which a node takes its registration over
after a restart), and the highest metadata incarnation and revision that the drive has seen. It is
replaced as a whole: temporary file, fsync, rename, fsync of the directory. Therefore the lock that
keeps a drive to one instance is not on it (a replaced file loses its lock) but on the drive's
directory. It is an flock: it belongs to the open descriptor, so the supervisor takes it with
`lock`, its processes inherit the descriptor and `adopt` it, and it ends with the last of them. The
flock on `id.json` itself only orders the processes that replace it.

The shards have a mark among them, `data/.drive`, that names the drive, too: an id without it is a
drive whose shards are gone (removed, or the id file was copied to an empty disk). Such a drive is
not served, so that what it held counts as missing at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FORMAT_VERSION = 1
ID_FILE = "id.json"
ID_FILE_BYTES_MAX = 4096
DIRECTORIES = ("data", "tmp", "quarantine")
MARK = "data/.drive"
MARK_BYTES_MAX = 256
# What a fresh file system may hold, and what a node keeps beside its drive when its data directory
# is its drive.
IGNORED = frozenset({"lost+found", "host.json", "tls"})


class IdentityError(Exception):
    """A drive cannot be used; the message is one line for the operator."""


class DriveBelongsToAnotherStore(IdentityError):
    """The id file names another store, or another drive than the one expected here."""


class DriveInUse(IdentityError):
    """Another instance holds the drive."""


class DriveEmptyButKnown(IdentityError):
    """A known drive was expected and the directory is empty: perhaps it is not mounted."""


class NotADrive(IdentityError):
    """The path is no directory, has no id file, or the id file cannot be understood."""


class DriveEmptied(IdentityError):
    """The id file is there, and the shards of this drive are not."""


class NonceOutdated(IdentityError):
    """The node is registered with a nonce that this drive never had: another copy of the drive was
    started since this one was."""


class Unwritable(IdentityError):
    """The directory cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The contents of `id.json`."""

    store_id: str
    drive_id: str
    nonce: str
    incarnation: int = 0
    revision: int = 0
    version: int = FORMAT_VERSION
    previous: str = ""
    marked: bool = False


def check_contents(path: object, drive_id: str, read: Callable[[str, int], bytes]) -> None:
    """Check that a drive's directory still has the drive's id file and mark; `read` reads so many
    bytes of a file in it. `path` is for the message. An id file that rots says nothing of the
    shards. Raises DriveEmptied, and what `read` does but for FileNotFoundError."""
    try:
        identity = _parse(path, read(ID_FILE, ID_FILE_BYTES_MAX))
        mark = read(MARK, MARK_BYTES_MAX).decode(errors="replace") if identity.marked else drive_id
    except FileNotFoundError as error:
        raise DriveEmptied(f"{path} was drive {drive_id} and is emptied") from error
    except NotADrive:
        return
    if identity.drive_id != drive_id or mark != drive_id:
        raise DriveEmptied(f"{path} was drive {drive_id} and has the shards of another one")


def lock(path: str | os.PathLike[str]) -> int:
    """Take the drive for this instance; returns an inheritable descriptor to keep open. Raises
    DriveInUse, NotADrive, Unwritable."""
    with _errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DriveInUse(f"{path} is in use by another process") from error
    os.set_inheritable(descriptor, True)
    return descriptor


def adopt(path: str | os.PathLike[str], descriptor: int) -> None:
    """Check that an inherited descriptor is the lock of this drive. Raises DriveInUse when it is
    not, or when the lock is held through another descriptor."""
    try:
        same = os.path.samestat(os.fstat(descriptor), os.stat(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DriveInUse(f"{path}: the inherited lock does not hold") from error
    if not same:
        raise DriveInUse(f"{path}: the inherited lock is of another directory")


def is_empty(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is there yet: no such directory, or an empty one. What a claim left that was
    killed before the drive had its id file is nothing, too. Raises NotADrive, Unwritable."""
    with _errors(path):
        try:
            found = set(os.listdir(path)) - IGNORED
            return found <= set(DIRECTORIES) and not any(
                os.path.join(name, entry) != MARK
                for name in found - {"tmp"}
                for entry in os.listdir(os.path.join(path, name))
            )
        except FileNotFoundError:
            return True


def sweep_temporary(path: str | os.PathLike[str]) -> int:
    """Remove what killed processes left in `tmp/`; returns how many files. Only for whoever has
    just locked the drive, before the first process that writes to it."""
    swept = 0
    with _errors(path):
        for entry in list(os.scandir(Path(path) / "tmp")):
            with suppress(FileNotFoundError):  # the probe of another start, which is refused
                os.unlink(entry.path)
                swept += 1
    return swept


class DriveIdentity:
    """An opened drive. `identity` is what was read or written last."""

    def __init__(self, path: str | os.PathLike[str], identity: Identity) -> None:
        self.path = Path(path)
        self.identity = identity

    @classmethod
    def claim(
        cls, path: str | os.PathLike[str], store_id: str, *, drive_id: str | None = None
    ) -> DriveIdentity:
        """Make an empty directory a drive of a store; creates the directory. Raises
        DriveBelongsToAnotherStore, NotADrive (there are other files), Unwritable."""
        if not is_empty(path):
            if (Path(path) / ID_FILE).exists():
                known = cls.open(path)
                raise DriveBelongsToAnotherStore(
                    f"{path} is already a drive of store {known.identity.store_id}"
                )
            raise NotADrive(f"{path} is not empty and not a drive")
        identity = Identity(
            store_id, drive_id or secrets.token_hex(8), secrets.token_hex(16), marked=True
        )
        with _errors(path):
            os.makedirs(path, exist_ok=True)
            for name in DIRECTORIES:
                (Path(path) / name).mkdir(exist_ok=True)
            _write_mark(Path(path), identity.drive_id)
            _write(Path(path), identity)
            _sync_directory(Path(path).parent)
        return cls(path, identity)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        store_id: str | None = None,
        drive_id: str | None = None,
    ) -> DriveIdentity:
        """Open a drive and check it against the store and drive that the caller expects, if any.
        Raises DriveBelongsToAnotherStore, DriveEmptyButKnown, DriveEmptied, NotADrive, Unwritable.
        """
        if is_empty(path):
            if drive_id is not None:
                raise DriveEmptyButKnown(f"{path} is empty, but drive {drive_id} is expected there")
            raise NotADrive(f"{path} is not a drive: there is no {ID_FILE}")
        identity = _read(Path(path))
        if store_id is not None and identity.store_id != store_id:
            raise DriveBelongsToAnotherStore(
                f"{path} is a drive of store {identity.store_id}, not of {store_id}"
            )
        if drive_id is not None and identity.drive_id != drive_id:
            raise DriveBelongsToAnotherStore(
                f"{path} is drive {identity.drive_id}, but {drive_id} is expected there"
            )
        with _errors(path):
            if identity.marked and _read_mark(Path(path)) != identity.drive_id:
                raise DriveEmptied(
                    f"{path} is drive {identity.drive_id} without its shards ({MARK} is missing "
                    "or of another drive): bring them back, or empty it to make it a new drive"
                )
            for name in DIRECTORIES:
                (Path(path) / name).mkdir(exist_ok=True)
            probe = Path(path) / "tmp" / f"probe.{secrets.token_hex(8)}"
            probe.touch()
            probe.unlink()
        return cls(path, identity)

    def raise_seen(self, incarnation: int, revision: int) -> None:
        """Note metadata of this incarnation and revision, if newer; durable on return. Blocks; a
        file is replaced each time, so call it rarely. Raises Unwritable, NotADrive."""
        with _errors(self.path), _ordered(self.path):
            identity = _read(self.path)
            if (incarnation, revision) > (identity.incarnation, identity.revision):
                identity = replace(identity, incarnation=incarnation, revision=revision)
                _write(self.path, identity)
            self.identity = identity

    def next_nonce(self, registered: str | None) -> str:
        """The nonce to register with, when the node is registered with `registered` (None: not
        registered). It is a new one each time, so that copies of this directory made before
        cannot take the registration over, and is noted here before anybody else hears of it.

        The file names the one before too. A start that died between file and registration is
        recognised by that: it is repeated with the nonce noted then, since its commit may still be
        under way. Durable on return; blocks. Raises NonceOutdated, Unwritable, NotADrive.
        """
        with _errors(self.path), _ordered(self.path):
            identity = _read(self.path)
            if registered in (None, identity.nonce):
                identity = replace(identity, nonce=secrets.token_hex(16), previous=identity.nonce)
                _write(self.path, identity)
            elif registered != identity.previous:
                raise NonceOutdated(
                    f"{self.path} is an outdated copy of drive {identity.drive_id}, which is "
                    "registered from elsewhere"
                )
            self.identity = identity
        return identity.nonce


def _read(path: Path) -> Identity:
    try:
        with open(path / ID_FILE, "rb") as file:
            return _parse(path, file.read(ID_FILE_BYTES_MAX))
    except FileNotFoundError as error:
        raise NotADrive(f"{path} is not empty and not a drive: there is no {ID_FILE}") from error
    except OSError as error:
        raise Unwritable(f"{path / ID_FILE} cannot be read: {error.strerror}") from error


def _parse(path: object, data: bytes) -> Identity:
    """What an id file says. Raises NotADrive."""
    try:
        identity = Identity(**json.loads(data))
        whole = all(isinstance(getattr(identity, n), t) for n, t in _FIELD_TYPES.items())
    except (ValueError, TypeError) as error:
        raise NotADrive(f"{path}/{ID_FILE} cannot be understood") from error
    if not whole:
        raise NotADrive(f"{path}/{ID_FILE} cannot be understood")
    if identity.version != FORMAT_VERSION:
        raise NotADrive(f"{path} has format version {identity.version}, which is not known here")
    return identity


_FIELD_TYPES = {
    "store_id": str,
    "drive_id": str,
    "nonce": str,
    "incarnation": int,
    "revision": int,
    "version": int,
    "previous": str,
    "marked": bool,
}


def _read_mark(path: Path) -> str:
    """The drive that the shards belong to, "" when nothing says it. Raises OSError."""
    try:
        with open(path / MARK, "rb") as file:
            return file.read(MARK_BYTES_MAX).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _write_mark(path: Path, drive_id: str) -> None:
    """Durable on return, but for the name of `data`, which that of the id file comes behind."""
    with open(path / MARK, "wb") as file:
        file.write(drive_id.encode())
        file.flush()
        os.fsync(file.fileno())
    _sync_directory((path / MARK).parent)


def _write(path: Path, identity: Identity) -> None:
    temporary = path / "tmp" / f"{ID_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            file.write(json.dumps(asdict(identity), indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path / ID_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _ordered(path: Path) -> Iterator[None]:
    """Hold the lock of the present id file. Whoever waited for one that was replaced meanwhile
    tries again with the new one."""
    while True:
        descriptor = os.open(path / ID_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(path / ID_FILE)):
                yield
                return
        finally:
            os.close(descriptor)


@contextmanager
def _errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise NotADrive(f"{path} is not a directory") from error
    except FileNotFoundError as error:
        raise NotADrive(f"{path} does not exist") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Unwritable(f"{path} cannot be written: {reason}") from error
