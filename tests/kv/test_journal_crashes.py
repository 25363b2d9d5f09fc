"""The journal against a database of a dictionary: crashes, torn tails, lost and returning drives.

`Machine` is one store: drives, and a database whose transactions are copies that are kept or
dropped. What it acknowledged is in `acknowledged`; a group that was on its way when the machine
crashed may be there afterwards or not, but whole, and then for ever.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.kv.journal import Journal, JournalError, JournalFull, JournalLost, JournalShort
from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import HEADER_BYTES, Commit, Position, Row

MEMORY = Path("/dev/shm")
"""Power cuts are simulated: a real disk would only make the many small syncs slow."""

Rows = dict[bytes, tuple[bytes, int, int]]


@dataclass
class DictDatabase:
    """What the journal needs of a database."""

    content: Rows = field(default_factory=dict)
    revision: int = 1
    position: Position | None = None

    def copy(self) -> DictDatabase:
        return DictDatabase(dict(self.content), self.revision, self.position)

    def rows(self) -> list[Row]:
        return [(key, *self.content[key]) for key in sorted(self.content)]

    def apply(self, commits: Iterable[Commit]) -> None:
        for revision, changes in commits:
            assert revision > self.revision
            self.revision = revision
            for key, value, lease in changes:
                if value is None:
                    self.content.pop(key, None)
                else:
                    self.content[key] = (value, revision, lease)

    def replace(self, rows: Iterable[Row], revision: int) -> None:
        self.content = {key: (value, at, lease) for key, value, at, lease in rows}
        self.revision = revision


class Machine:
    """A store whose database and drives can be lost."""

    def __init__(self, root: Path, drives: int, copies: int, *, segment_bytes: int = 10**9) -> None:
        self.drives = [root / f"drive-{number}" for number in range(drives)]
        for drive in self.drives:
            drive.mkdir()
        self.root = root
        self.copies = copies
        self.segment_bytes = segment_bytes
        self.database = DictDatabase()
        self.journal: Journal | None = None

    def opened(self) -> Journal:
        if self.journal is None:
            present = [drive for drive in self.drives if drive.is_dir()]
            self.journal = Journal(present, self.copies, segment_bytes=self.segment_bytes)
        return self.journal

    def restart(self) -> None:
        if self.journal is not None:
            self.journal.close()
        self.journal = None

    def settle(self) -> None:
        """What opening does: journal and database agree afterwards."""
        work = self.database.copy()
        position = self.opened().begin(work.position, work.revision, work)
        assert position.revision == work.revision
        work.position = position
        self.database = work

    def commit(self, key: bytes, value: bytes | None, *, crash: bool = False) -> None:
        """One group of two commits; with `crash` the machine stops before the database commits."""
        work = self.database.copy()
        journal = self.opened()
        position = journal.begin(work.position, work.revision, work)
        first = work.revision + 1
        commits: list[Commit] = [
            (first, [(key, value, 0)]),
            (first + 1, [(b"last", b"%d" % (first + 1), 0)]),
        ]
        work.apply(commits)
        position = journal.append(position, commits, work)
        rotated = None
        if journal.rotation_due(position):
            position = rotated = journal.rotate(position, work)
        if crash:
            self.restart()
            return
        work.position = position
        self.database = work
        if rotated is not None:
            journal.snapshot(rotated, work.rows())

    def lose_database(self) -> None:
        self.restart()
        self.database = DictDatabase()

    def take_away(self, drive: Path) -> Path:
        self.restart()
        return Path(shutil.move(drive, drive.with_suffix(".away")))

    def bring_back(self, away: Path) -> None:
        self.restart()
        shutil.move(away, away.with_suffix(""))

    def members(self) -> list[Path]:
        """The drives of the newest set."""
        folders = [Folder(drive) for drive in self.drives if drive.is_dir()]
        records = [record for folder in folders if (record := folder.survey())]
        newest = max(records, key=lambda record: record.set)
        return [f.path.parent for f in folders if f.drive in newest.members]

    def segments(self) -> list[Path]:
        """The newest segment of each member."""
        return [max((drive / "journal").glob("segment-*[0-9]")) for drive in self.members()]

    def set_number(self) -> int:
        record = Folder(self.members()[0]).survey()
        assert record is not None
        return record.set


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Four drives, a journal on three of them, three groups committed."""
    made = Machine(tmp_path, 4, 3)
    for number in range(3):
        made.commit(b"key-%d" % number, b"value")
    return made


def test_a_torn_last_entry_is_cut_off_at_whatever_byte(machine: Machine) -> None:
    before = machine.database.copy()
    start = machine.segments()[0].stat().st_size
    machine.commit(b"torn", b"value", crash=True)
    whole = machine.segments()[0].read_bytes()
    for cut in range(start, len(whole)):
        for path in machine.segments():
            path.write_bytes(whole[:cut])
        machine.settle()
        assert machine.database.content == before.content
        assert {path.stat().st_size for path in machine.segments()} == {start}
        machine.restart()
    machine.commit(b"after", b"value")
    after = machine.database.content
    machine.lose_database()
    machine.settle()
    assert machine.database.content == after
    assert b"torn" not in after


def test_an_entry_whole_on_one_member_is_applied_and_completed_on_all(machine: Machine) -> None:
    start = machine.segments()[0].stat().st_size
    machine.commit(b"new", b"value", crash=True)
    whole = machine.segments()[0].read_bytes()
    for torn in range(start, len(whole), 7):
        before = machine.database.copy()
        machine.segments()[0].write_bytes(whole[:torn])
        machine.segments()[1].write_bytes(whole[:start])
        machine.settle()
        assert machine.database.content[b"new"][0] == b"value"
        assert [path.read_bytes() for path in machine.segments()] == [whole] * 3
        machine.restart()
        machine.database = before


def test_a_lost_database_is_rebuilt_from_any_one_member(machine: Machine) -> None:
    expected = machine.database.content
    members = machine.members()
    for kept in members:
        lost = [machine.take_away(drive) for drive in members if drive != kept]
        machine.lose_database()
        with pytest.raises(JournalShort) as short:
            machine.settle()
        assert short.value.settled is not None
        for away in lost:
            machine.bring_back(away)
        machine.settle()
        assert machine.database.content == expected


def test_an_older_database_catches_up(machine: Machine) -> None:
    older = machine.database.copy()
    for number in range(5):
        machine.commit(b"later-%d" % number, b"value")
    expected = machine.database.content
    machine.restart()
    machine.database = older
    machine.settle()
    assert machine.database.content == expected
    assert machine.database.revision == 17


def test_a_database_older_than_the_oldest_segment_starts_from_the_snapshot(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 3, 2, segment_bytes=400)
    machine.commit(b"key", b"first")
    older = machine.database.copy()
    for number in range(40):
        machine.commit(b"key-%d" % (number % 5), bytes(50))
    expected = machine.database.content
    for drive in machine.members():
        assert len(list((drive / "journal").iterdir())) <= 4
    for database in (older, DictDatabase()):
        machine.restart()
        machine.database = database
        machine.settle()
        assert machine.database.content == expected


def test_a_drive_that_fails_an_append_is_replaced_before_the_acknowledgement(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = machine.members()[1]
    append = Folder.append

    def broken(folder: Folder, entry: bytes, offset: int) -> None:
        if folder.path.parent == failing:
            raise OSError(5, "Input/output error")
        append(folder, entry, offset)

    monkeypatch.setattr(Folder, "append", broken)
    machine.commit(b"key", b"after the failure")
    monkeypatch.undo()
    expected = machine.database.content
    members = machine.members()
    assert failing not in members
    assert len(members) == 3
    assert machine.set_number() == 2
    for kept in members:
        lost = [machine.take_away(drive) for drive in members if drive != kept]
        machine.lose_database()
        with pytest.raises(JournalShort):
            machine.settle()
        for away in lost:
            machine.bring_back(away)
        machine.settle()
        assert machine.database.content == expected


def test_a_member_that_comes_back_with_an_older_set_is_ignored(machine: Machine) -> None:
    away = machine.take_away(machine.members()[0])
    for number in range(4):
        machine.commit(b"later-%d" % number, b"value")
    expected = machine.database.content
    machine.bring_back(away)
    machine.lose_database()
    machine.settle()
    assert machine.database.content == expected
    assert away.with_suffix("") not in machine.members()


def test_without_a_member_of_the_newest_set_opening_is_refused(machine: Machine) -> None:
    stale = machine.take_away(machine.members()[0])
    machine.commit(b"later", b"value")
    machine.bring_back(stale)
    machine.settle()
    members = machine.members()
    lost = [machine.take_away(drive) for drive in members]
    machine.lose_database()
    with pytest.raises(JournalLost, match="newest metadata journal"):
        machine.settle()
    machine.bring_back(lost[0])
    with pytest.raises(JournalShort):
        machine.settle()


def test_a_database_without_any_of_its_drives_is_refused(machine: Machine) -> None:
    for drive in machine.drives:
        shutil.rmtree(drive)
        drive.mkdir()
    machine.restart()
    with pytest.raises(JournalLost):
        machine.settle()


def test_full_drives_keep_nothing_and_are_used_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine.database.content
    append = Folder.append

    def full(folder: Folder, entry: bytes, offset: int) -> None:
        append(folder, entry[:20], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "append", full)
        with pytest.raises(JournalFull):
            machine.commit(b"key", b"too much")
    machine.lose_database()
    machine.settle()
    assert machine.database.content == before
    machine.commit(b"key", b"value")
    assert machine.set_number() == 1


def test_damage_in_the_middle_is_mended_from_a_whole_member(machine: Machine) -> None:
    machine.restart()
    paths = machine.segments()
    whole = paths[2].read_bytes()
    for path in paths[:2]:
        _flip_a_bit(path)
    expected = machine.database.content
    machine.lose_database()
    machine.settle()
    assert machine.database.content == expected
    assert [path.read_bytes() for path in paths] == [whole] * 3


def test_damage_on_every_member_is_reported_instead_of_dropping_what_follows(
    machine: Machine,
) -> None:
    machine.restart()
    for path in machine.segments():
        _flip_a_bit(path)
    machine.lose_database()
    with pytest.raises(JournalLost, match="damaged after revision"):
        machine.settle()


def _flip_a_bit(path: Path) -> None:
    """In the first entry."""
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 40] ^= 1
    path.write_bytes(data)


def test_drives_of_two_stores_are_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Machine(tmp_path / "other", 2, 1)
    other.commit(b"key", b"value")
    other.restart()
    machine.drives += other.drives
    machine.lose_database()
    with pytest.raises(JournalLost, match="different stores"):
        machine.settle()


def test_too_few_drives_refuse_writes_and_lose_nothing(machine: Machine) -> None:
    away = [machine.take_away(drive) for drive in machine.members()[:2]]
    with pytest.raises(JournalShort):
        machine.commit(b"key", b"value")
    machine.bring_back(away[0])
    machine.commit(b"key", b"value")
    assert machine.database.content[b"key"][0] == b"value"


STEP = st.one_of(
    st.tuples(st.just("commit"), st.integers(0, 4)),
    st.tuples(st.just("remove"), st.integers(0, 4)),
    st.tuples(st.just("crash"), st.integers(0, 4), st.lists(st.integers(0, 300), max_size=3)),
    st.tuples(st.just("lose database"), st.booleans()),
    st.tuples(st.just("swap drive"), st.integers(0, 3)),
    st.tuples(st.just("wipe drive"), st.integers(0, 3)),
    st.tuples(st.just("fail append"), st.integers(0, 3)),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_nothing_acknowledged_is_lost_and_no_revision_has_two_contents(
    steps: list[tuple[object, ...]],
) -> None:
    root = Path(tempfile.mkdtemp(prefix="journal-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        _play(Machine(root, 4, 2, segment_bytes=500), steps)
    finally:
        shutil.rmtree(root)


def _play(machine: Machine, steps: list[tuple[object, ...]]) -> None:
    """Do the steps. One drive at a time may be missing, which two copies survive."""
    contents: dict[int, Rows] = {}
    older = machine.database
    numbers = itertools.count()
    away: Path | None = None
    for step in steps:
        acknowledged = machine.database.copy()
        match step:
            case ("commit", int(key)):
                machine.commit(b"key-%d" % key, b"%d" % next(numbers))
            case ("remove", int(key)):
                machine.commit(b"key-%d" % key, None)
            case ("crash", int(key), list(cuts)):
                machine.settle()
                acknowledged = machine.database.copy()
                sizes = {path: path.stat().st_size for path in machine.segments()}
                machine.commit(b"key-%d" % key, b"%d" % next(numbers), crash=True)
                if machine.segments() == list(sizes):
                    _tear(sizes, cuts)
            case ("lose database", bool(wholly)):
                machine.restart()
                machine.database = DictDatabase() if wholly else older.copy()
            case ("swap drive", int(number)):
                if away is not None:
                    machine.bring_back(away)
                    machine.settle()
                    assert machine.database.content == acknowledged.content
                away = machine.take_away(machine.drives[number])
            case ("wipe drive", int(number)) if away is None:
                machine.restart()
                shutil.rmtree(machine.drives[number])
                machine.drives[number].mkdir()
                if machine.database.position is None:
                    machine.database = acknowledged
            case ("fail append", int(number)):
                _commit_with_failing(machine, machine.drives[number], b"%d" % next(numbers))
            case _:
                continue
        _check(machine, acknowledged, contents)
        if next(numbers) % 3 == 0:
            older = machine.database.copy()


def _tear(sizes: dict[Path, int], cuts: list[int]) -> None:
    """Leave on each member only so many bytes of what was appended last. Not after a rotation,
    which begins when the append is synced on all members."""
    for (path, size), cut in zip(sizes.items(), cuts, strict=False):
        if path.stat().st_size > size:
            with path.open("r+b") as file:
                file.truncate(min(size + cut, path.stat().st_size))


def _commit_with_failing(machine: Machine, drive: Path, value: bytes) -> None:
    append = Folder.append

    def broken(folder: Folder, entry: bytes, offset: int) -> None:
        if folder.path.parent == drive:
            append(folder, entry[: len(entry) // 2], offset)
            raise OSError(5, "Input/output error")
        append(folder, entry, offset)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Folder, "append", broken)
        machine.commit(b"failing", value)


def _check(machine: Machine, acknowledged: DictDatabase, contents: dict[int, Rows]) -> None:
    try:
        machine.settle()
    except JournalError as error:
        raise AssertionError(f"one lost drive must not stop the store: {error}") from error
    now = machine.database
    assert now.revision >= acknowledged.revision
    if now.revision == acknowledged.revision:
        assert now.content == acknowledged.content
    assert contents.setdefault(now.revision, dict(now.content)) == now.content
