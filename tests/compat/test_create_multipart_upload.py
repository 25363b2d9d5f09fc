"""CreateMultipartUpload."""

import pytest


def test_an_upload_is_answered_with_its_id(s3, bucket):
    reply = s3.create_multipart_upload(Bucket=bucket, Key="a/ü &")
    assert (reply["Bucket"], reply["Key"]) == (bucket, "a/ü &")
    assert reply["UploadId"]


def test_the_document_is_an_initiate_multipart_upload_result(http, bucket):
    reply = http.request("POST", f"/{bucket}/k", "uploads")
    start = b'<InitiateMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    assert reply.status == 200
    assert start in reply.body


def test_two_uploads_of_one_key_have_different_ids(s3, bucket):
    first, second = (s3.create_multipart_upload(Bucket=bucket, Key="k") for _ in range(2))
    assert first["UploadId"] != second["UploadId"]


def test_an_unfinished_upload_is_no_object(s3, bucket, refused):
    s3.create_multipart_upload(Bucket=bucket, Key="k")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k")


def test_metadata_given_at_the_start_belongs_to_the_object(s3, bucket):
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(
        **target,
        ContentType="text/plain",
        CacheControl="no-cache",
        Metadata={"colour": "blue"},
        StorageClass="STANDARD_IA",
    )["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"hello")
    s3.complete_multipart_upload(
        **target,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    found = s3.head_object(**target)
    assert (found["ContentType"], found["CacheControl"]) == ("text/plain", "no-cache")
    assert (found["Metadata"], found["StorageClass"]) == ({"colour": "blue"}, "STANDARD_IA")


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE")],
)
def test_the_checksum_asked_for_is_echoed(s3, bucket, algorithm, kind):
    reply = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind
    )
    assert (reply["ChecksumAlgorithm"], reply["ChecksumType"]) == (algorithm, kind)


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")]
)
def test_a_type_that_the_algorithm_does_not_have_is_refused(s3, bucket, refused, algorithm, kind):
    with refused("InvalidRequest", 400):
        s3.create_multipart_upload(
            Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind
        )


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.create_multipart_upload(Bucket=missing_bucket, Key="k")
