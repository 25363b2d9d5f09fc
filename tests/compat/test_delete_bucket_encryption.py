"""DeleteBucketEncryption."""

from tests.compat.encryption import rule


def test_new_objects_are_plain_again_and_the_others_readable(s3, bucket, refused):
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule())
    s3.put_object(Bucket=bucket, Key="before", Body=b"before")
    for _ in range(2):
        s3.delete_bucket_encryption(Bucket=bucket)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    got = s3.get_object(Bucket=bucket, Key="before")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (b"before", "AES256")
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)


def test_somebody_else_is_denied(http, bucket):
    reply = http.send("DELETE", f"/{bucket}", "encryption")
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_encryption(Bucket=missing_bucket)
