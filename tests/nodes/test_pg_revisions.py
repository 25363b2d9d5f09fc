"""Damage in the table of revisions: it is healed so that no older delete is ever allowed."""

from __future__ import annotations

from random import Random

import pytest

from nodes.pg_revisions import (
    CEILING_COPIES,
    REVISION_MAX,
    SEAL,
    SECTOR_BYTES,
    TABLE_BYTES,
    PgRevisions,
    is_seal,
)
from nodes.protocol import DriveError, StalePgRevision
from nodes.store import COUNT_SECONDS, LocalDrive
from tests.nodes.drives import Clock
from tests.nodes.simulated_filesystem import Directory, File, PowerCut, SimulatedFilesystem

NEVER = 1 << 60
GROUP = 3


def table_of(filesystem: SimulatedFilesystem) -> File:
    folder = filesystem.root.seen["revisions"]
    assert isinstance(folder, Directory)
    table = folder.seen["p"]
    assert isinstance(table, File)
    return table


def damaged(random: Random, shown: int) -> SimulatedFilesystem:
    """A drive whose entry of GROUP said `shown`; its neighbours are whole."""
    filesystem = SimulatedFilesystem(random, NEVER)
    revisions = PgRevisions(filesystem)
    for group in (GROUP - 1, GROUP, GROUP + 1):
        revisions.show("p", group, shown)
    revisions.close()
    table = table_of(filesystem)
    offset = 16 * GROUP + random.randrange(16)
    table.seen[offset] ^= 1 << random.randrange(8)
    table.stored = bytes(table.seen)
    return filesystem


def is_refused(revisions: PgRevisions, revision: int) -> bool:
    try:
        with revisions.allowing("p", GROUP, revision):
            return False
    except StalePgRevision as error:
        return error.seen > revision


@pytest.mark.parametrize(
    ("lost", "shown"),
    [
        (12, 13),
        (12, 12),
        (12, 2),  # by one who read the record long ago
        (SEAL + 2**32 + 9, SEAL + 2**32 + 2),  # after a rescue that found a seal
        (SEAL + 1, 5),  # by one who read the record before it was raised above a seal
        (9 * SEAL + 7, 2),
        (5, SEAL + 2**32),
        (SEAL - 1, SEAL - 1),
        (SEAL, SEAL + 1),
        (REVISION_MAX, 7 * SEAL + 1),
    ],
)
def test_a_damaged_revision_is_sealed_above_what_was_lost(lost: int, shown: int) -> None:
    revisions = PgRevisions(damaged(Random(lost), lost))
    with pytest.raises(DriveError):
        revisions.seen("p", GROUP)
    revisions.show("p", GROUP, shown)
    assert revisions.seen("p", GROUP) >= lost
    assert is_refused(revisions, lost - 1)
    sealed = revisions.seen("p", GROUP)
    revisions.show("p", GROUP, min(lost, shown) + 1)
    assert revisions.seen("p", GROUP) == sealed
    assert is_seal(sealed) == (sealed < REVISION_MAX)
    if sealed < REVISION_MAX:  # what heals the group
        with revisions.allowing("p", GROUP, sealed + 1):
            pass
        assert revisions.seen("p", GROUP) == sealed + 1
    for neighbour in (GROUP - 1, GROUP + 1):
        assert revisions.seen("p", neighbour) == lost


def test_a_delete_seals_a_damaged_entry_and_is_refused() -> None:
    revisions = PgRevisions(damaged(Random(1), 12))
    assert is_refused(revisions, 13)
    assert revisions.seen("p", GROUP) == SEAL
    assert is_refused(revisions, SEAL - 1)


def spoil_ceiling(filesystem: SimulatedFilesystem, copies: int) -> None:
    table = table_of(filesystem)
    for copy in range(copies):
        table.seen[TABLE_BYTES - CEILING_COPIES * SECTOR_BYTES + copy * SECTOR_BYTES + 3] ^= 1
    table.stored = bytes(table.seen)


@pytest.mark.parametrize("copies", range(1, CEILING_COPIES + 1))
def test_a_bound_that_is_damaged_too_never_seals_too_low(copies: int) -> None:
    """With one copy left the group can be healed; with none it refuses for good."""
    lost = 3 * SEAL + 5
    filesystem = damaged(Random(copies), lost)
    spoil_ceiling(filesystem, copies)
    revisions = PgRevisions(filesystem)
    revisions.show("p", GROUP, 7)
    sealed = revisions.seen("p", GROUP)
    assert sealed == (4 * SEAL if copies < CEILING_COPIES else REVISION_MAX)
    # The copies are whole again.
    table = table_of(filesystem)
    table.seen[16 * GROUP] ^= 1
    revisions.show("p", GROUP, 7)
    assert revisions.seen("p", GROUP) == (5 * SEAL if copies < CEILING_COPIES else REVISION_MAX)


def test_groups_are_sealed_and_healed_again_and_again() -> None:
    """Each time above all that the group has had, whatever the other groups have."""
    random = Random(7)
    filesystem = damaged(random, 12)
    revisions = PgRevisions(filesystem)
    revisions.show("p", GROUP, 1)
    highest = {group: revisions.seen("p", group) for group in range(5)}
    for _ in range(200):
        group = random.randrange(5)
        if random.random() < 0.3:
            table_of(filesystem).seen[16 * group + random.randrange(16)] ^= 4
            stale = random.randint(1, max(1, highest[group]))
            revisions.show("p", group, stale)
            assert revisions.seen("p", group) >= highest[group]
        highest[group] = revisions.seen("p", group) + random.randint(1, 3)
        revisions.show("p", group, highest[group])


@pytest.mark.parametrize("seed", range(24))
def test_a_power_cut_while_a_revision_is_raised_over_the_bound_leaves_a_bound(seed: int) -> None:
    """The ceiling is there before the entry: damage after the cut is sealed above it."""
    random = Random(seed)
    filesystem = damaged(random, 12)
    revisions = PgRevisions(filesystem)
    revisions.show("p", GROUP, 13)
    filesystem.cut_at = filesystem.steps + 1 + seed % 12
    shown = 5 * SEAL + 3
    try:
        revisions.show("p", GROUP, shown)
        revisions.close()
    except PowerCut:
        pass
    filesystem.off = True
    filesystem.restart()
    revisions = PgRevisions(filesystem)
    said = revisions.seen("p", GROUP)
    assert said in (SEAL, shown)
    table = table_of(filesystem)
    table.seen[16 * GROUP + 9] ^= 16
    revisions.show("p", GROUP, 1)
    assert revisions.seen("p", GROUP) > said


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_while_a_damaged_entry_is_sealed_allows_no_older_delete(seed: int) -> None:
    """The entry is as damaged as it was, or sealed; at every step of the file system."""
    random = Random(seed)
    filesystem = damaged(random, 12)
    filesystem.cut_at = filesystem.steps + 1 + seed % 12
    acknowledged = False
    try:
        revisions = PgRevisions(filesystem)
        revisions.show("p", GROUP, 4)
        acknowledged = True
        revisions.close()
    except PowerCut:
        pass
    filesystem.off = True
    filesystem.restart()
    revisions = PgRevisions(filesystem)
    if acknowledged:
        assert revisions.seen("p", GROUP) == SEAL
    assert is_refused(revisions, 11)
    assert revisions.seen("p", GROUP) >= SEAL
    for neighbour in (GROUP - 1, GROUP + 1):
        assert revisions.seen("p", neighbour) == 12


@pytest.mark.parametrize("ceiling", [True, False])
def test_what_is_damaged_is_counted_until_it_is_healed(ceiling: bool) -> None:
    filesystem = damaged(Random(3), 12)
    if not ceiling:  # sealed for good
        for copy in range(CEILING_COPIES):
            offset = TABLE_BYTES - (copy + 1) * SECTOR_BYTES
            table_of(filesystem).seen[offset : offset + 16] = b"\xff" * 16
    revisions = PgRevisions(filesystem)
    assert revisions.damaged() == 1
    assert is_refused(revisions, 12)
    assert revisions.damaged() == 1
    revisions.show("q", 60_000, 5)
    assert revisions.damaged() == 1
    seal = revisions.seen("p", GROUP)
    if ceiling:
        revisions.show("p", GROUP, seal + 1)
    assert revisions.damaged() == (0 if ceiling else 1)


def test_without_damage_nothing_is_counted() -> None:
    revisions = PgRevisions(SimulatedFilesystem(Random(1), NEVER))
    assert revisions.damaged() == 0
    for group, revision in ((0, 1), (7, 256), (65_535, 2**32), (3, SEAL + 1)):
        revisions.show("p", group, revision)
    assert revisions.damaged() == 0


async def test_a_drive_tells_of_it_within_a_minute() -> None:
    filesystem, clock = damaged(Random(3), 12), Clock()
    drive = LocalDrive(filesystem, store_id="s", drive_id="d", clock=clock)
    assert (await drive.stats()).damaged_revisions == 1
    seal = PgRevisions(filesystem)
    assert is_refused(seal, 12)
    await drive.show_pg_revision("p", GROUP, seal.seen("p", GROUP) + 1)
    assert (await drive.stats()).damaged_revisions == 1
    clock.now += COUNT_SECONDS
    assert (await drive.stats()).damaged_revisions == 0
