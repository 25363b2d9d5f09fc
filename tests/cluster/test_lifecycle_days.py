"""Lifecycle rules at work in a running store, whose days last two seconds."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.config import Config

from compose.local import Credentials, Up, running, wait_until
from tests import sdk

DAY_SECONDS = 2
PATIENCE_SECONDS = 60
ALL = {"ObjectSizeGreaterThan": 0}


@pytest.fixture(scope="module")
def short_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    credentials = Credentials.generate()
    environment = {
        "S3GW_LIFECYCLE_DAY_SECONDS": str(DAY_SECONDS),
        "S3GW_LIFECYCLE_INTERVAL_SECONDS": "0.2",
        "S3GW_WORKER_INTERVAL_SECONDS": "0.2",
    }
    directory = tmp_path_factory.mktemp("short-days") / "store"
    up = Up(directory, credentials=credentials, environment=environment)
    with running(up):
        yield up


@pytest.fixture(scope="module")
def s3(short_days: Up) -> Any:
    return sdk.client(
        "s3",
        endpoint_url=short_days.endpoint,
        region_name="us-east-1",
        aws_access_key_id=short_days.credentials.access_key,
        aws_secret_access_key=short_days.credentials.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def admin(up: Up, *words: str) -> str:
    environment = {
        **os.environ,
        "S3GW_ROOT_ACCESS_KEY": up.credentials.access_key,
        "S3GW_ROOT_SECRET_KEY": up.credentials.secret_key,
    }
    endpoint = up.admin.removeprefix("http://")
    return subprocess.run(
        [sys.executable, "-m", "s3gw", "admin", "--endpoint", endpoint, *words],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def until(what: Callable[[], Any]) -> None:
    """Poll until something is so."""
    wait_until(lambda: bool(what()), what="what lifecycle rules want", seconds_max=PATIENCE_SECONDS)


def names(s3: Any, bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def put_rules(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    filled = [{"ID": str(n), "Status": "Enabled", **rule} for n, rule in enumerate(rules)]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": filled})


def make(s3: Any, name: str, *, versioned: bool = False, **more: Any) -> None:
    s3.create_bucket(Bucket=name, **more)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def test_objects_expire_and_others_stay(s3: Any) -> None:
    make(s3, "expires")
    s3.put_object(Bucket="expires", Key="tmp/before", Body=b"x")
    put_rules(s3, "expires", {"Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}})
    s3.put_object(Bucket="expires", Key="tmp/after", Body=b"x")
    s3.put_object(Bucket="expires", Key="stays", Body=b"x")
    until(lambda: names(s3, "expires") == ["stays"])
    s3.delete_object(Bucket="expires", Key="stays")
    s3.delete_bucket(Bucket="expires")


def test_a_versioned_bucket_is_cleaned_up_to_the_last_marker(s3: Any) -> None:
    make(s3, "versions", versioned=True)
    put_rules(
        s3,
        "versions",
        {
            "Filter": {},
            "Expiration": {"Days": 1},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        },
        {"Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    )
    for body in (b"1", b"2"):
        s3.put_object(Bucket="versions", Key="k", Body=body)
    until(lambda: s3.list_object_versions(Bucket="versions").get("DeleteMarkers"))

    def is_empty() -> bool:
        page = s3.list_object_versions(Bucket="versions")
        return not page.get("Versions") and not page.get("DeleteMarkers")

    until(is_empty)
    s3.delete_bucket(Bucket="versions")


def test_uploads_that_nobody_ends_are_aborted(s3: Any) -> None:
    make(s3, "uploads")
    put_rules(
        s3, "uploads", {"Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    )
    made = s3.create_multipart_upload(Bucket="uploads", Key="k")
    target = {"Bucket": "uploads", "Key": "k", "UploadId": made["UploadId"]}
    s3.upload_part(**target, PartNumber=1, Body=b"x" * 100)
    until(lambda: not s3.list_multipart_uploads(Bucket="uploads").get("Uploads"))
    with pytest.raises(s3.exceptions.NoSuchUpload):
        s3.upload_part(**target, PartNumber=2, Body=b"late")
    s3.delete_bucket(Bucket="uploads")


def test_a_locked_version_stays_and_others_go(s3: Any) -> None:
    make(s3, "locked", ObjectLockEnabledForBucket=True)
    put_rules(s3, "locked", {"Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}})
    held = s3.put_object(Bucket="locked", Key="held", Body=b"1", ObjectLockLegalHoldStatus="ON")
    s3.put_object(Bucket="locked", Key="free", Body=b"1")
    for key in ("held", "free"):
        s3.put_object(Bucket="locked", Key=key, Body=b"2")

    def versions(key: str) -> list[str]:
        page = s3.list_object_versions(Bucket="locked", Prefix=key)
        return [version["VersionId"] for version in page["Versions"]]

    until(lambda: len(versions("free")) == 1)
    s3.put_object(Bucket="locked", Key="free", Body=b"3")
    until(lambda: len(versions("free")) == 1)  # so that the held one was looked at as well
    assert held["VersionId"] in versions("held")
    s3.put_object_legal_hold(
        Bucket="locked",
        Key="held",
        VersionId=held["VersionId"],
        LegalHold={"Status": "OFF"},
    )
    until(lambda: len(versions("held")) == 1)


def test_objects_move_to_the_profile_that_has_the_class(s3: Any, short_days: Up) -> None:
    admin(short_days, "profiles", "create", "cold", "3+2", "--storage-class", "GLACIER")
    make(s3, "moves", versioned=True)
    body = os.urandom(300_000)
    before = s3.put_object(Bucket="moves", Key="k", Body=body)
    rule = {"Filter": ALL, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}
    put_rules(s3, "moves", rule)

    def storage_class() -> Any:
        return s3.head_object(Bucket="moves", Key="k").get("StorageClass")

    until(lambda: storage_class() == "GLACIER")
    after = s3.get_object(Bucket="moves", Key="k")
    assert after["Body"].read() == body
    assert (after["ETag"], after["VersionId"]) == (before["ETag"], before["VersionId"])
    (entry,) = s3.list_objects_v2(Bucket="moves")["Contents"]
    assert entry["StorageClass"] == "GLACIER"


def test_nothing_goes_once_the_rules_are_removed(s3: Any) -> None:
    make(s3, "spared")
    put_rules(s3, "spared", {"Filter": {}, "Expiration": {"Days": 2}})
    s3.put_object(Bucket="spared", Key="k", Body=b"x")
    s3.delete_bucket_lifecycle(Bucket="spared")
    make(s3, "witness")
    put_rules(s3, "witness", {"Filter": {}, "Expiration": {"Days": 3}})
    s3.put_object(Bucket="witness", Key="k", Body=b"x")
    until(lambda: not names(s3, "witness"))
    assert names(s3, "spared") == ["k"]
