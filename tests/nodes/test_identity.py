"""Claiming, opening and locking drives."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodes import identity
from nodes.identity import (
    DriveBelongsToAnotherStore,
    DriveEmptied,
    DriveEmptyButKnown,
    DriveIdentity,
    DriveInUse,
    NonceOutdated,
    NotADrive,
    Unwritable,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drive"


def test_a_claimed_drive_opens_with_what_was_claimed(path: Path) -> None:
    claimed = DriveIdentity.claim(path, "store-1")
    opened = DriveIdentity.open(path, store_id="store-1", drive_id=claimed.identity.drive_id)
    assert opened.identity == claimed.identity
    assert sorted(os.listdir(path)) == ["data", "id.json", "quarantine", "tmp"]


def test_two_drives_differ_in_id_and_nonce(tmp_path: Path) -> None:
    one, two = (DriveIdentity.claim(tmp_path / n, "s").identity for n in ("a", "b"))
    assert one.drive_id != two.drive_id
    assert one.nonce != two.nonce


def test_every_registration_draws_a_nonce_that_copies_made_before_do_not_know(
    path: Path, tmp_path: Path
) -> None:
    drive = DriveIdentity.claim(path, "s")
    first = drive.next_nonce(None)
    shutil.copytree(path, tmp_path / "copy")
    second = drive.next_nonce(first)
    assert len({first, second}) == 2
    assert DriveIdentity.open(path).identity.nonce == second
    copy = DriveIdentity.open(tmp_path / "copy")
    before = (tmp_path / "copy" / "id.json").read_bytes()
    with pytest.raises(NonceOutdated, match="outdated copy"):
        copy.next_nonce(second)
    assert (tmp_path / "copy" / "id.json").read_bytes() == before


def test_a_registration_that_was_interrupted_is_repeated_with_its_nonce(path: Path) -> None:
    """Whether its commit was lost, is still under way, or was applied."""
    drive = DriveIdentity.claim(path, "s")
    registered = drive.next_nonce(None)
    noted = drive.next_nonce(registered)  # and then the process died
    for _ in range(3):
        assert DriveIdentity.open(path).next_nonce(registered) == noted
    fresh = DriveIdentity.open(path).next_nonce(noted)
    assert fresh not in (registered, noted)
    with pytest.raises(NonceOutdated):
        DriveIdentity.open(path).next_nonce(registered)


def test_an_id_file_without_a_former_nonce_is_understood(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    fields = json.loads((path / "id.json").read_text())
    del fields["previous"]
    (path / "id.json").write_text(json.dumps(fields))
    assert DriveIdentity.open(path).next_nonce(fields["nonce"]) != fields["nonce"]


def test_a_drive_of_another_store_is_refused_and_not_touched(path: Path) -> None:
    DriveIdentity.claim(path, "store-1")
    before = (path / "id.json").read_bytes()
    with pytest.raises(DriveBelongsToAnotherStore):
        DriveIdentity.open(path, store_id="store-2")
    with pytest.raises(DriveBelongsToAnotherStore):
        DriveIdentity.open(path, store_id="store-1", drive_id="other")
    with pytest.raises(DriveBelongsToAnotherStore):
        DriveIdentity.claim(path, "store-2")
    assert (path / "id.json").read_bytes() == before


def test_an_empty_directory_where_a_known_drive_is_expected_is_refused(path: Path) -> None:
    path.mkdir()
    (path / "lost+found").mkdir()
    with pytest.raises(DriveEmptyButKnown):
        DriveIdentity.open(path, store_id="s", drive_id="d")
    with pytest.raises(NotADrive):
        DriveIdentity.open(path)
    assert os.listdir(path) == ["lost+found"]


def test_a_directory_with_other_files_is_not_claimed(path: Path) -> None:
    path.mkdir()
    (path / "holiday.jpg").touch()
    with pytest.raises(NotADrive):
        DriveIdentity.claim(path, "s")
    with pytest.raises(NotADrive):
        DriveIdentity.open(path)
    assert os.listdir(path) == ["holiday.jpg"]


def test_a_file_is_not_a_drive(path: Path) -> None:
    path.touch()
    for call in (DriveIdentity.open, identity.lock):
        with pytest.raises(NotADrive):
            call(path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '"x"', "{}", '{"store_id": 1, "drive_id": "d", "nonce": "n"}', "\x00" * 100],
)
def test_a_damaged_id_file_is_not_a_drive(path: Path, content: str) -> None:
    DriveIdentity.claim(path, "s")
    (path / "id.json").write_text(content)
    with pytest.raises(NotADrive):
        DriveIdentity.open(path)


def test_an_unknown_format_version_is_refused(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    fields = json.loads((path / "id.json").read_text())
    (path / "id.json").write_text(json.dumps(fields | {"version": 2}))
    with pytest.raises(NotADrive, match="version 2"):
        DriveIdentity.open(path)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    # /proc refuses new directories to everyone, also to root.
    with pytest.raises((Unwritable, NotADrive)):
        DriveIdentity.claim("/proc/s3gw-no-drive", "s")


def test_one_instance_at_a_time(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    held = identity.lock(path)
    with pytest.raises(DriveInUse):
        identity.lock(path)
    os.close(held)
    os.close(identity.lock(path))


def test_the_lock_outlives_a_change_of_the_id_file(path: Path) -> None:
    drive = DriveIdentity.claim(path, "s")
    held = identity.lock(path)
    drive.raise_seen(1, 5)
    with pytest.raises(DriveInUse):
        identity.lock(path)
    os.close(held)


def test_a_child_process_adopts_the_lock_and_keeps_it(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    held = identity.lock(path)
    code = (
        "import sys; from nodes.identity import adopt; adopt(sys.argv[1], int(sys.argv[2]));"
        "print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(held)],
        pass_fds=[held],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"held\n"
    os.close(held)
    with pytest.raises(DriveInUse):
        identity.lock(path)
    child.stdin.close()
    assert child.wait() == 0
    child.stdout.close()
    os.close(identity.lock(path))


def test_a_wrong_descriptor_is_not_adopted(path: Path, tmp_path: Path) -> None:
    DriveIdentity.claim(path, "s")
    held = identity.lock(path)
    other = identity.lock(tmp_path)
    stranger = os.open(path, os.O_RDONLY)
    for descriptor in (other, stranger, 9999):
        with pytest.raises(DriveInUse):
            identity.adopt(path, descriptor)
    identity.adopt(path, held)
    for descriptor in (held, other, stranger):
        os.close(descriptor)


def test_the_highest_seen_metadata_is_kept(path: Path) -> None:
    drive = DriveIdentity.claim(path, "s")
    for incarnation, revision in [(1, 10), (1, 7), (2, 1), (1, 99)]:
        drive.raise_seen(incarnation, revision)
    opened = DriveIdentity.open(path).identity
    assert (opened.incarnation, opened.revision) == (2, 1)
    assert opened.nonce == drive.identity.nonce
    assert os.listdir(path / "tmp") == []


def test_racing_raises_keep_the_highest(path: Path) -> None:
    DriveIdentity.claim(path, "s")

    def raise_some(worker: int) -> None:
        drive = DriveIdentity.open(path)
        for n in range(10):
            drive.raise_seen(1, n * 4 + worker)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(raise_some, range(4)))
    assert DriveIdentity.open(path).identity.revision == 39


def test_a_sweep_removes_temporary_files_and_nothing_else(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    (path / "tmp" / "123.0").write_bytes(b"left behind")
    (path / "data" / "kept").write_bytes(b"")
    assert identity.sweep_temporary(path) == 1
    assert os.listdir(path / "tmp") == []
    assert (path / "data" / "kept").exists()


def test_a_sweep_is_not_stopped_by_a_file_that_goes_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe of a second start, which finds the drive locked a moment later."""
    DriveIdentity.claim(path, "s")
    (path / "tmp" / "probe.1").touch()
    (path / "tmp" / "123.0").touch()
    scandir = os.scandir

    def scanned(directory: Path) -> list[os.DirEntry[str]]:
        entries = list(scandir(directory))
        (path / "tmp" / "probe.1").unlink()
        return entries

    monkeypatch.setattr(os, "scandir", scanned)
    assert identity.sweep_temporary(path) == 1
    monkeypatch.undo()
    assert os.listdir(path / "tmp") == []


def test_the_lock_is_an_flock_on_the_directory(path: Path) -> None:
    DriveIdentity.claim(path, "s")
    held = identity.lock(path)
    with pytest.raises(BlockingIOError):
        other = os.open(path, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(other)
    os.close(held)


@pytest.mark.parametrize("spoil", ["removed", "emptied", "of another"])
def test_an_id_without_its_shards_is_no_drive(path: Path, spoil: str) -> None:
    DriveIdentity.claim(path, "s", drive_id="d1")
    (path / "data" / ".drive").unlink()
    if spoil == "removed":
        (path / "data").rmdir()
    if spoil == "of another":
        (path / "data" / ".drive").write_text("d2")
    with pytest.raises(DriveEmptied, match="is drive d1 without its shards"):
        DriveIdentity.open(path)


def test_an_id_file_that_rots_does_not_take_the_shards_away(path: Path) -> None:
    """It is said at the next start; the drive serves until then."""
    DriveIdentity.claim(path, "s", drive_id="d1")
    (path / "id.json").write_text("{")

    def read(file: str, length: int) -> bytes:
        return (path / file).read_bytes()[:length]

    identity.check_contents(path, "d1", read)


def test_a_claim_that_was_killed_before_its_end_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step: each call that makes something durable may be the last."""
    for cut in range(1, 20):
        calls = iter(range(cut))

        def fsync(descriptor: int, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                DriveIdentity.claim(path, "s")
            except KeyboardInterrupt:
                if (path / "id.json").exists():
                    break
                assert identity.is_empty(path)
            else:
                raise AssertionError("it was not cut")
    assert cut > 2
    assert DriveIdentity.open(path, store_id="s").identity.marked


def test_directories_of_a_drive_with_anything_in_them_are_not_empty(path: Path) -> None:
    for name in ("data", "quarantine"):
        (path / name).mkdir(parents=True)
        assert identity.is_empty(path)
        (path / name / "kept").touch()
        assert not identity.is_empty(path)
        (path / name / "kept").unlink()
    (path / "journal").mkdir()
    assert not identity.is_empty(path)
