"""Drives that come while `s3gw up` runs: added, plugged in again, mounted in place of a lost one.

The supervisor asks a `DriveScout` every few seconds (s3gw.supervisor). It looks at the directories
of all drives that the settings name or `drive add` noted. One that it has open it knows by its
inode. Another one it locks and hands to the workers, if there is a drive of this store in it that

* is not open here: it is new, or was absent or failed until now; or
* was open and cannot be written to any more where it was: the disk was pulled and is back, perhaps
  at another path.

An empty directory, a drive of another store and a copy of one that works are left alone. Each
directory is looked at in a thread of its own: a disk that hangs keeps no other from being found,
and what it answers at last is taken then.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from nodes import identity
from nodes.disk_threads import DiskCall
from nodes.identity import DriveIdentity, DriveInUse, IdentityError
from s3gw.config import Config
from s3gw.drives import DriveAt, StartError, all_paths
from s3gw.supervisor import Grant

log = logging.getLogger(__name__)

LOOK_SECONDS_MAX = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DriveScout:
    """Called by the supervisor's thread alone. `locks` are those of the start, by drive id: what is
    locked later takes its place there. The supervisor closes what is replaced."""

    def __init__(
        self,
        config: Config,
        store_id: str,
        locks: dict[str, int],
        *,
        look_seconds_max: float = LOOK_SECONDS_MAX,
    ) -> None:
        self._config = config
        self._store_id = store_id
        self._locks = locks
        self._look_seconds_max = look_seconds_max
        self._looks: dict[Path, DiskCall[tuple[Grant, int | None] | None]] = {}
        self._said: dict[Path, str] = {}

    def __call__(self) -> Iterator[Grant]:
        """The drives that have come since the last call."""
        try:
            paths = all_paths(self._config)
        except StartError as error:
            self._say(Path(self._config.data), str(error))
            return
        for path in paths:
            try:
                grant = self._seen_at(path)
            except (IdentityError, OSError) as error:
                self._say(path, str(error))
                continue
            if grant is not None:
                yield grant

    def _seen_at(self, path: Path) -> Grant | None:
        """Begin a look at a directory, or go on with the one that is not over. Raises
        IdentityError, OSError."""
        look = self._looks.get(path)
        seconds = 0.0
        if look is None:
            look = self._looks[path] = DiskCall(self._look_at, path)
            seconds = self._look_seconds_max
        if not look.ended(seconds):
            self._say(path, "it hangs")
            return None
        del self._looks[path]
        found = look.result()
        self._said.pop(path, None)
        if found is None:
            return None
        grant, replaces = found
        if self._locks.get(grant.name) != replaces:
            os.close(grant.fd)
            raise DriveInUse(f"drive {grant.name} was found elsewhere while {path} hung")
        self._locks[grant.name] = grant.fd
        return grant

    def _look_at(self, path: Path) -> tuple[Grant, int | None] | None:
        """In a thread: the drive there, locked, and the lock that it replaces. Raises
        IdentityError, OSError."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        if any(os.path.samestat(found, os.fstat(lock)) for lock in list(self._locks.values())):
            return None
        if identity.is_empty(path):
            return None
        drive = DriveIdentity.open(path, store_id=self._store_id)
        drive_id = drive.identity.drive_id
        open_here = self._locks.get(drive_id)
        if open_here is not None and _works(open_here):
            raise DriveInUse(f"{path} is a copy of drive {drive_id}, which is open already")
        lock = identity.lock(path)
        try:
            identity.sweep_temporary(path)
        except BaseException:
            os.close(lock)
            raise
        return Grant(drive_id, lock, DriveAt(str(path), drive_id)), open_here

    def _say(self, path: Path, reason: str) -> None:
        """Log why a path is left alone, once as long as that is why."""
        if self._said.get(path) != reason:
            log.warning("drive %s is left alone: %s", path, reason)
            self._said[path] = reason


def _works(directory: int) -> bool:
    """Whether files can be written durably to a directory that is open. (What is read may come from
    memory long after the disk is gone.) One that is full works."""
    name = f"tmp/probe.{secrets.token_hex(8)}"
    try:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        try:
            os.fsync(file)
        finally:
            os.close(file)
            os.unlink(name, dir_fd=directory)
    except OSError as error:
        return error.errno in _FULL
    return True
