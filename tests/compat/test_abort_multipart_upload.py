"""AbortMultipartUpload."""


def test_an_aborted_upload_is_gone_with_its_parts(s3, http, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    reply = http.request("DELETE", f"/{bucket}/k", f"uploadId={upload}")
    assert (reply.status, reply.body) == (204, b"")
    target = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    with refused("NoSuchUpload", 404):
        s3.list_parts(**target)
    with refused("NoSuchUpload", 404):
        s3.upload_part(**target, PartNumber=2, Body=b"late")
    with refused("NoSuchUpload", 404):
        s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_an_abort_leaves_the_object_of_that_key_alone(s3, bucket, upload_parts):
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    upload, _ = upload_parts(bucket, "k", [b"hello"])
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"there"


def test_an_upload_that_does_not_exist_is_refused(s3, bucket, refused):
    with refused("NoSuchUpload", 404):
        s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId="unknown")


def test_an_abort_of_one_upload_leaves_another_of_the_same_key(s3, bucket, upload_parts):
    first, _ = upload_parts(bucket, "k", [b"one"])
    second, parts = upload_parts(bucket, "k", [b"two"])
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=first)
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=second, MultipartUpload={"Parts": parts}
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
