"""The drives as a recovery sees them: directories that are only read, and what lies in them.

Nothing is locked, made or written, so that a read-only mount will do. A group's directory is read
on all drives at a time, then the next: memory grows with one group, not with the store.

All shards of a blob have the same footer. Where they do not, none is believed for itself: what most
of them say counts, each index once, and of those that say it the ones of the drives' own store. The
others are told, and lend what blocks they have, each of which has a checksum of its own; a shard
that another store wrote lends nothing.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nodes.check import read_ends
from nodes.format import Header, ShardCorrupt
from nodes.identity import ID_FILE
from nodes.pg_revisions import REVISIONS
from nodes.protocol import BLOB_ID_BYTES, INDEX_MAX, PG_MAX, PROFILE_PATTERN, ShardName
from nodes.sync import DATA
from s3gw.objects.footer import Footer, FooterUnknown, parse

_SHARD_FILE = re.compile(rf"([0-9a-f]{{{2 * BLOB_ID_BYTES}}})\.(0|[1-9][0-9]{{0,2}})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
# A drive may hold anything: no link is followed, and a pipe under a shard's name does not block.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REVISION = struct.Struct(">QQ")
_COMPLEMENT = 2**64 - 1


class RescueError(Exception):
    """The recovery cannot go on; the message is one line for the operator."""


class _IdFile(msgspec.Struct):
    store_id: str
    drive_id: str
    version: int
    incarnation: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class RescueDrive:
    """A drive: where it is, who it is, and the newest metadata it has seen."""

    path: Path
    drive_id: str
    store_id: str
    incarnation: int
    revision: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard file whose header, footer and size agree. `drive` counts in the order given."""

    index: int
    drive: int
    path: str


@dataclass(slots=True)
class Blob:
    """A blob as found: its shards, and the footer that most of them have (None: it cannot be
    read). All shards have blocks of `block_bytes` and `payload_bytes` in all. `outliers` are shards
    that say otherwise: of those, `shards` has the ones with blocks like these."""

    profile: str
    pg: int
    blob: bytes
    block_bytes: int
    payload_bytes: int
    footer: Footer | None
    footer_map: bytes
    shards: list[Shard] = field(default_factory=list)
    outliers: list[Shard] = field(default_factory=list)

    @property
    def indexes(self) -> set[int]:
        return {shard.index for shard in self.shards}


@dataclass(slots=True)
class Scan:
    """What a scan met beside blobs: `outliers` are shards that contradict the others of their blob,
    `other_stores` blobs of another store, `foreign` files that are no shards."""

    shards: int = 0
    damaged: int = 0
    outliers: int = 0
    other_stores: int = 0
    unreadable: int = 0
    foreign: int = 0


def open_drives(paths: Sequence[str]) -> list[RescueDrive]:
    """Look at the drives; all must be of one store. Raises RescueError."""
    drives = [_open(Path(path)) for path in paths]
    if not drives:
        raise RescueError("name the drives' directories")
    stores = sorted({drive.store_id for drive in drives})
    if len(stores) > 1:
        raise RescueError(f"the drives belong to different stores: {', '.join(stores)}")
    if len({drive.drive_id for drive in drives}) != len(drives):
        raise RescueError("a drive is named twice")
    return drives


def _open(path: Path) -> RescueDrive:
    try:
        found = msgspec.json.decode((path / ID_FILE).read_bytes(), type=_IdFile)
    except FileNotFoundError:
        raise RescueError(f"{path} is not a drive: there is no {ID_FILE}") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RescueError(f"{path / ID_FILE} cannot be read: {error}") from error
    if found.version != 1:
        raise RescueError(f"{path} has format version {found.version}, which is not known here")
    return RescueDrive(path, found.drive_id, found.store_id, found.incarnation, found.revision)


def scan(
    drives: Sequence[RescueDrive], report: Scan, progress: Callable[[str], None]
) -> Iterator[Blob]:
    """All blobs of all drives, group by group."""
    for profile in _profiles(drives, report):
        for number in _groups(drives, profile, report):
            progress(f"{profile}/{number}")
            yield from _scan_group(drives, profile, number, report)


def _names(path: Path, report: Scan | None = None) -> list[str]:
    """What is in a directory; nothing where there is none. One that cannot be read is counted:
    other drives are asked."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        if report is not None:
            report.unreadable += 1
        return []


def _profiles(drives: Sequence[RescueDrive], report: Scan) -> list[str]:
    found = {name for drive in drives for name in _names(drive.path / DATA, report)}
    return sorted(name for name in found if PROFILE_PATTERN.fullmatch(name))


def _groups(drives: Sequence[RescueDrive], profile: str, report: Scan) -> list[int]:
    found = {name for drive in drives for name in _names(drive.path / DATA / profile, report)}
    numbers = {int(name) for name in found if _NUMBER.fullmatch(name)}
    return sorted(number for number in numbers if number <= PG_MAX)


def _scan_group(
    drives: Sequence[RescueDrive], profile: str, number: int, report: Scan
) -> Iterator[Blob]:
    files: dict[bytes, list[tuple[int, int, str]]] = {}
    for position, drive in enumerate(drives):
        folder = drive.path / DATA / profile / str(number)
        for name in _names(folder, report):
            match = _SHARD_FILE.fullmatch(name)
            if match is None or int(match[2]) > INDEX_MAX:
                report.foreign += 1
                continue
            place = (int(match[2]), position, str(folder / name))
            files.setdefault(bytes.fromhex(match[1]), []).append(place)
    for blob in sorted(files):
        found = _read_blob(profile, number, blob, sorted(files[blob]), report, drives[0].store_id)
        if found is not None:
            yield found


def _read_blob(
    profile: str,
    number: int,
    blob: bytes,
    files: list[tuple[int, int, str]],
    report: Scan,
    store: str,
) -> Blob | None:
    """One blob from those of its shard files that are whole at both ends."""
    said: dict[_Said, list[Shard]] = {}
    for index, drive, path in files:
        report.shards += 1
        name = ShardName(profile, number, blob, index)
        try:
            header, payload_bytes, footer_map = _read_shard(name, path)
        except ShardCorrupt:
            report.damaged += 1
        except OSError:
            report.unreadable += 1
        else:
            says = (header.block_bytes, payload_bytes, footer_map)
            said.setdefault(says, []).append(Shard(index, drive, path))
    if not said:
        return None
    footers = {says: _parsed(says[2], report) for says in said}
    believed = max(said, key=lambda says: _weight(footers[says], said[says], store))
    block_bytes, payload_bytes, footer_map = believed
    footer = footers[believed]
    found = Blob(profile, number, blob, block_bytes, payload_bytes, footer, footer_map)
    if footer is None:
        found.footer_map = b""
    for says, shards in said.items():
        if says == believed:
            found.shards += shards
            continue
        found.outliers += shards
        if says[:2] == believed[:2] and not _is_foreign(footers[says], store):
            found.shards += shards
    found.shards.sort(key=lambda shard: (shard.index, shard.drive))
    report.outliers += len(found.outliers)
    return found


_Said = tuple[int, int, bytes]
"""What a shard says of its blob: bytes of a block, of the payload, and the footer map."""


def _parsed(footer_map: bytes, report: Scan) -> Footer | None:
    try:
        return parse(footer_map)
    except FooterUnknown:
        report.damaged += 1
        return None


def _is_foreign(footer: Footer | None, store: str) -> bool:
    """Whether a footer names another store. Shards of old versions name none."""
    return footer is not None and footer.store not in ("", store)


def _weight(footer: Footer | None, shards: Sequence[Shard], store: str) -> tuple[int, int, int]:
    """How much a footer counts for, by the shards that have it; the first of equals."""
    rank = 0 if footer is None else 1 if _is_foreign(footer, store) else 2
    indexes = {shard.index for shard in shards}
    return rank, len(indexes), -min(indexes)


def _read_shard(name: ShardName, path: str) -> tuple[Header, int, bytes]:
    descriptor = os.open(path, READ_FLAGS)
    try:
        size = os.fstat(descriptor).st_size
        header, footer = read_ends(name, size, lambda at, count: os.pread(descriptor, count, at))
    finally:
        os.close(descriptor)
    return header, footer.payload_bytes, footer.map_bytes


def pg_revisions(drives: Sequence[RescueDrive]) -> dict[tuple[str, int], int]:
    """The highest revision of each placement group that any of the drives has seen. A damaged
    entry counts as none: the drive refuses deletes of that group until the record is raised above
    its seal (nodes.pg_revisions)."""
    highest: dict[tuple[str, int], int] = {}
    for drive in drives:
        for profile in _names(drive.path / REVISIONS):
            try:
                data = (drive.path / REVISIONS / profile).read_bytes()
            except OSError:
                continue
            whole = len(data) - len(data) % _REVISION.size
            for number, (revision, complement) in enumerate(_REVISION.iter_unpack(data[:whole])):
                if revision and revision ^ complement == _COMPLEMENT:
                    key = (profile, number)
                    highest[key] = max(highest.get(key, 0), revision)
    return highest
