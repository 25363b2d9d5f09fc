"""CopyObject."""

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest

from compose.s3_http import quote_key

PART = 5 * 1024 * 1024


@pytest.fixture
def source(s3, bucket):
    s3.put_object(
        Bucket=bucket, Key="source", Body=b"hello", ContentType="text/plain", Metadata={"a": "1"}
    )
    return {"Bucket": bucket, "Key": "source"}


def test_a_copy_has_the_bytes_the_metadata_and_the_etag_of_its_source(s3, bucket, source):
    reply = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)["CopyObjectResult"]
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert found["Body"].read() == b"hello"
    assert (found["ContentType"], found["Metadata"]) == ("text/plain", {"a": "1"})
    assert reply["ETag"] == found["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert abs(datetime.now(UTC) - reply["LastModified"]) < timedelta(minutes=5)


@pytest.mark.parametrize("size", [0, 64 * 1024, 3 * 1024 * 1024 + 1])
def test_a_copy_survives_its_source_whatever_its_size(s3, bucket, size):
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/source")
    s3.delete_object(Bucket=bucket, Key="source")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == body


def test_a_copy_crosses_buckets(s3, source, make_bucket):
    other = make_bucket()
    s3.copy_object(Bucket=other, Key="copy", CopySource=source)
    assert s3.get_object(Bucket=other, Key="copy")["Body"].read() == b"hello"


def test_replace_takes_the_metadata_of_the_request_alone(s3, bucket, source):
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        CacheControl="no-cache",
    )
    found = s3.head_object(Bucket=bucket, Key="copy")
    assert found["Metadata"] == {"b": "2"}
    assert found["CacheControl"] == "no-cache"
    assert found["ContentType"] == "binary/octet-stream"


def test_metadata_without_replace_is_ignored(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"a": "1"}


def test_an_unknown_directive_is_refused(s3, bucket, source, refused):
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="MERGE")


def test_a_copy_onto_itself_that_changes_nothing_is_refused(s3, bucket, source, refused):
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="source", CopySource=source)


def test_a_copy_onto_itself_may_replace_the_metadata(s3, bucket, source):
    s3.copy_object(
        Bucket=bucket,
        Key="source",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"c": "3"},
    )
    found = s3.get_object(Bucket=bucket, Key="source")
    assert (found["Metadata"], found["Body"].read()) == ({"c": "3"}, b"hello")


def test_a_copy_onto_itself_may_change_the_storage_class(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="source", CopySource=source, StorageClass="STANDARD_IA")
    found = s3.head_object(Bucket=bucket, Key="source")
    assert (found["StorageClass"], found["Metadata"]) == ("STANDARD_IA", {"a": "1"})


@pytest.mark.parametrize("slash", ["", "/"], ids=["bare", "slash"])
@pytest.mark.parametrize("key", ["a b+c", "ä/ö%2Fü", "?versionId=x", "#frag;&=", "..//."])
def test_the_source_is_percent_encoded(s3, http, bucket, key, slash):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    copied = http.request(
        "PUT",
        f"/{bucket}/copy",
        headers={"x-amz-copy-source": f"{slash}{bucket}/{quote_key(key)}"},
    )
    assert copied.status == 200
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()


def test_the_null_version_of_the_source_may_be_named(s3, bucket, source):
    named = {**source, "VersionId": "null"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=named)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"hello"


@pytest.mark.parametrize("value", ["", "/", "no-key", "/no-key", "bucket/%ff", "No_Bucket/k"])
def test_a_source_that_names_no_object_is_refused(http, bucket, value):
    reply = http.request("PUT", f"/{bucket}/copy", headers={"x-amz-copy-source": value})
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert http.request("HEAD", f"/{bucket}/copy").status == 404


def test_a_missing_source_key_is_refused(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/missing")


def test_a_missing_source_bucket_is_refused(s3, bucket, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{missing_bucket}/k")


def test_a_missing_target_bucket_is_refused(s3, source, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=missing_bucket, Key="copy", CopySource=source)


def test_conditions_on_the_source_are_kept(s3, bucket, source, refused):
    etag = s3.head_object(Bucket=bucket, Key="source")["ETag"]
    hour = timedelta(hours=1)
    past, future = datetime.now(UTC) - hour, datetime.now(UTC) + hour
    failing = [
        {"CopySourceIfMatch": '"0"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfUnmodifiedSince": past},
    ]
    for condition in failing:
        with refused("PreconditionFailed", 412):
            s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **condition)
    holding = [
        {"CopySourceIfMatch": etag},
        {"CopySourceIfNoneMatch": '"0"'},
        {"CopySourceIfUnmodifiedSince": future},
        {"CopySourceIfModifiedSince": past},
        {"CopySourceIfMatch": etag, "CopySourceIfUnmodifiedSince": past},
    ]
    for condition in holding:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **condition)


def test_conditions_on_the_target_are_kept(s3, bucket, source, refused):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfMatch='"0"')


def test_the_copy_of_a_multipart_object_has_all_its_bytes(s3, bucket, upload_parts):
    bodies = [os.urandom(PART), os.urandom(PART), b"tail"]
    upload, parts = upload_parts(bucket, "source", bodies)
    s3.complete_multipart_upload(
        Bucket=bucket, Key="source", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/source")
    s3.delete_object(Bucket=bucket, Key="source")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"".join(bodies)


def test_a_copy_keeps_the_checksum_of_its_source(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="source", Body=b"hello", ChecksumAlgorithm="SHA256")
    reply = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/source")
    assert reply["CopyObjectResult"]["ChecksumSHA256"] == put["ChecksumSHA256"]


def test_a_copy_can_be_given_another_checksum(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, ChecksumAlgorithm="SHA256")
    found = s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
