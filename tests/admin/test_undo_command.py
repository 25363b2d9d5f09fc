"""`s3gw admin trash` and `s3gw admin undo` as processes against a real store."""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime
from typing import Any

import boto3
import pytest

from compose.local import Up
from s3gw.admin.undo_command import at_ms, seconds
from tests.admin.test_command_line import admin, shown, store

__all__ = ["store"]


@pytest.fixture
def s3(store: Up) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
        region_name="us-east-1",
    )


def answer(store: Up, *arguments: str) -> Any:
    return json.loads(shown(store, *arguments, "--json"))


def test_the_trash_from_end_to_end(store: Up, s3: Any) -> None:
    s3.create_bucket(Bucket="trashy")
    assert "not at all" in shown(store, "trash", "trashy")
    assert answer(store, "trash", "trashy", "set", "2h")["keep_seconds"] == 7200
    for key in ("a/1", "a/2", "b"):
        s3.put_object(Bucket="trashy", Key=key, Body=b"x" * 1000)
        s3.delete_object(Bucket="trashy", Key=key)
    s3.put_object(Bucket="trashy", Key="a/2", Body=b"there")
    assert "3 objects" in shown(store, "trash", "trashy")
    listed = answer(store, "trash", "trashy", "list", "--prefix", "a/")["entries"]
    assert [entry["key"] for entry in listed] == ["a/1", "a/2"]
    assert "kept until" in shown(store, "trash", "trashy", "list")
    report = answer(store, "trash", "trashy", "restore", "--prefix", "a/")
    assert (report["restored"], report["occupied"]) == (1, 1)
    assert s3.get_object(Bucket="trashy", Key="a/1")["Body"].read() == b"x" * 1000
    shown(store, "trash", "trashy", "restore", "--key", "a/2", "--replace")
    assert s3.get_object(Bucket="trashy", Key="a/2")["Body"].read() == b"x" * 1000
    careless = admin(store, "trash", "trashy", "empty")
    assert (careless.returncode, "--yes" in careless.stderr) == (2, True)
    assert answer(store, "trash", "trashy", "empty", "--yes")["objects"] == 2
    for key in ("a/1", "a/2"):
        s3.delete_object(Bucket="trashy", Key=key)
    s3.delete_bucket(Bucket="trashy")


def modified(s3: Any) -> list[datetime]:
    return [entry["LastModified"] for entry in s3.list_objects_v2(Bucket="undone")["Contents"]]


def test_an_undo_from_end_to_end(store: Up, s3: Any) -> None:
    s3.create_bucket(Bucket="undone")
    s3.put_bucket_versioning(Bucket="undone", VersioningConfiguration={"Status": "Enabled"})
    for key in ("p/replaced", "p/deleted"):
        s3.put_object(Bucket="undone", Key=key, Body=b"then")
    moment = max(modified(s3))
    while max(modified(s3)) == moment:  # versions are told apart by milliseconds
        s3.put_object(Bucket="undone", Key="p/replaced", Body=b"now")
    s3.delete_object(Bucket="undone", Key="p/deleted")
    s3.put_object(Bucket="undone", Key="p/new", Body=b"now")
    arguments = ["undo", "undone", "--prefix", "p/", "--to", moment.isoformat()]
    plan = answer(store, *arguments, "--plan")
    assert (plan["keys"], plan["restore"] + plan["hide"]) == (3, 3)
    done = admin(store, *arguments, "--watch", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"
    found = {entry["Key"] for entry in s3.list_objects_v2(Bucket="undone").get("Contents", [])}
    assert found == {"p/deleted", "p/replaced"}
    assert s3.get_object(Bucket="undone", Key="p/replaced")["Body"].read() == b"then"
    assert "restored" in shown(store, "undo", "undone")
    assert admin(store, "undo", "undone", "--cancel").returncode == 1


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("15m", 900), ("12h", 43_200), ("0", 0)])
def test_durations(text: str, value: int) -> None:
    assert seconds(text) == value


def test_moments() -> None:
    assert at_ms("2026-05-24T10:00:00Z") == at_ms("2026-05-24T12:00:00+02:00") == 1_779_616_800_000
    assert abs(at_ms("1h-ago") - (time.time() - 3600) * 1000) < 5000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-05-24T10:00:00", "x-ago", "1.5h-ago"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        at_ms(text)
