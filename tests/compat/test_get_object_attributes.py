"""GetObjectAttributes."""

import base64
import zlib

import pytest

ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def test_all_attributes_of_a_simple_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert found["ETag"] == "5d41402abc4b2a76b9719d911017c592"
    assert (found["ObjectSize"], found["StorageClass"]) == (5, "STANDARD")
    crc = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()
    assert found["Checksum"] == {"ChecksumCRC32": crc, "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in found
    assert found["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


@pytest.mark.parametrize("attribute", ["ETag", "StorageClass", "ObjectSize"])
def test_only_what_was_asked_for_is_returned(s3, bucket, attribute):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=[attribute])
    assert [name for name in ALL if name in found] == [attribute]


def test_the_parts_of_a_multipart_object_are_paged(s3, bucket, upload_parts):
    sizes = [5 << 20, 5 << 20, 7]
    upload, parts = upload_parts(
        bucket, "k", [b"a" * size for size in sizes], ChecksumAlgorithm="SHA256"
    )
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    target = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ObjectParts", "Checksum"]}
    first = s3.get_object_attributes(**target, MaxParts=2)["ObjectParts"]
    assert (first["TotalPartsCount"], first["IsTruncated"]) == (3, True)
    assert [part["Size"] for part in first["Parts"]] == sizes[:2]
    assert first["Parts"][0]["ChecksumSHA256"] == parts[0]["ChecksumSHA256"]
    rest = s3.get_object_attributes(**target, PartNumberMarker=first["NextPartNumberMarker"])
    assert [part["PartNumber"] for part in rest["ObjectParts"]["Parts"]] == [3]
    assert rest["ObjectParts"]["IsTruncated"] is False
    assert rest["Checksum"]["ChecksumType"] == "COMPOSITE"
    none = s3.get_object_attributes(**target, MaxParts=0)["ObjectParts"]
    assert ("Parts" in none, none["IsTruncated"]) == (False, False)


def test_an_unknown_attribute_is_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    with refused("InvalidArgument", 400):
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Weight"])


def test_a_missing_key_is_refused(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_object_attributes(Bucket=missing_bucket, Key="k", ObjectAttributes=ALL)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "InvalidRequest"),
        ({"x-amz-object-attributes": " , "}, "InvalidRequest"),
        ({"x-amz-object-attributes": "ETag,Owner"}, "InvalidArgument"),
    ],
)
def test_attributes_that_are_missing_or_unknown_are_refused(s3, http, bucket, headers, code):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    reply = http.request("GET", f"/{bucket}/k", "attributes", headers=headers)
    assert (reply.status, reply.code) == (400, code)
