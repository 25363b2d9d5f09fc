"""HeadObject."""

import pytest


def test_head_has_the_headers_of_get_and_no_body(http, bucket):
    http.request("PUT", f"/{bucket}/k", headers={"x-amz-meta-colour": "blue"}, body=b"hello")
    get, head = (http.request(method, f"/{bucket}/k") for method in ("GET", "HEAD"))
    volatile = {"date", "x-amz-request-id", "x-amz-id-2", "connection"}

    def steady(reply):
        return {n.lower(): v for n, v in reply.headers.items() if n.lower() not in volatile}

    assert (head.status, head.body) == (200, b"")
    assert steady(head) == steady(get)
    assert steady(head)["content-length"] == "5"


def test_a_missing_key_is_404_without_a_body(http, bucket):
    reply = http.request("HEAD", f"/{bucket}/missing")
    assert (reply.status, reply.body) == (404, b"")
    assert reply["x-amz-request-id"]


def test_a_missing_bucket_is_404(s3, missing_bucket, refused):
    with refused("404", 404):
        s3.head_object(Bucket=missing_bucket, Key="k")


def test_a_range_is_answered_with_its_length(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    found = s3.head_object(Bucket=bucket, Key="k", Range="bytes=2-4")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert found["ContentLength"] == 3
    assert found["ContentRange"] == "bytes 2-4/10"


def test_a_range_behind_the_end_is_416_without_a_body(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"hello")
    reply = http.request("HEAD", f"/{bucket}/k", headers={"range": "bytes=5-"})
    assert (reply.status, reply.body) == (416, b"")


def test_the_parts_of_a_multipart_object_are_counted(s3, bucket, upload_parts):
    bodies = [b"a" * (5 << 20), b"tail"]
    upload, parts = upload_parts(bucket, "k", bodies)
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    found = s3.head_object(Bucket=bucket, Key="k", PartNumber=2)
    assert (found["PartsCount"], found["ContentLength"]) == (2, 4)
    assert found["ContentRange"] == f"bytes {5 << 20}-{(5 << 20) + 3}/{(5 << 20) + 4}"


def test_rclone_of_old_versions_may_ask_for_the_null_version(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert s3.head_object(Bucket=bucket, Key="k", VersionId="null")["ContentLength"] == 5


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_empty_object_has_length_zero(http, bucket, method):
    http.request("PUT", f"/{bucket}/k")
    reply = http.request(method, f"/{bucket}/k")
    assert (reply.status, reply["content-length"], reply.body) == (200, "0", b"")
