"""Drives are claimed for the store that they serve, and found again by it alone."""

import shutil
from pathlib import Path

import pytest

from s3gw import app, launch
from s3gw.config import Config
from s3gw.drives import StartError, metadata_directory, open_drives, release

STORE = "0123456789abcdef"


def node_config(tmp_path: Path) -> Config:
    path = str(tmp_path / "drive")
    return Config(data=path, drive=(path,))


def test_a_new_drive_belongs_to_the_store_that_its_cluster_has(tmp_path: Path) -> None:
    config = node_config(tmp_path)
    found = open_drives(config, STORE)
    release(found)
    assert found.new
    assert [drive.identity.store_id for drive in found.drives] == [STORE]
    (found.paths[0] / "data" / "4+2").mkdir()
    again = open_drives(config, STORE)
    release(again)
    assert not again.new
    assert again.drives[0].identity == found.drives[0].identity


@pytest.mark.parametrize("used", [False, True])
def test_a_drive_of_another_store_is_refused(tmp_path: Path, used: bool) -> None:
    config = node_config(tmp_path)
    found = open_drives(config, STORE)
    release(found)
    if used:
        (found.paths[0] / "data" / "4+2").mkdir()
    with pytest.raises(StartError, match=f"is a drive of store {STORE}, but etcd holds store"):
        open_drives(config, "f" * 16)


async def test_a_store_is_never_laid_out_without_a_drive_that_it_is_to_have(tmp_path: Path) -> None:
    """The first start was killed between its journal and its layout; then a drive was lost."""
    config = Config(data=str(tmp_path), drives=6)
    found = open_drives(config)
    release(found)
    kv = await app.open_sqlite(config, found.paths, metadata_directory(config))
    await kv.close()
    shutil.rmtree(found.paths[5])
    again = open_drives(config)
    release(again)
    assert again.absent == [found.paths[5]]
    with pytest.raises(StartError, match="never finished"):
        await launch._prepare_store(config, again, launch._places(again))
