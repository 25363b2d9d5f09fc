"""Recovery into the embedded database of `s3gw up`.

The database is made in a directory beside its place and takes that place when it is whole. Before,
the journals on the drives are set aside under another name, for the next start would settle the new
database by the old journal. What is interrupted between is found by the next recovery, which reads
journals that were set aside as well; nothing that could be of use is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from nodes import identity
from nodes.identity import DriveIdentity, IdentityError
from s3gw.files import sync_directory
from s3gw.kv.interface import KV
from s3gw.rescue.drives import RescueDrive, RescueError
from s3gw.rescue.rebuild import Rebuild
from s3gw.rescue.sources import JOURNAL, SET_ASIDE

DATABASE = "metadata"
UNFINISHED = "metadata.recovery"


async def into_sqlite(
    data: Path,
    drives: Sequence[RescueDrive],
    open_bare: Callable[[Path], Awaitable[KV]],
    fill: Callable[[KV], Awaitable[Rebuild]],
) -> Rebuild:
    """Make the database of a data directory (an absolute path) with `fill`. The drives are locked
    meanwhile. Raises RescueError when there is a database, or a drive is in use, and what `fill`
    raises."""
    with ExitStack() as stack:
        for drive in drives:
            try:
                stack.callback(os.close, identity.lock(drive.path))
            except IdentityError as error:
                raise RescueError(str(error)) from error
        try:
            unfinished = _prepare(data)
            try:
                rebuild = await _filled(unfinished, open_bare, fill)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            _install(data, drives, rebuild.report.incarnation)
        except IdentityError as error:
            raise RescueError(str(error)) from error
        except OSError as error:
            raise RescueError(f"{error.filename or data}: {error.strerror}") from error
    return rebuild


def _prepare(data: Path) -> Path:
    """An empty directory for the database; what an interrupted recovery has left is removed."""
    database, unfinished = data / DATABASE, data / UNFINISHED
    if database.exists() and any(database.iterdir()):
        raise RescueError(f"{database} holds metadata: nothing was changed")
    data.mkdir(parents=True, exist_ok=True)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    return unfinished


def _install(data: Path, drives: Sequence[RescueDrive], incarnation: int) -> None:
    for drive in drives:
        # From here on an older database is refused, and the next recovery counts on.
        DriveIdentity.open(drive.path).raise_seen(incarnation, 0)
        _set_aside(drive.path, incarnation)
    os.rename(data / UNFINISHED, data / DATABASE)
    sync_directory(data)


async def _filled(
    directory: Path,
    open_bare: Callable[[Path], Awaitable[KV]],
    fill: Callable[[KV], Awaitable[Rebuild]],
) -> Rebuild:
    kv = await open_bare(directory)
    try:
        return await fill(kv)
    finally:
        await kv.close()


def _set_aside(drive: Path, incarnation: int) -> None:
    """Give the journal of a drive a name that no start looks for."""
    journal = drive / JOURNAL
    if not journal.is_dir():
        return
    number, target = 0, drive / f"{SET_ASIDE}{incarnation}"
    while target.exists():
        number += 1
        target = drive / f"{SET_ASIDE}{incarnation}.{number}"
    os.rename(journal, target)
    sync_directory(drive)
