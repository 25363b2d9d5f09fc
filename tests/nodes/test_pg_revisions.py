"""Damage in the table of revisions: it is healed so that no older delete is ever allowed."""

from __future__ import annotations

from random import Random

import pytest

from nodes.pg_revisions import REVISION_MAX, SEAL, PgRevisions
from nodes.protocol import DriveError, StalePgRevision
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
        (5, SEAL + 2**32),
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
    if sealed < REVISION_MAX:  # what a rescue does
        with revisions.allowing("p", GROUP, sealed + 2**32):
            pass
    for neighbour in (GROUP - 1, GROUP + 1):
        assert revisions.seen("p", neighbour) == lost


def test_a_delete_seals_a_damaged_entry_and_is_refused() -> None:
    revisions = PgRevisions(damaged(Random(1), 12))
    assert is_refused(revisions, 13)
    assert revisions.seen("p", GROUP) == SEAL
    assert is_refused(revisions, 2**40)


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
