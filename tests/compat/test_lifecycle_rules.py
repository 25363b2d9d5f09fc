"""Lifecycle rules at work in a running store, whose days last two seconds."""

import os
import subprocess
import sys
import time

import pytest

from compose.local import Credentials, Up, running
from tests.compat.conftest import Server

pytestmark = pytest.mark.skipif(
    "S3_ENDPOINT" in os.environ, reason="another server's days are not two seconds long"
)
DAY_SECONDS = 2
PATIENCE_SECONDS = 60
ALL = {"ObjectSizeGreaterThan": 0}


@pytest.fixture(scope="module")
def short_days(tmp_path_factory):
    credentials = Credentials.generate()
    environment = {
        "S3GW_LIFECYCLE_DAY_SECONDS": str(DAY_SECONDS),
        "S3GW_LIFECYCLE_INTERVAL_SECONDS": "0.2",
        "S3GW_WORKER_INTERVAL_SECONDS": "0.2",
    }
    directory = tmp_path_factory.mktemp("short-days") / "store"
    up = Up(directory, credentials=credentials, environment=environment)
    with running(up):
        yield up, Server(up.endpoints, credentials.access_key, credentials.secret_key)


@pytest.fixture(scope="module")
def s3(short_days):
    return short_days[1].client()


def admin(up, *words):
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


def until(what):
    """Poll until something is so; what it answered."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.1)
    return found


def names(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def put_rules(s3, bucket, *rules):
    filled = [{"ID": str(n), "Status": "Enabled", **rule} for n, rule in enumerate(rules)]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": filled})


def make(s3, name, *, versioned=False, **more):
    s3.create_bucket(Bucket=name, **more)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def test_objects_expire_and_others_stay(s3):
    make(s3, "expires")
    s3.put_object(Bucket="expires", Key="tmp/before", Body=b"x")
    put_rules(s3, "expires", {"Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}})
    s3.put_object(Bucket="expires", Key="tmp/after", Body=b"x")
    s3.put_object(Bucket="expires", Key="stays", Body=b"x")
    until(lambda: names(s3, "expires") == ["stays"])
    s3.delete_object(Bucket="expires", Key="stays")
    s3.delete_bucket(Bucket="expires")


def test_a_versioned_bucket_is_cleaned_up_to_the_last_marker(s3):
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

    def is_empty():
        page = s3.list_object_versions(Bucket="versions")
        return not page.get("Versions") and not page.get("DeleteMarkers")

    until(is_empty)
    s3.delete_bucket(Bucket="versions")


def test_uploads_that_nobody_ends_are_aborted(s3):
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


def test_a_locked_version_stays_and_others_go(s3):
    make(s3, "locked", ObjectLockEnabledForBucket=True)
    put_rules(s3, "locked", {"Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}})
    held = s3.put_object(Bucket="locked", Key="held", Body=b"1", ObjectLockLegalHoldStatus="ON")
    s3.put_object(Bucket="locked", Key="free", Body=b"1")
    for key in ("held", "free"):
        s3.put_object(Bucket="locked", Key=key, Body=b"2")

    def versions(key):
        page = s3.list_object_versions(Bucket="locked", Prefix=key)
        return [version["VersionId"] for version in page["Versions"]]

    until(lambda: len(versions("free")) == 1)
    time.sleep(2 * DAY_SECONDS)  # it would be removed by now
    assert held["VersionId"] in versions("held")
    s3.put_object_legal_hold(
        Bucket="locked",
        Key="held",
        VersionId=held["VersionId"],
        LegalHold={"Status": "OFF"},
    )
    until(lambda: len(versions("held")) == 1)


def test_objects_move_to_the_profile_that_has_the_class(s3, short_days):
    up, _ = short_days
    admin(up, "profiles", "create", "cold", "3+2", "--storage-class", "GLACIER")
    make(s3, "moves", versioned=True)
    body = os.urandom(300_000)
    before = s3.put_object(Bucket="moves", Key="k", Body=body)
    rule = {"Filter": ALL, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}
    put_rules(s3, "moves", rule)

    def storage_class():
        return s3.head_object(Bucket="moves", Key="k").get("StorageClass")

    until(lambda: storage_class() == "GLACIER")
    after = s3.get_object(Bucket="moves", Key="k")
    assert after["Body"].read() == body
    assert (after["ETag"], after["VersionId"]) == (before["ETag"], before["VersionId"])
    (entry,) = s3.list_objects_v2(Bucket="moves")["Contents"]
    assert entry["StorageClass"] == "GLACIER"


def test_nothing_goes_once_the_rules_are_removed(s3):
    make(s3, "spared")
    put_rules(s3, "spared", {"Filter": {}, "Expiration": {"Days": 2}})
    s3.put_object(Bucket="spared", Key="k", Body=b"x")
    s3.delete_bucket_lifecycle(Bucket="spared")
    time.sleep(3 * DAY_SECONDS)
    assert names(s3, "spared") == ["k"]
