"""UploadPart."""

import base64
import hashlib

import pytest


@pytest.fixture
def target(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    return {"Bucket": bucket, "Key": "k", "UploadId": upload}


def parts(s3, target):
    return [(p["PartNumber"], p["Size"]) for p in s3.list_parts(**target).get("Parts", [])]


def test_a_part_is_answered_with_the_md5_of_its_bytes(s3, target):
    reply = s3.upload_part(**target, PartNumber=1, Body=b"hello")
    assert reply["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert parts(s3, target) == [(1, 5)]


def test_parts_may_come_out_of_order_and_leave_gaps(s3, target):
    for number in (10_000, 3, 7):
        s3.upload_part(**target, PartNumber=number, Body=b"x" * number)
    assert parts(s3, target) == [(3, 3), (7, 7), (10_000, 10_000)]


def test_a_part_sent_again_replaces_the_first(s3, target):
    s3.upload_part(**target, PartNumber=1, Body=b"first")
    second = s3.upload_part(**target, PartNumber=1, Body=b"second")
    assert parts(s3, target) == [(1, 6)]
    assert s3.list_parts(**target)["Parts"][0]["ETag"] == second["ETag"]


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_a_part_number_out_of_range_is_refused(s3, target, refused, number):
    with refused("InvalidArgument", 400):
        s3.upload_part(**target, PartNumber=number, Body=b"x")


def test_an_upload_that_does_not_exist_is_refused(s3, target, refused):
    for upload in ("unknown", target["UploadId"][:-1], target["UploadId"] + "0"):
        with refused("NoSuchUpload", 404):
            s3.upload_part(**{**target, "UploadId": upload}, PartNumber=1, Body=b"x")


def test_the_upload_of_another_key_is_refused(s3, target, refused):
    with refused("NoSuchUpload", 404):
        s3.upload_part(**{**target, "Key": "other"}, PartNumber=1, Body=b"x")


def test_a_wrong_content_md5_is_refused_and_no_part_is_stored(s3, target, refused):
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with refused("BadDigest", 400):
        s3.upload_part(**target, PartNumber=1, Body=b"hello", ContentMD5=wrong)
    assert parts(s3, target) == []


def test_a_wrong_checksum_is_refused_and_no_part_is_stored(s3, target, refused):
    with refused("BadDigest", 400):
        s3.upload_part(**target, PartNumber=1, Body=b"hello", ChecksumCRC32="AAAAAA==")
    assert parts(s3, target) == []


def test_the_checksum_of_a_part_is_echoed(s3, bucket):
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
    reply = s3.upload_part(
        **target, UploadId=upload, PartNumber=1, Body=b"hello", ChecksumAlgorithm="SHA256"
    )
    expected = base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    assert reply["ChecksumSHA256"] == expected


def test_a_part_over_5_gib_is_refused_before_it_is_sent(http, target):
    path = f"/{target['Bucket']}/k"
    query = f"partNumber=1&uploadId={target['UploadId']}"
    headers = {"content-length": str(5 * 1024**3 + 1), "expect": "100-continue"}
    signed, _ = http.signed_headers("PUT", path, query, headers)
    reply = http.send("PUT", path, query, headers=signed)
    assert (reply.status, reply.code) == (400, "EntityTooLarge")


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "MD5"])
def test_a_part_of_a_composite_upload_must_bring_its_checksum(s3, http, bucket, algorithm):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm)
    query = f"partNumber=1&uploadId={upload['UploadId']}"
    reply = http.request("PUT", f"/{bucket}/k", query, body=b"x")
    assert (reply.status, reply.code) == (400, "InvalidRequest")
    assert f"expected checksum Type: {algorithm.lower()}, actual".encode() in reply.body
    assert b"actual checksum Type: null" in reply.body
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload["UploadId"])
    assert "Parts" not in listed


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_a_part_of_a_full_object_upload_gets_its_checksum(s3, http, bucket, algorithm):
    upload = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT"
    )
    query = f"partNumber=1&uploadId={upload['UploadId']}"
    reply = http.request("PUT", f"/{bucket}/k", query, body=b"x")
    assert reply.status == 200
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload["UploadId"])
    header = f"x-amz-checksum-{algorithm.lower()}"
    assert listed["Parts"][0][f"Checksum{algorithm}"] == reply[header]
