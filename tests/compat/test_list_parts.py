"""ListParts."""

from datetime import UTC, datetime, timedelta

import pytest


@pytest.fixture
def target(s3, bucket, upload_parts):
    upload, _ = upload_parts(bucket, "k", [b"x" * size for size in range(1, 6)])
    return {"Bucket": bucket, "Key": "k", "UploadId": upload}


def test_parts_are_listed_with_number_size_etag_and_time(s3, target):
    page = s3.list_parts(**target)
    assert [(part["PartNumber"], part["Size"]) for part in page["Parts"]] == [
        (number, number) for number in range(1, 6)
    ]
    assert page["Parts"][0]["ETag"] == '"9dd4e461268c8034f5c8564e155c67a6"'
    assert abs(datetime.now(UTC) - page["Parts"][0]["LastModified"]) < timedelta(minutes=5)
    assert (page["Bucket"], page["Key"]) == (target["Bucket"], "k")
    assert page["UploadId"] == target["UploadId"]
    assert (page["IsTruncated"], page["StorageClass"]) == (False, "STANDARD")
    assert page["Initiator"]["ID"]
    assert page["Owner"]["ID"]


def test_pages_follow_each_other(s3, target):
    first = s3.list_parts(**target, MaxParts=2)
    assert (first["IsTruncated"], first["NextPartNumberMarker"], first["MaxParts"]) == (True, 2, 2)
    second = s3.list_parts(**target, MaxParts=2, PartNumberMarker=2)
    assert [part["PartNumber"] for part in second["Parts"]] == [3, 4]
    last = s3.list_parts(**target, PartNumberMarker=second["NextPartNumberMarker"])
    assert ([part["PartNumber"] for part in last["Parts"]], last["IsTruncated"]) == ([5], False)


def test_checksums_of_the_parts_are_listed(s3, bucket):
    target = {"Bucket": bucket, "Key": "k"}
    created = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")
    target["UploadId"] = created["UploadId"]
    reply = s3.upload_part(**target, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    page = s3.list_parts(**target)
    assert (page["ChecksumAlgorithm"], page["ChecksumType"]) == ("SHA256", "COMPOSITE")
    assert page["Parts"][0]["ChecksumSHA256"] == reply["ChecksumSHA256"]


def test_an_upload_without_parts_is_listed_empty(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    page = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert "Parts" not in page
    assert page["IsTruncated"] is False


def test_an_upload_that_does_not_exist_is_refused(s3, bucket, refused):
    with refused("NoSuchUpload", 404):
        s3.list_parts(Bucket=bucket, Key="k", UploadId="unknown")


@pytest.mark.parametrize("query", ["max-parts=x", "max-parts=-1", "part-number-marker=x"])
def test_a_number_that_is_none_is_refused(http, target, query):
    reply = http.request("GET", f"/{target['Bucket']}/k", f"{query}&uploadId={target['UploadId']}")
    assert (reply.status, reply.code) == (400, "InvalidArgument")
