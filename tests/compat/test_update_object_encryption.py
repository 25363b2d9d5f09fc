"""UpdateObjectEncryption: another key for an encrypted object, whose bytes stay where they are."""

import pytest

from tests.compat.encryption import MIB, body_of, sse_c

ARN = "arn:aws:kms:us-east-1:000000000000:key/default"
UNDER_DEFAULT = {"SSEKMS": {"KMSKeyArn": ARN, "BucketKeyEnabled": True}}
SSE_S3 = {"ServerSideEncryption": "AES256"}


@pytest.fixture
def sealed(s3, bucket):
    """An object under the store's master key."""
    s3.put_object(Bucket=bucket, Key="k", Body=body_of(100_000), **SSE_S3)
    return {"Bucket": bucket, "Key": "k"}


def test_the_key_changes_and_nothing_else(s3, sealed):
    before = s3.head_object(**sealed)
    s3.update_object_encryption(**sealed, ObjectEncryption=UNDER_DEFAULT)
    after = s3.get_object(**sealed)
    assert after["Body"].read() == body_of(100_000)
    assert (after["ServerSideEncryption"], after["SSEKMSKeyId"]) == ("aws:kms", ARN)
    assert after["BucketKeyEnabled"] is True
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    s3.update_object_encryption(**sealed, ObjectEncryption={"SSEKMS": {"KMSKeyArn": ARN}})
    assert "BucketKeyEnabled" not in s3.head_object(**sealed)
    assert s3.get_object(**sealed)["Body"].read() == body_of(100_000)


def test_a_version_and_an_object_of_parts(s3, bucket, upload_parts):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    bodies = [body_of(5 * MIB), b"end"]
    upload_id, parts = upload_parts(bucket, "k", bodies, **SSE_S3)
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": parts}
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"newer", **SSE_S3)
    version = {"Bucket": bucket, "Key": "k", "VersionId": done["VersionId"]}
    s3.update_object_encryption(**version, ObjectEncryption=UNDER_DEFAULT)
    assert s3.get_object(**version)["Body"].read() == b"".join(bodies)
    assert s3.head_object(**version)["ServerSideEncryption"] == "aws:kms"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"


def test_what_has_no_key_of_the_store(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    s3.put_object(Bucket=bucket, Key="own", Body=b"x", **sse_c())
    for key in ("plain", "own"):
        with refused("InvalidRequest", 400):
            s3.update_object_encryption(Bucket=bucket, Key=key, ObjectEncryption=UNDER_DEFAULT)


def test_bad_input(s3, http, sealed, refused):
    with refused("KMS.NotFoundException", 400):
        s3.update_object_encryption(
            **sealed, ObjectEncryption={"SSEKMS": {"KMSKeyArn": ARN + "-of-nobody"}}
        )
    with refused("NoSuchKey", 404):
        s3.update_object_encryption(**{**sealed, "Key": "missing"}, ObjectEncryption=UNDER_DEFAULT)
    path = f"/{sealed['Bucket']}/k"
    assert http.request("PUT", path, "encryption").code == "MissingRequestBodyError"
    for body in (b"<ObjectEncryption/>", b"<Other/>"):
        assert http.request("PUT", path, "encryption", body=body).code == "MalformedXML"
    assert s3.head_object(**sealed)["ServerSideEncryption"] == "AES256"


def test_somebody_else_is_denied(http, sealed):
    reply = http.send("PUT", f"/{sealed['Bucket']}/k", "encryption", body=b"<ObjectEncryption/>")
    assert (reply.status, reply.code) == (403, "AccessDenied")
