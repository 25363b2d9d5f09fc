"""The metadata journal: what makes an embedded database outlive its disk.

The byte format is drawn in journal_format.py, the folder on a drive in journal_folder.py.

**Rule.** Of all drives of the store `copies` (m+1) are the *journal set*. A group of commits is
appended to all of them, in parallel, and synced before the database commits it. So whatever was
acknowledged is on every member, and losing any m drives leaves one. Everything here runs in a
writer of the database, under the writers' lock (a flock), inside its open transaction: the lock
orders the journal among the processes.

**The database says where the journal should end** (`Position`, saved in the same transaction as
the group). A writer that finds all members ending just there, and no new set record, appends.
That check costs two `stat`s per member. Anything else is settled first (`_settle`):

- The journal is ahead of the database: a writer died between append and commit, or the database
  was lost or put back. The longest valid chain wins. Its entries are applied to the database and
  completed on all members, so that no revision ever has two contents; a torn entry is cut off.
- The database is older than the oldest segment, or gone: it is made anew from the newest
  snapshot, then from the segments behind it.
- A member is missing, stale, fails or hangs (journal_threads.py): it leaves the set.

**A change of the set** gets the next number. Its new members receive a snapshot of the database as
it is within the open transaction; all members begin a new segment; then the record with the new
number goes to every drive of the store, members first; and only then the group is acknowledged.
A crash in between leaves either set valid: the old one was not acknowledged past its end, and the
new one was complete before its first record. A drive that comes back with an older record is
stale, whatever is in its folder, until it is taken in again with a snapshot.

**Growth.** When a segment is longer than `segment_bytes` and than the last snapshot, the writer
begins the next one (`rotate`); a thread then writes the snapshot for its start to all members
(`snapshot`) from a reader's view of just that moment, and removes what is older. So the journal
stays within about two times the database, and each byte is written about twice.
"""

from __future__ import annotations

import errno
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from s3gw.kv.journal_folder import Folder, Record
from s3gw.kv.journal_format import (
    CHAIN_BYTES,
    HEADER_BYTES,
    NO_CHECKSUM,
    Commit,
    JournalDamaged,
    NotContinued,
    Position,
    Row,
    Tail,
    build_entry,
    read_tail,
)
from s3gw.kv.journal_snapshot import bulk_seconds, put_snapshot
from s3gw.kv.journal_threads import PATIENCE_SECONDS, DriveThreads, Trouble

log = logging.getLogger(__name__)

SPREAD_SECONDS_MAX = 2.0
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
REVISION_FIRST = 1
"""The revision of a database that was just made."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class JournalError(Exception):
    """The journal could not do it, and whether the group is on a drive is unknown."""


class JournalFull(JournalError):
    """No member has room; nothing of the group was kept."""


class JournalShort(JournalError):
    """Fewer drives than copies: nothing can be written. `settled` is where the journal ends when
    the database agrees with it, so that it can be read."""

    settled: Position | None = None


class JournalLost(JournalError):
    """The drives do not hold what was acknowledged: an operator has to decide."""


class Database(Protocol):
    """What the journal needs of the database, inside the writer's transaction."""

    def rows(self) -> Iterable[Row]:
        """All rows, now."""
        ...

    def apply(self, commits: Iterable[Commit]) -> None:
        """Do commits that follow the present revision."""
        ...

    def replace(self, rows: Iterable[Row], revision: int) -> None:
        """Forget everything, and start with these rows at `revision`, without history."""
        ...


@dataclass(frozen=True, slots=True)
class _Chain:
    """What one member has behind `start`; with `snapshot`, `start` is where that one ends."""

    folder: Folder
    snapshot: Position | None
    tails: list[Tail]
    end: Position
    damaged: bool


class Journal:
    """`drives`: the folders of all present drives of the store. `copies`: how many of them hold the
    journal (m+1); `patience_seconds`: how late a drive may be. For one writer thread; see the head
    of the module."""

    def __init__(
        self,
        drives: Sequence[Path],
        copies: int,
        *,
        segment_bytes: int = SEGMENT_BYTES_MAX,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        if not drives or copies < 1:
            raise ValueError(f"a journal with {copies} copies on {len(drives)} drives")
        self._folders = [Folder(drive) for drive in drives]
        self._added: SimpleQueue[Folder] = SimpleQueue()
        self._copies = copies
        self._segment_bytes = segment_bytes
        self._rotate_at = segment_bytes
        self._members: list[Folder] = []
        self._attached: tuple[bytes, int, int] | None = None
        self._set_tried = 0
        self._threads = DriveThreads(patience_seconds)
        # A drive may be written to by the thread of the snapshots as well.
        self._snapshot_threads = DriveThreads(patience_seconds)
        self._twins: dict[Folder, Folder] = {}

    @property
    def copies(self) -> int:
        """How many drives hold the journal: with any of them the metadata is there."""
        return self._copies

    def add(self, drive: Path) -> None:
        """Let a drive that came just now take the place of those that fail; one that was at its
        path before is forgotten. May be called beside the writer's thread."""
        folder = Folder(drive)
        _tried(folder, folder.survey)
        self._added.put(folder)

    def begin(self, position: Position | None, revision: int, database: Database) -> Position:
        """Make journal and database agree; return where the journal ends. `position` and
        `revision` are the database's; when the result differs, so does the database now. Raises
        JournalError, JournalLost."""
        if position is not None and self._is_attached(position):
            return position
        self._detach()
        self._take_added()
        return self._settle(position, revision, database)

    def append(self, position: Position, commits: Sequence[Commit], database: Database) -> Position:
        """Make a group durable on all members; return where the journal then ends. `database`
        already has the group in its open transaction. Raises JournalError (outcome unknown),
        JournalFull (nothing kept)."""
        entry, behind = build_entry(position, commits)
        failed = self._on_all(lambda folder: folder.append(entry, position.offset))
        if not failed:
            return behind
        if len(failed) == len(self._members):
            raise self._nothing_kept(position, list(failed.values()))
        return self._change_set(self._members, behind, database, failed)

    def rotation_due(self, position: Position) -> bool:
        """Whether the segment is long enough for a snapshot."""
        return position.offset > self._rotate_at

    def rotate(self, position: Position, database: Database) -> Position:
        """Begin the next segment on all members; its start is returned."""
        start = _next_segment(position)
        failed = self._on_all(partial(_begin_segment, start))
        if failed:
            return self._change_set(self._members, position, database, failed)
        self._attach(self._members, start)
        return start

    def snapshot(self, start: Position, rows: Iterable[Row]) -> None:
        """Write the snapshot for the start of a segment to all members, then remove what it
        replaces. May run beside the writer, in another thread. A member that fails or hangs keeps
        what it has, until the next snapshot. Raises OSError when all do, InterruptedError."""
        members = list(self._members)
        self._twins = {member: self._twins.get(member) or member.twin() for member in members}
        threads, twins = self._snapshot_threads, list(self._twins.values())
        size, failed = put_snapshot(threads, twins, start, rows, partial(_prune, start.segment))
        if len(failed) == len(twins):
            raise OSError(errno.EIO, "no journal drive took it")
        self._rotate_at = max(self._segment_bytes, size)

    def hanging(self) -> list[Path]:
        """The drives whose threads have not come back, or are at work now. From any thread."""
        drives = (folder.path.parent for folder in self._folders)
        return [drive for drive in drives if drive in self._threads.at_work()]

    def interrupt(self) -> None:
        """Let a snapshot that is being written end at once. From any thread."""
        self._snapshot_threads.interrupt()

    def close(self) -> None:
        self._detach()
        self._threads.close()
        self._snapshot_threads.close()

    # Members

    def _is_attached(self, position: Position) -> bool:
        if (position.chain, position.set_number, position.segment) != self._attached:
            return False
        try:
            return all(folder.unchanged(position.offset) for folder in self._members)
        except OSError:
            return False

    def _attach(self, members: Sequence[Folder], position: Position) -> None:
        """All have the segment open."""
        self._members = list(members)
        self._attached = (position.chain, position.set_number, position.segment)
        self._rotate_at = max(self._segment_bytes, members[0].snapshot_bytes)

    def _detach(self) -> None:
        for folder in self._folders:
            if not self._threads.hangs(folder):
                folder.detach()
        self._attached = None

    def _take_added(self) -> None:
        """Count on the drives that came, when nothing is attached. The one before at the same path
        goes, also from the set: else one drive could pass for two copies."""
        while not self._added.empty():
            folder = self._added.get()
            self._folders = [old for old in self._folders if old.path != folder.path] + [folder]

    def _on_all(self, work: Callable[[Folder], object]) -> dict[Folder, Trouble]:
        """Do something on all members at once; return those that failed."""
        return self._threads.on_all(self._members, work)

    def _nothing_kept(self, position: Position, errors: Sequence[Trouble]) -> JournalError:
        """Every member failed: cut them back. The error that is then true."""
        uncut = self._on_all(lambda folder: folder.cut(position.offset))
        if uncut:
            self._detach()
            return JournalError("no journal drive took the group, and not all could be cut back")
        if all(isinstance(error, OSError) and error.errno in _FULL for error in errors):
            return JournalFull("no journal drive has room")
        return JournalError(f"no journal drive took the group: {errors[0]}")

    # Changing the set

    def _change_set(
        self,
        members: Sequence[Folder],
        position: Position,
        database: Database,
        failed: Iterable[Folder] = (),
    ) -> Position:
        """Make a set of `copies` members from `members`, which end at `position`, without those
        that `failed`, and from spare drives, which get a snapshot. Returns the start of its first
        segment."""
        self._detach()
        self._take_added()
        refused = set(failed)
        keep = [each for each in members if each not in refused and each in self._folders]
        start = position
        while True:
            # A number that was tried before may be on a drive that did not say so.
            self._set_tried = max(self._set_tried, start.set_number) + 1
            start = replace(_next_segment(start), set_number=self._set_tried)
            recruits = self._recruit(keep, refused, start, database)
            self._members = [*recruits, *keep]
            names = [folder.drive for folder in self._members]
            # Others work: one that does not answer at all hangs, also if it is the last one.
            limit = bulk_seconds(self._threads)
            on_all = partial(self._threads.on_all, seconds=limit)
            broken = set(on_all(keep, partial(_begin_segment, start)))
            if not broken:
                broken = set(on_all(self._members, partial(_write_record, start, names)))
            if not broken:
                break
            refused |= broken
            keep = [folder for folder in keep if folder not in refused]
        self._spread_record(start, names)
        self._attach(self._members, start)
        # The first set is the store being made; a later one means that a drive was left behind.
        level = logging.INFO if start.set_number == 1 else logging.WARNING
        names_now = [str(folder.path) for folder in self._members]
        log.log(level, "journal set %d: %s", start.set_number, names_now)
        return start

    def _recruit(
        self, keep: Sequence[Folder], refused: set[Folder], start: Position, database: Database
    ) -> list[Folder]:
        """Spare drives with a snapshot and the new segment, as many as the set lacks."""
        recruits: list[Folder] = []
        for folder in self._folders:
            if len(keep) + len(recruits) == self._copies:
                break
            if folder in keep or folder in refused or _is_foreign(folder, start):
                continue
            if self._threads.answers(folder) and self._seed(folder, start, database):
                recruits.append(folder)
            else:
                refused.add(folder)
        if len(keep) + len(recruits) < self._copies:
            raise JournalShort(f"fewer than {self._copies} drives can hold the metadata journal")
        return recruits

    def _seed(self, folder: Folder, start: Position, database: Database) -> bool:
        """Whether a spare drive took a snapshot and the new segment. What it had is stale."""

        def begin(folder: Folder) -> None:
            folder.forget(start.segment)
            _begin_segment(start, folder)

        return not put_snapshot(self._threads, [folder], start, database.rows(), begin)[1]

    def _spread_record(self, position: Position, names: Sequence[str]) -> None:
        """Tell the drives outside of the set about it; one that fails will be told later."""
        ignorant = []
        for folder in self._folders:
            known = folder.record
            told = known is not None and (known.chain, known.set, known.members) == (
                position.chain.hex(),
                position.set_number,
                list(names),
            )
            if not told and not _is_foreign(folder, position):
                ignorant.append(folder)
        limit = SPREAD_SECONDS_MAX
        tell = partial(_tell, position, names)
        self._threads.on_all(ignorant, tell, seconds=limit, patience=limit)

    # Settling

    def _settle(self, position: Position | None, revision: int, database: Database) -> Position:
        present = self._survey()
        newest = _newest_record(present, position, revision)
        if newest is None:
            first = Position(secrets.token_bytes(CHAIN_BYTES), 0, 0, 0, revision, NO_CHECKSUM)
            return self._change_set([], first, database)
        members = [folder for folder in present if folder.drive in newest.members]
        if not members:
            raise JournalLost(
                f"none of the {len(newest.members)} drives that hold the newest metadata journal"
                f" (set {newest.set}) is present"
            )
        chain = bytes.fromhex(newest.chain)
        best, chains = self._longest(members, chain, position, revision)
        if best is None:
            assert position is not None
            return self._change_set([], replace(position, set_number=newest.set), database)
        if best.snapshot is not None:
            rows = best.folder.snapshot_rows(best.snapshot.segment)
            database.replace(rows, best.snapshot.revision)
        # Until here only reads: what follows may be repeated by the next writer.
        for tail in best.tails:
            database.apply(tail.commits())
        end = replace(best.end, set_number=newest.set)
        failed = self._threads.on_all(
            chains,
            lambda folder: _complete(chains[folder], best),
            seconds=bulk_seconds(self._threads),
        )
        keep = [folder for folder in chains if folder not in failed]
        if len(keep) != self._copies or len(newest.members) != self._copies:
            try:
                return self._change_set(keep[: self._copies], end, database)
            except JournalShort as short:
                short.settled = end
                raise
        self._attach(keep, end)
        self._spread_record(end, newest.members)
        return end

    def _survey(self) -> list[Folder]:
        """The drives that answer."""
        failed = self._threads.on_all(self._folders, Folder.survey)
        return [folder for folder in self._folders if folder not in failed]

    def _longest(
        self, members: Sequence[Folder], chain: bytes, position: Position | None, revision: int
    ) -> tuple[_Chain | None, dict[Folder, _Chain]]:
        """The longest chain of the members, and those of all who can be completed from it. None
        when the database has everything and no member continues it."""
        chains: dict[Folder, _Chain] = {}
        if position is not None:
            chains = self._walk_all(members, lambda folder: _walk(folder, None, position))
        if not chains:
            chains = self._walk_all(members, lambda folder: _walk_from_snapshot(folder, chain))
            if not chains:
                raise JournalLost("no journal drive has a whole snapshot of the metadata")
            oldest = min((c.snapshot.revision for c in chains.values() if c.snapshot), default=0)
            if position is not None:
                if all(c.end.revision < revision for c in chains.values()):
                    return None, {}
                if revision > oldest:
                    raise JournalLost("database and metadata journal have different histories")
        best = max(chains.values(), key=lambda c: c.end.revision)
        if best.damaged:
            raise JournalLost(
                f"the metadata journal on {best.folder.path} is damaged after revision"
                f" {best.end.revision}, and no other drive has what follows"
            )
        return best, chains

    def _walk_all(
        self, members: Sequence[Folder], walk: Callable[[Folder], _Chain | None]
    ) -> dict[Folder, _Chain]:
        found: dict[Folder, _Chain | None] = {}

        def note(folder: Folder) -> None:
            found[folder] = walk(folder)

        failed = self._threads.on_all(members, note)
        return {f: chain for f in members if f not in failed and (chain := found[f]) is not None}


def _next_segment(position: Position) -> Position:
    return replace(position, segment=position.segment + 1, offset=HEADER_BYTES)


def _is_foreign(folder: Folder, position: Position) -> bool:
    """Whether the drive belongs, or may belong, to the journal of another store, which is left
    alone."""
    if not folder.surveyed:
        return True
    return folder.record is not None and folder.record.chain != position.chain.hex()


def _tried(folder: Folder, work: Callable[..., object], *arguments: object) -> bool:
    """Whether the drive did it."""
    try:
        work(*arguments)
    except (OSError, JournalDamaged, NotContinued) as error:
        log.warning("journal on %s failed: %s", folder.path, error)
        return False
    return True


def _begin_segment(start: Position, folder: Folder) -> None:
    folder.create_segment(start)
    folder.attach(start.segment)


def _write_record(position: Position, names: Sequence[str], folder: Folder) -> None:
    folder.write_record(position.chain, position.set_number, names)


def _tell(position: Position, names: Sequence[str], folder: Folder) -> None:
    if folder.path.parent.is_dir():
        _write_record(position, names, folder)


def _prune(before: int, folder: Folder) -> None:
    folder.prune(before)


def _newest_record(
    present: Sequence[Folder], position: Position | None, revision: int
) -> Record | None:
    """The record with the highest set number; None for a store without a journal."""
    records = [folder.record for folder in present if folder.record is not None]
    chains = {record.chain for record in records}
    if position is not None:
        if position.chain.hex() not in chains:
            raise JournalLost("no drive present belongs to the metadata journal of this database")
        records = [record for record in records if record.chain == position.chain.hex()]
    elif chains and revision > REVISION_FIRST:
        raise JournalLost("the drives hold a metadata journal that is not of this database")
    elif len(chains) > 1:
        raise JournalLost("the drives hold metadata journals of different stores")
    newest = max(records, key=lambda record: record.set, default=None)
    if newest and position and newest.set < position.set_number:
        raise JournalLost(
            f"the drives know metadata journal set {newest.set}, the database knows set"
            f" {position.set_number}: the drives of the newest set are not present"
        )
    return newest


def _walk(folder: Folder, snapshot: Position | None, start: Position) -> _Chain:
    """Follow the chain from `start` through the segments."""

    def step() -> None:
        folder.steps += 1

    tails = [read_tail(folder.segment(start.segment), start, step)]
    damaged = tails[0].damaged
    while not damaged:
        try:
            following = _next_segment(tails[-1].end)
            tails.append(read_tail(folder.segment(following.segment), following, step))
            damaged = tails[-1].damaged
        except (FileNotFoundError, NotContinued):
            break
        except JournalDamaged as error:
            log.warning("journal on %s: %s", folder.path, error)
            damaged = True
    return _Chain(folder, snapshot, tails, tails[-1].end, damaged)


def _walk_from_snapshot(folder: Folder, chain: bytes) -> _Chain | None:
    for snapshot in folder.snapshots():
        if snapshot.chain != chain:
            continue
        try:
            for _ in folder.snapshot_rows(snapshot.segment):
                pass
            return _walk(folder, snapshot, snapshot)
        except (FileNotFoundError, JournalDamaged, NotContinued) as error:
            log.warning("journal on %s: snapshot %d: %s", folder.path, snapshot.segment, error)
    return None


def _complete(chain: _Chain, best: _Chain) -> None:
    """Give a member what the longest chain has beyond it, and cut off what is torn. Raises
    OSError; JournalDamaged when it is too far behind and needs a snapshot."""
    folder, end = chain.folder, chain.end
    if best.tails[0].start.segment > end.segment:
        raise JournalDamaged(f"the segments behind revision {end.revision} are gone")
    for tail in best.tails:
        number = tail.start.segment
        if number < end.segment:
            continue
        if number > end.segment:
            folder.create_segment(tail.start)
            end = tail.start
        folder.attach(number)
        folder.cut(end.offset)
        offset = end.offset
        for piece in tail.missing_from(end):
            folder.append(piece, offset)
            offset += len(piece)
    folder.attach(best.end.segment)
