"""Encryption with named keys (SSE-KMS), and who may use which."""

import json
import os
import secrets
import time
from base64 import b64encode

import boto3
import pytest
from botocore.config import Config

from compose.local import wait_until
from s3gw.admin.client import AdminClient, Refused
from tests.compat.conftest import REGION
from tests.compat.encryption import MIB, body_of, md5_of

KMS = {"ServerSideEncryption": "aws:kms"}
PROCESSES_MET = 16
CONTEXT = b64encode(json.dumps({"team": "blue"}).encode()).decode()


@pytest.fixture(scope="session")
def admin(server):
    """The admin API, which only a store of our own has."""
    address = server.admin or os.environ["S3_ADMIN"]
    client = AdminClient(
        address.removeprefix("http://"), server.access_key, server.secret_key, REGION
    )
    yield client
    client.close()


@pytest.fixture
def key(admin):
    """A new named key."""
    name = f"key-{secrets.token_hex(6)}"
    admin.call("POST", "/admin/kms/keys", {"name": name})
    return name


@pytest.mark.parametrize("size", [0, 1, 65_537, 2 * MIB + 3])
def test_an_object_under_a_named_key(s3, bucket, key, size):
    body = body_of(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **KMS, SSEKMSKeyId=key)
    arn = f"arn:aws:kms:us-east-1:000000000000:key/{key}"
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", arn)
    assert put["ETag"].strip('"') != md5_of(body)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["SSEKMSKeyId"], got["ETag"]) == (body, arn, put["ETag"])
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", arn)


def test_a_key_is_known_by_its_name_its_alias_and_its_arn(s3, bucket, key, refused):
    arn = f"arn:aws:kms:us-east-1:000000000000:key/{key}"
    for name in (key, f"alias/{key}", arn, arn.replace("key/", "alias/", 1)):
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **KMS, SSEKMSKeyId=name)
        assert put["SSEKMSKeyId"] == arn
    for name in ("no-such-key", "arn:aws:kms:us-east-1:999999999999:key/" + key, "../x", "a/b"):
        with refused("KMS.NotFoundException", 400):
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", **KMS, SSEKMSKeyId=name)


def test_without_a_name_it_is_the_default_key(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **KMS, BucketKeyEnabled=True)
    assert put["SSEKMSKeyId"].endswith(":key/default")
    assert put["BucketKeyEnabled"] is True
    assert s3.head_object(Bucket=bucket, Key="k")["BucketKeyEnabled"] is True


def test_the_encryption_context_is_bound_and_told(s3, bucket, key, refused):
    asked = {**KMS, "SSEKMSKeyId": key}
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **asked, SSEKMSEncryptionContext=CONTEXT)
    assert put["SSEKMSEncryptionContext"] == CONTEXT
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    for bad in ("not base64!", b64encode(b"[]").decode(), b64encode(b'{"a": 1}').decode()):
        with refused("InvalidArgument", 400):
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", **asked, SSEKMSEncryptionContext=bad)


def test_a_rotated_key_opens_what_it_wrapped_before(s3, bucket, key, admin):
    s3.put_object(Bucket=bucket, Key="before", Body=b"before", **KMS, SSEKMSKeyId=key)
    assert admin.call("POST", f"/admin/kms/keys/{key}/rotate")["versions"] == 2
    s3.put_object(Bucket=bucket, Key="after", Body=b"after", **KMS, SSEKMSKeyId=key)
    for name in ("before", "after"):
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == name.encode()


def test_a_disabled_key_neither_seals_nor_opens(s3, bucket, key, admin, refused):
    asked = {**KMS, "SSEKMSKeyId": key}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **asked)
    admin.call("POST", f"/admin/kms/keys/{key}/disable")
    with refused("KMS.DisabledException", 400):
        s3.get_object(Bucket=bucket, Key="k")
    with refused("KMS.DisabledException", 400):
        s3.put_object(Bucket=bucket, Key="n", Body=b"x", **asked)
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 1
    admin.call("POST", f"/admin/kms/keys/{key}/enable")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_key_that_waits_for_its_deletion_can_be_taken_back(s3, bucket, key, admin, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **KMS, SSEKMSKeyId=key)
    answer = admin.call("POST", f"/admin/kms/keys/{key}/delete", {"days": 7})
    assert answer["state"] == "pending"
    days = (answer["delete_after_ms"] / 1000 - time.time()) / 86_400
    assert 6.9 < days <= 7.1
    with refused("KMS.KMSInvalidStateException", 400):
        s3.get_object(Bucket=bucket, Key="k")
    admin.call("POST", f"/admin/kms/keys/{key}/enable")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    with pytest.raises(Refused):
        admin.call("POST", f"/admin/kms/keys/{key}/delete", {"days": 1})


def test_parts_under_a_named_key(s3, bucket, key, admin, refused):
    asked = {**KMS, "SSEKMSKeyId": key}
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", **asked)
    assert created["SSEKMSKeyId"].endswith(key)
    target = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    admin.call("POST", f"/admin/kms/keys/{key}/rotate")
    bodies = [body_of(5 * MIB), b"end"]
    parts = []
    for number, body in enumerate(bodies, 1):
        part = s3.upload_part(**target, PartNumber=number, Body=body)
        assert part["ServerSideEncryption"] == "aws:kms"
        sums = {name: value for name, value in part.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": part["ETag"], **sums})
    done = s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    assert done["SSEKMSKeyId"].endswith(key)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(bodies)
    admin.call("POST", f"/admin/kms/keys/{key}/disable")
    with refused("KMS.DisabledException", 400):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=2)


def test_copies_between_keys(s3, bucket, key, admin, refused):
    other = f"{key}-other"
    admin.call("POST", "/admin/kms/keys", {"name": other})
    body = body_of(100_000)
    source = s3.put_object(Bucket=bucket, Key="k", Body=body, **KMS, SSEKMSKeyId=key)
    copies = {"same": key, "other": other, "none": ""}
    for name, under in copies.items():
        asked = {**KMS, "SSEKMSKeyId": under} if under else {}
        copied = s3.copy_object(Bucket=bucket, Key=name, CopySource=f"{bucket}/k", **asked)
        assert copied.get("SSEKMSKeyId", "").endswith(under)
        same_etag = copied["CopyObjectResult"]["ETag"] == source["ETag"]
        assert same_etag == (under == key)
    admin.call("POST", f"/admin/kms/keys/{key}/disable")
    for name in ("other", "none"):
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == body
    with refused("KMS.DisabledException", 400):
        s3.get_object(Bucket=bucket, Key="same")
    for asked in ({}, {**KMS, "SSEKMSKeyId": key}, {**KMS, "SSEKMSKeyId": other}):
        with refused("KMS.DisabledException", 400):
            s3.copy_object(Bucket=bucket, Key="again", CopySource=f"{bucket}/k", **asked)
    with refused("KMS.DisabledException", 400):
        again = {**KMS, "SSEKMSKeyId": key}
        s3.copy_object(Bucket=bucket, Key="again", CopySource=f"{bucket}/other", **again)


def test_no_part_is_copied_under_a_key_that_is_disabled(s3, bucket, key, admin, refused):
    """Neither of what is sealed with it, which would be shared as it lies, nor into an upload."""
    sealed = {**KMS, "SSEKMSKeyId": key}
    s3.put_object(Bucket=bucket, Key="sealed", Body=b"x", **sealed)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    uploads = [s3.create_multipart_upload(Bucket=bucket, Key="k", **sealed)]
    uploads.append(s3.create_multipart_upload(Bucket=bucket, Key="k"))

    def copy(source, upload):
        target = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
        return s3.upload_part_copy(**target, PartNumber=1, CopySource=f"{bucket}/{source}")

    copy("sealed", uploads[0])
    admin.call("POST", f"/admin/kms/keys/{key}/disable")
    for source, upload in (("sealed", uploads[0]), ("plain", uploads[0]), ("sealed", uploads[1])):
        with refused("KMS.DisabledException", 400):
            copy(source, upload)
    admin.call("POST", f"/admin/kms/keys/{key}/enable")
    copy("sealed", uploads[0])


def test_a_user_needs_permission_for_the_key(server, s3, bucket, key):
    body = {"Version": "2012-10-17"}
    arn = f"arn:aws:kms:us-east-1:000000000000:key/{key}"
    objects = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    seal = {"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": arn}
    opens = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": arn}
    session = boto3.session.Session()
    common = {"endpoint_url": server.endpoint, "region_name": REGION}
    root = {
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
    }
    iam = session.client("iam", **common, **root)
    name = f"user-{secrets.token_hex(6)}"
    iam.create_user(UserName=name)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    once = Config(retries={"total_max_attempts": 1})
    user = session.client(
        "s3",
        **common,
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        config=once,
    )

    def status(call, **asked):
        try:
            return call(Bucket=bucket, Key="k", **asked)["ResponseMetadata"]["HTTPStatusCode"]
        except user.exceptions.ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]

    def put():
        return status(user.put_object, Body=b"x", **KMS, SSEKMSKeyId=key)

    def get():
        return status(user.get_object)

    def may(*statements):
        document = json.dumps({**body, "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)

    def become(expected_put, expected_get):
        """Every process knows the policy within a second: many answers in a row are as expected."""
        wait_until(
            lambda: all(
                (put(), get()) == (expected_put, expected_get) for _ in range(PROCESSES_MET)
            ),
            what=f"answers {expected_put} and {expected_get}",
        )

    try:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **KMS, SSEKMSKeyId=key)
        may(objects)
        become(403, 403)
        may(objects, seal)
        become(200, 403)
        may(objects, opens)
        become(403, 200)
        may(objects, seal, opens)
        become(200, 200)
    finally:
        iam.delete_user_policy(UserName=name, PolicyName="p")
        iam.delete_access_key(UserName=name, AccessKeyId=made["AccessKeyId"])
        iam.delete_user(UserName=name)


def test_compression_of_a_bucket_is_no_matter_of_its_clients(s3, bucket, admin):
    path = f"/admin/buckets/{bucket}/compression"
    text = b"".join(b"line %d of a log\n" % number for number in range(60_000))
    assert admin.call("GET", path)["compression"] == ""
    plain = s3.put_object(Bucket=bucket, Key="before", Body=text)
    admin.call("PUT", path, {"compression": "zstd"})
    for extra in ({}, {"ServerSideEncryption": "AES256"}):
        put = s3.put_object(Bucket=bucket, Key="k", Body=text, **extra)
        assert (put["ETag"], put["ChecksumCRC32"]) == (plain["ETag"], plain["ChecksumCRC32"])
        got = s3.get_object(Bucket=bucket, Key="k")
        assert got["Body"].read() == text
        assert got["ContentLength"] == len(text)
        for first, last in ((0, 9), (262_140, 262_150), (len(text) - 5, len(text) - 1)):
            part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")
            assert part["Body"].read() == text[first : last + 1]
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k", **extra)
        assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == text
    noise = body_of(300_000)
    s3.put_object(Bucket=bucket, Key="noise", Body=noise)
    assert (
        s3.get_object(Bucket=bucket, Key="noise", Range="bytes=9-19")["Body"].read()
        == (noise[9:20])
    )
    created = s3.create_multipart_upload(Bucket=bucket, Key="parts")
    target = {"Bucket": bucket, "Key": "parts", "UploadId": created["UploadId"]}
    bodies, parts = [text * 6, noise, text], []
    for number, part in enumerate([bodies[0], bodies[0], bodies[2]], 1):
        reply = s3.upload_part(**target, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": reply["ETag"]})
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    whole = bodies[0] * 2 + bodies[2]
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == whole
    border = len(bodies[0])
    got = s3.get_object(Bucket=bucket, Key="parts", Range=f"bytes={border - 5}-{border + 5}")
    assert got["Body"].read() == whole[border - 5 : border + 6]
    with pytest.raises(Refused):
        admin.call("PUT", path, {"compression": "lzma"})
