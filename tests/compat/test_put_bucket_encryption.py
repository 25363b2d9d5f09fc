"""PutBucketEncryption, and what objects get from a bucket's default."""

import pytest

from tests.compat.encryption import MIB, body_of, md5_of, rule, sse_c


@pytest.fixture
def encrypted(s3, bucket):
    """A bucket whose objects are encrypted with the store's key."""
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule())
    return bucket


def test_new_objects_are_encrypted_and_say_so(s3, encrypted):
    body = body_of(200_000)
    put = s3.put_object(Bucket=encrypted, Key="k", Body=body)
    assert put["ServerSideEncryption"] == "AES256"
    assert put["ETag"] == f'"{md5_of(body)}"'
    got = s3.get_object(Bucket=encrypted, Key="k")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (body, "AES256")
    assert s3.head_object(Bucket=encrypted, Key="k")["ServerSideEncryption"] == "AES256"


def test_objects_from_before_stay_as_they_are(s3, bucket):
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule())
    assert "ServerSideEncryption" not in s3.get_object(Bucket=bucket, Key="before")


def test_uploads_in_parts_are_encrypted(s3, encrypted, upload_parts):
    bodies = [body_of(5 * MIB), b"end"]
    created = s3.create_multipart_upload(Bucket=encrypted, Key="k")
    assert created["ServerSideEncryption"] == "AES256"
    s3.abort_multipart_upload(Bucket=encrypted, Key="k", UploadId=created["UploadId"])
    upload_id, parts = upload_parts(encrypted, "k", bodies)
    done = s3.complete_multipart_upload(
        Bucket=encrypted, Key="k", UploadId=upload_id, MultipartUpload={"Parts": parts}
    )
    assert done["ServerSideEncryption"] == "AES256"
    assert [part["ETag"] for part in parts] == [f'"{md5_of(body)}"' for body in bodies]
    assert s3.get_object(Bucket=encrypted, Key="k")["Body"].read() == b"".join(bodies)
    again = s3.get_object(Bucket=encrypted, Key="k", Range=f"bytes={5 * MIB - 1}-")
    assert again["Body"].read() == bodies[0][-1:] + b"end"


def test_the_checksum_of_an_upload_is_that_of_the_content(s3, make_bucket, upload_parts):
    bodies = [body_of(5 * MIB), b"end"]
    found = []
    for default in (None, rule()):
        bucket = make_bucket()
        if default:
            s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=default)
        upload_id, parts = upload_parts(bucket, "k", bodies)
        listed = [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts]
        s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": listed}
        )
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        found.append(
            {n: v for n, v in head.items() if n.startswith("Checksum")} | {"e": head["ETag"]}
        )
    assert found[0] == found[1]


def test_copies_into_the_bucket_are_encrypted_and_out_of_it_are_not(s3, encrypted, make_bucket):
    plain = make_bucket()
    body = body_of(100_000)
    s3.put_object(Bucket=plain, Key="k", Body=body)
    copied = s3.copy_object(Bucket=encrypted, Key="copy", CopySource=f"{plain}/k")
    assert copied["ServerSideEncryption"] == "AES256"
    within = s3.copy_object(Bucket=encrypted, Key="again", CopySource=f"{encrypted}/copy")
    assert within["ServerSideEncryption"] == "AES256"
    out = s3.copy_object(Bucket=plain, Key="out", CopySource=f"{encrypted}/again")
    assert "ServerSideEncryption" not in out
    for bucket, key in ((encrypted, "copy"), (encrypted, "again"), (plain, "out")):
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    s3.delete_object(Bucket=encrypted, Key="copy")
    assert (
        s3.get_object(Bucket=encrypted, Key="again", Range="bytes=65530-65545")["Body"].read()
        == body[65530:65546]
    )


def test_a_copy_onto_itself_encrypts(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", ServerSideEncryption="AES256")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (b"body", "AES256")


def test_a_request_may_ask_for_another_encryption(s3, encrypted):
    put = s3.put_object(Bucket=encrypted, Key="c", Body=b"x", **sse_c())
    assert "ServerSideEncryption" not in put
    put = s3.put_object(Bucket=encrypted, Key="k", Body=b"x", ServerSideEncryption="aws:kms")
    assert put["ServerSideEncryption"] == "aws:kms"


def test_a_key_of_its_own_and_the_bucket_key_flag(s3, bucket):
    configuration = rule("aws:kms", KMSMasterKeyID="default")
    configuration["Rules"][0]["BucketKeyEnabled"] = True
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert (put["ServerSideEncryption"], put["BucketKeyEnabled"]) == ("aws:kms", True)
    assert put["SSEKMSKeyId"].endswith(":key/default")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_customer_keys_can_be_blocked(s3, bucket, refused):
    configuration = rule()
    configuration["Rules"][0]["BlockedEncryptionTypes"] = {"EncryptionType": ["SSE-C"]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)
    with refused("AccessDenied", 403):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **sse_c())
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


@pytest.mark.parametrize(
    ("configuration", "code", "status"),
    [
        (rule("aws:kms:dsse"), "NotImplemented", 501),
        (rule("AES256", KMSMasterKeyID="default"), "InvalidArgument", 400),
        (rule("ROT13"), "MalformedXML", 400),
        ({"Rules": []}, "MalformedXML", 400),
        ({"Rules": rule()["Rules"] * 2}, "MalformedXML", 400),
    ],
)
def test_bad_configurations(s3, bucket, refused, configuration, code, status):
    with refused(code, status):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)


def test_somebody_else_is_denied(server, http, bucket):
    body = b"<ServerSideEncryptionConfiguration/>"
    reply = http.send("PUT", f"/{bucket}", "encryption", body=body)
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_encryption(Bucket=missing_bucket, ServerSideEncryptionConfiguration=rule())
