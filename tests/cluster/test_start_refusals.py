"""What must not start says why in one line, exits with a code, and touches nothing."""

import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose.local import Credentials, Up, free_port, running, s3gw
from tests.cluster.load import client

EXIT_START = 2
SECONDS_MAX = 20
ONE_WORKER = {"S3GW_PROCESSES": "1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an object in it, stopped."""
    directory = tmp_path_factory.mktemp("made") / "store"
    up = Up(directory, credentials=Credentials.generate(), environment=ONE_WORKER)
    with running(up):
        s3: Any = client(up.endpoint, up.credentials)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=b"x" * 200_000)
    return up.directory


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(made, tmp_path / "store", symlinks=True))


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "a directory"
        for path in directory.rglob("*")
    }


def refused(data: Path, *arguments: str, s3: str = "") -> str:
    """The one line that `s3gw up` ends with."""
    ended = subprocess.run(
        s3gw(
            *("up", "--data", str(data), "--s3", s3 or f"127.0.0.1:{free_port()}"),
            *("--admin", f"127.0.0.1:{free_port()}", *arguments),
        ),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ended.returncode == EXIT_START, ended
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("s3gw: ")
    return lines[0]


def test_a_busy_port(data: Path) -> None:
    before = contents(data)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused(data, s3=address)
    assert address in line
    assert "in use" in line
    assert contents(data) == before


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    line = refused(file / "store")
    assert str(file) in line
    assert file.read_text() == "not a directory"


def test_too_few_drives(tmp_path: Path) -> None:
    line = refused(tmp_path / "store", "--drives", "5")
    assert "4+2 needs 6 drives, 5 are given" in line
    assert not (tmp_path / "store").exists()


def foreign_drive(data: Path, tmp_path: Path) -> None:
    """Drive 3 of another store takes the place of ours."""
    other = Up(tmp_path / "other", environment=ONE_WORKER)
    with running(other):
        pass
    shutil.rmtree(data / "drive-3")
    shutil.copytree(tmp_path / "other" / "drive-3", data / "drive-3")


def empty_drive(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "drive-3")
    (data / "drive-3").mkdir()


def no_metadata_at_all(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "metadata")
    for journal in data.glob("drive-*/journal"):
        shutil.rmtree(journal)


def no_drives(data: Path, tmp_path: Path) -> None:
    for drive in data.glob("drive-*"):
        shutil.rmtree(drive)


def files_of_others(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "drive-3")
    (data / "drive-3").mkdir()
    (data / "drive-3" / "thesis.tex").write_text("the only copy")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (foreign_drive, "different stores"),
        (empty_drive, "is empty"),
        (no_metadata_at_all, "s3gw rescue"),
        (no_drives, "none of its drives"),
        (files_of_others, "drive-3"),
    ],
)
def test_a_store_that_is_not_whole(
    spoil: Callable[[Path, Path], None], word: str, data: Path, tmp_path: Path
) -> None:
    spoil(data, tmp_path)
    before = contents(data)
    assert word in refused(data)
    assert contents(data) == before


def test_metadata_and_every_drive_with_a_journal_lost(data: Path) -> None:
    """More than the parity allows. Refused for as long as they are away, and not held against the
    store when they come back."""
    shutil.rmtree(data / "metadata")
    away = sorted({segment.parent.parent for segment in data.glob("drive-*/journal/segment-*")})
    for drive in away:
        drive.rename(drive.with_suffix(".away"))
    before = contents(data)
    for _ in range(2):
        assert "none of the 3 drives that hold the newest metadata journal" in refused(data)
        after = contents(data)
        assert {name: after[name] for name in before} == before
        assert {name.partition("/")[0] for name in set(after) - set(before)} <= {"metadata"}
    for drive in away:
        drive.with_suffix(".away").rename(drive)
    up = Up(data, environment=ONE_WORKER)
    with running(up):
        s3: Any = client(up.endpoint, up.credentials)
        assert s3.get_object(Bucket="bucket", Key="k")["ContentLength"] == 200_000


def test_a_store_that_is_running(data: Path) -> None:
    up = Up(data, environment=ONE_WORKER)
    with running(up):
        line = refused(data)
        assert "in use" in line or "lock" in line
        assert up.process.running()
        assert client(up.endpoint, up.credentials).list_buckets()["Buckets"]
