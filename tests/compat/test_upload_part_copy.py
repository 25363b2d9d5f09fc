"""UploadPartCopy."""

import os

import pytest

SIZE = 5 * 1024 * 1024 + 100


@pytest.fixture
def source(s3, bucket):
    body = os.urandom(SIZE)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    return body


@pytest.fixture
def target(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    return {"Bucket": bucket, "Key": "k", "UploadId": upload}


def complete(s3, target, *replies):
    parts = [
        {"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]}
        for number, reply in enumerate(replies, 1)
    ]
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    return s3.get_object(Bucket=target["Bucket"], Key=target["Key"])["Body"].read()


def test_a_part_is_copied_whole(s3, bucket, source, target):
    reply = s3.upload_part_copy(**target, PartNumber=1, CopySource=f"{bucket}/source")
    assert complete(s3, target, reply) == source


def test_ranges_of_a_source_make_an_object(s3, bucket, source, target):
    middle = 5 * 1024 * 1024
    first, second = (
        s3.upload_part_copy(
            **target, PartNumber=number, CopySource=f"{bucket}/source", CopySourceRange=span
        )
        for number, span in ((1, f"bytes=0-{middle - 1}"), (2, f"bytes={middle}-{SIZE - 1}"))
    )
    assert complete(s3, target, first, second) == source


def test_the_reply_has_etag_and_time(s3, bucket, source, target):
    reply = s3.upload_part_copy(
        **target, PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange="bytes=1-1"
    )
    [part] = s3.list_parts(**target)["Parts"]
    assert reply["CopyPartResult"]["ETag"] == part["ETag"]
    assert reply["CopyPartResult"]["LastModified"] == part["LastModified"]
    assert part["Size"] == 1


@pytest.mark.parametrize(
    "span", ["bytes=5-", "bytes=-5", "bytes=9-5", "0-5", "bytes=0-5,7-9", "bytes=a-b", "bytes=0--1"]
)
def test_a_range_that_is_not_first_and_last_is_refused(s3, bucket, source, target, refused, span):
    with refused("InvalidArgument", 400):
        s3.upload_part_copy(
            **target, PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange=span
        )
    assert "Parts" not in s3.list_parts(**target)


@pytest.mark.parametrize("span", [f"bytes=0-{SIZE}", f"bytes={SIZE}-{SIZE}"])
def test_a_range_beyond_the_source_is_refused(s3, bucket, source, target, refused, span):
    with refused("InvalidArgument", 400):
        s3.upload_part_copy(
            **target, PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange=span
        )


def test_a_missing_source_is_refused(s3, bucket, target, refused):
    with refused("NoSuchKey", 404):
        s3.upload_part_copy(**target, PartNumber=1, CopySource=f"{bucket}/missing")


def test_an_upload_that_does_not_exist_is_refused(s3, bucket, source, refused):
    with refused("NoSuchUpload", 404):
        s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId="unknown",
            PartNumber=1,
            CopySource=f"{bucket}/source",
        )


def test_conditions_on_the_source_are_kept(s3, bucket, source, target, refused):
    with refused("PreconditionFailed", 412):
        s3.upload_part_copy(
            **target, PartNumber=1, CopySource=f"{bucket}/source", CopySourceIfMatch='"0"'
        )


@pytest.mark.parametrize(
    ("header", "value", "status", "code"),
    [
        ("x-amz-source-expected-bucket-owner", "123456789012", 403, "AccessDenied"),
        (
            "x-amz-copy-source-server-side-encryption-customer-algorithm",
            *("AES256", 400, "InvalidArgument"),
        ),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", 400, "InvalidArgument"),
    ],
)
def test_what_is_said_of_the_source_must_be_true(
    http, bucket, source, target, header, value, status, code
):
    headers = {"x-amz-copy-source": f"/{bucket}/source", header: value}
    query = f"partNumber=1&uploadId={target['UploadId']}"
    reply = http.request("PUT", f"/{bucket}/{target['Key']}", query, headers=headers)
    assert (reply.status, reply.code) == (status, code)
