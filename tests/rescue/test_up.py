"""`s3gw rescue` on the drives of a real store: lost metadata, lost journals, and starting again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compose.local import Credentials, Etcd, Up, running, s3gw, wait_until
from nodes.identity import DriveIdentity
from tests.cluster.load import client
from tests.rescue.test_rebuild import data_of

CREDENTIALS = Credentials.generate()
ENVIRONMENT = {
    "S3GW_PG_COUNT": "32",
    "S3GW_PROCESSES": "1",
    "S3GW_WORKER_INTERVAL_SECONDS": "1",
}
BUCKET = "bucket"
PART = 5 * 1024 * 1024
BODIES = {
    "empty": b"",
    "small": data_of("small", 900),
    "large": data_of("large", 2_500_000),
    "twice": b"second",
    "naïve key/ä\u2028": b"unicode",
}


@dataclass(frozen=True)
class Made:
    """A stopped store, and what clients saw of it."""

    directory: Path
    expected: dict[str, Any]


def start(directory: Path) -> Up:
    return Up(directory, credentials=CREDENTIALS, environment=ENVIRONMENT)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with objects of every kind, stopped."""
    up = start(tmp_path_factory.mktemp("made") / "store")
    with running(up):
        s3: Any = client(up.endpoint, CREDENTIALS)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="twice", Body=b"first")
        s3.put_object(Bucket=BUCKET, Key="former", Body=b"r" * 100)
        s3.rename_object(Bucket=BUCKET, Key="renamed", RenameSource=f"/{BUCKET}/former")
        for key, data in BODIES.items():
            s3.put_object(
                Bucket=BUCKET,
                Key=key,
                Body=data,
                ContentType="text/x-test",
                Metadata={"colour": "blue"},
                Tagging="a=b",
                ChecksumAlgorithm="SHA256",
            )
        upload = s3.create_multipart_upload(
            Bucket=BUCKET, Key="parts", ContentType="text/x-parts", Metadata={"n": "2"}
        )["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": s3.upload_part(
                    Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=body
                )["ETag"],
            }
            for number, body in enumerate((data_of("p1", PART), data_of("p2", 70_000)), 1)
        ]
        s3.complete_multipart_upload(
            Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        s3.put_object(Bucket=BUCKET, Key="deleted", Body=b"d" * 100)
        s3.delete_object(Bucket=BUCKET, Key="deleted")
        expected = seen(s3)
        wait_until(lambda: "renamed" in on_drives(up.directory), what="a note of the new name")
    return Made(up.directory, expected)


@pytest.fixture
def data(made: Made, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(made.directory, tmp_path / "store", symlinks=True))


def drives(data: Path) -> list[str]:
    return [str(path) for path in sorted(data.glob("drive-*"))]


def rescue(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Run the command; its lines."""
    ended = subprocess.run(
        s3gw("rescue", *arguments, "--json"), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == code, ended
    assert "Traceback" not in ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def on_drives(data: Path) -> set[str]:
    """The keys that drives alone tell of."""
    return {line["key"] for line in rescue("list", *drives(data)) if line["kind"] == "object"}


def seen(s3: Any) -> dict[str, Any]:
    """All that clients can see of the objects, bodies included."""
    found = {}
    for listed in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        key = listed["Key"]
        got = s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
        tags = s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
        fields = ("ETag", "LastModified", "ContentType", "Metadata", "ChecksumSHA256")
        shown = {name: got.get(name) for name in fields}
        found[key] = (got["Body"].read(), shown, tags, listed["Size"])
    return found


def lose_metadata(data: Path, *, journals: bool) -> None:
    shutil.rmtree(data / "metadata")
    if journals:
        for journal in data.glob("drive-*/journal"):
            shutil.rmtree(journal)


def test_from_shards_alone_and_two_drives_less(made: Made, data: Path) -> None:
    lose_metadata(data, journals=True)
    for number in (2, 5):
        shutil.rmtree(data / f"drive-{number}")
    lines = rescue("rebuild", "--into", "sqlite", "--data", str(data), *drives(data))
    assert lines[-1]["kind"] == "summary"
    assert lines[-1]["source"] == ""
    up = start(data)
    with running(up):
        s3 = client(up.endpoint, CREDENTIALS, attempts=5)
        found = seen(s3)
        assert found.pop("deleted")[0] == b"d" * 100  # nothing on the drives says that it went
        assert found == made.expected
        s3.put_object(Bucket=BUCKET, Key="twice", Body=b"third" * 50_000)
        assert s3.get_object(Bucket=BUCKET, Key="twice")["Body"].read() == b"third" * 50_000
        s3.delete_object(Bucket=BUCKET, Key="large")
    shutil.rmtree(data / "metadata")
    with running(up):  # from the journal that goes with the new database
        left = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
        assert left == {*made.expected, "deleted"} - {"large"}
        assert s3.get_object(Bucket=BUCKET, Key="twice")["Body"].read() == b"third" * 50_000
    assert rescue("confirm", "--data", str(data), *drives(data))[0]["confirmed"]


def test_a_journal_on_one_drive_has_the_deletes(made: Made, data: Path) -> None:
    """The set record says that this drive is not enough, so that `up` refuses."""
    lose_metadata(data, journals=False)
    members = sorted({path.parent for path in data.glob("drive-*/journal/segment-*")})
    assert len(members) == 3
    for journal in members[1:]:
        shutil.rmtree(journal)
    (members[0] / "set").unlink()
    lines = rescue("rebuild", "--into", "sqlite", "--data", str(data), *drives(data))
    assert lines[-1]["source"] == str(members[0])
    assert (lines[-1]["objects"], lines[-1]["buckets"]) == (0, 0)
    up = start(data)
    with running(up):
        assert seen(client(up.endpoint, CREDENTIALS)) == made.expected
    lines = rescue("rebuild", "--into", "sqlite", "--data", str(data), *drives(data), code=2)
    assert lines == []
    assert list(data.glob("drive-*/journal.before-2"))


def test_a_drive_in_use_is_refused_and_nothing_is_touched(data: Path, tmp_path: Path) -> None:
    up = start(data)
    with running(up):
        rescue(
            "rebuild", "--into", "sqlite", "--data", str(tmp_path / "other"), *drives(data), code=2
        )
        assert on_drives(data) >= set(BODIES)  # reads beside a running store
    assert not (tmp_path / "other").exists()


def test_into_etcd_and_refused_the_second_time(data: Path, tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd").start()
    try:
        into = ("rebuild", "--into", "etcd", "--etcd", etcd.url, "--ignore-metadata")
        lines = rescue(*into, *drives(data))
        assert lines[-1]["objects"] == len(BODIES) + 3
        rescue(*into, *drives(data), code=2)
        assert rescue("confirm", "--etcd", etcd.url) == [{"kind": "confirmed", "confirmed": True}]
        assert rescue("confirm", "--etcd", etcd.url) == [{"kind": "confirmed", "confirmed": False}]
    finally:
        etcd.stop()


def test_a_snapshot_that_the_store_took_by_itself_is_restored(made: Made, data: Path) -> None:
    """Then what is newer is not there, until a rebuild."""

    def shards() -> int:
        return sum(1 for _ in data.glob("drive-*/data/4+2.small/*/*"))

    up = Up(
        data,
        credentials=CREDENTIALS,
        environment={**ENVIRONMENT, "S3GW_SNAPSHOT_INTERVAL_SECONDS": "1"},
    )
    already = shards()
    with running(up):
        wait_until(lambda: shards() >= already + 3, what="a snapshot")
        s3 = client(up.endpoint, CREDENTIALS)
        s3.put_object(Bucket=BUCKET, Key="newer", Body=b"n" * 100)
    lose_metadata(data, journals=True)
    restore = ("restore", "--into", "sqlite", "--data", str(data), "--snapshot")
    rescue(*restore, "no-such-file", *drives(data), code=2)
    lines = rescue(*restore, "newest-on-drives", *drives(data))
    assert lines[-1]["source"].startswith("snapshot 1/")
    up = start(data)
    with running(up):
        assert seen(client(up.endpoint, CREDENTIALS)) == made.expected
    lose_metadata(data, journals=True)
    lines = rescue("rebuild", "--into", "sqlite", "--data", str(data), *drives(data))
    assert (lines[-1]["objects"], lines[-1]["incarnation"]) == (1, 3)
    with running(start(data)) as store:
        found = seen(client(store.endpoints[0], CREDENTIALS))
        assert found.pop("newer")[0] == b"n" * 100
        assert found == made.expected


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    DriveIdentity.claim(tmp_path / "drive", "store")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "s3gw", "rescue", "list", str(tmp_path / "drive"), "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
