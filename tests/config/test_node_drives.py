"""The drives of a node: which is which, which is new, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from s3gw.config import Config
from s3gw.drives import StartError
from s3gw.node_drives import NodeDrives, open_node_drives

STORE = "store-1"


def config(tmp_path: Path, *names: str) -> Config:
    return Config(data=str(tmp_path / "data"), drive=tuple(str(tmp_path / name) for name in names))


def start(settings: Config) -> NodeDrives:
    """Open the drives as a start does, and let them go."""
    found = open_node_drives(settings, STORE)
    assert sorted(found.locks) == sorted(drive.identity.drive_id for drive in found.drives)
    found.release()
    return found


def ids(found: NodeDrives) -> list[str]:
    return [drive.identity.drive_id for drive in found.drives]


def test_every_drive_has_an_id_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    settings = config(tmp_path, "a", "b", "c")
    first = start(settings)
    assert len(set(ids(first))) == 3
    second = start(settings)
    assert (ids(second), second.host, second.warnings) == (ids(first), first.host, [])
    assert (tmp_path / "data" / "host.json").exists()


def test_a_data_directory_that_is_the_drive_keeps_both(tmp_path: Path) -> None:
    """Also when a certificate was put there first."""
    settings = config(tmp_path)
    (tmp_path / "data" / "tls").mkdir(parents=True)
    (tmp_path / "data" / "tls" / "cert.pem").touch()
    first = start(settings)
    second = start(settings)
    assert (ids(second), second.host) == (ids(first), first.host)


def test_the_id_goes_with_the_drive_and_not_with_the_path(tmp_path: Path) -> None:
    settings = config(tmp_path, "a", "b")
    first = start(settings)
    (tmp_path / "a").rename(tmp_path / "x")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "x").rename(tmp_path / "b")
    second = start(settings)
    assert ids(second) == ids(first)[::-1]
    assert len(second.warnings) == 2
    assert start(settings).warnings == []


def test_an_empty_directory_is_a_new_drive_with_a_new_id(tmp_path: Path) -> None:
    settings = config(tmp_path, "a", "b")
    first = start(settings)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    second = start(settings)
    assert ids(second)[0] not in ids(first)
    assert ids(second)[1] == ids(first)[1]
    (warning,) = second.warnings
    assert ids(first)[0] in warning
    assert ids(second)[0] in warning


def test_a_wiped_node_is_a_new_host_with_a_new_drive(tmp_path: Path) -> None:
    settings = config(tmp_path)
    first = start(settings)
    shutil.rmtree(tmp_path / "data")
    second = start(settings)
    assert ids(second) != ids(first)
    assert second.host != first.host


def test_an_absent_drive_does_not_stop_the_others(tmp_path: Path) -> None:
    settings = config(tmp_path, "a", "b")
    first = start(settings)
    (tmp_path / "a").rename(tmp_path / "away")
    second = start(settings)
    assert ids(second) == ids(first)[1:]
    assert second.warnings == [
        f"{tmp_path / 'a'} is absent, drive {ids(first)[0]} is expected there; "
        "the node serves without it"
    ]
    assert not (tmp_path / "a").exists()
    (tmp_path / "away").rename(tmp_path / "a")
    assert ids(start(settings)) == ids(first)


def test_a_file_system_that_is_not_mounted_is_not_replaced_by_its_mount_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, "a", "b")
    mounted = {tmp_path / "a"}
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) in mounted)
    first = start(settings)
    (tmp_path / "a").rename(tmp_path / "disk")
    (tmp_path / "a").mkdir()
    mounted.clear()
    second = start(settings)
    assert ids(second) == ids(first)[1:]
    assert "is not mounted" in second.warnings[0]
    assert list((tmp_path / "a").iterdir()) == []
    mounted.add(tmp_path / "a")  # another disk, fresh
    assert ids(start(settings))[0] not in ids(first)


def test_a_drive_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, "a", "b", "c")
    first = start(settings)
    (tmp_path / "a" / "id.json").write_text("{")
    listdir = os.listdir

    def failing(path: object) -> list[str]:
        if str(path) == str(tmp_path / "b"):
            raise OSError(5, "Input/output error")
        return listdir(str(path))

    monkeypatch.setattr(os, "listdir", failing)
    second = start(settings)
    assert ids(second) == ids(first)[2:]
    assert "cannot be understood" in second.warnings[0]
    assert "Input/output error" in second.warnings[1]


def test_nothing_starts_when_no_drive_works(tmp_path: Path) -> None:
    settings = config(tmp_path, "a")
    start(settings)
    (tmp_path / "a").rename(tmp_path / "away")
    with pytest.raises(StartError, match=r"is absent, drive [0-9a-f]+ is expected there$"):
        start(settings)
    (tmp_path / "data" / "host.json").write_text("{")
    with pytest.raises(StartError, match=r"host\.json cannot be read"):
        start(settings)


def test_mistakes_stop_the_start_and_touch_nothing(tmp_path: Path) -> None:
    settings = config(tmp_path, "b", "a")
    DriveIdentity.claim(tmp_path / "a", "store-2")
    before = (tmp_path / "a" / "id.json").read_bytes()
    with pytest.raises(StartError, match="is a drive of store store-2"):
        start(settings)
    assert (tmp_path / "a" / "id.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a"]
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "holiday.jpg").touch()
    with pytest.raises(StartError, match="not empty and not a drive: there is no id"):
        start(settings)
    with pytest.raises(StartError, match="named twice"):
        start(config(tmp_path, "b", "b"))


def test_a_drive_serves_one_process_and_one_path(tmp_path: Path) -> None:
    settings = config(tmp_path, "a")
    held = open_node_drives(settings, STORE)
    with pytest.raises(StartError, match="in use by another process"):
        start(settings)
    held.release()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(StartError, match="is a copy of another drive"):
        start(config(tmp_path, "a", "b"))
    start(settings)  # the locks of a failed start were given back


def test_what_host_json_holds(tmp_path: Path) -> None:
    found = start(config(tmp_path, "a"))
    kept = json.loads((tmp_path / "data" / "host.json").read_text())
    assert kept == {
        "host": found.host,
        "drives": {str(tmp_path / "a"): {"drive": ids(found)[0], "mounted": False}},
    }
