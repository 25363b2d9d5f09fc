"""RenameObject."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from compose.s3_http import quote_key

HOUR = timedelta(hours=1)
PART = 5 * 1024 * 1024


def rename(s3, bucket, source, key, **more):
    return s3.rename_object(Bucket=bucket, Key=key, RenameSource=source, **more)


def names(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.mark.parametrize("size", [0, 64 * 1024, 2 * 1024 * 1024 + 1])
def test_an_object_has_the_new_name_alone_and_stays_what_it_was(s3, bucket, size):
    body = os.urandom(size)
    s3.put_object(
        Bucket=bucket,
        Key="old",
        Body=body,
        ContentType="text/plain",
        Metadata={"a": "1"},
        Tagging="t=1",
        StorageClass="STANDARD_IA",
        ChecksumAlgorithm="SHA256",
    )
    before = s3.head_object(Bucket=bucket, Key="old", ChecksumMode="ENABLED")
    rename(s3, bucket, "old", "new")
    after = s3.head_object(Bucket=bucket, Key="new", ChecksumMode="ENABLED")
    kept = ("ETag", "LastModified", "ContentType", "Metadata", "StorageClass", "ChecksumSHA256")
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert s3.get_object_tagging(Bucket=bucket, Key="new")["TagSet"] == [{"Key": "t", "Value": "1"}]
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == body
    assert names(s3, bucket) == ["new"]


def test_the_answer_is_empty(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="old", Body=b"x")
    reply = http.request(
        "PUT", f"/{bucket}/new", "renameObject", headers={"x-amz-rename-source": "old"}
    )
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["x-amz-version-id"] is None


def test_an_object_of_parts_is_renamed(s3, bucket, upload_parts):
    bodies = [os.urandom(PART), b"tail"]
    upload, parts = upload_parts(bucket, "old", bodies)
    s3.complete_multipart_upload(
        Bucket=bucket, Key="old", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    rename(s3, bucket, "old", "dir/new")
    assert s3.get_object(Bucket=bucket, Key="dir/new")["Body"].read() == b"".join(bodies)
    assert names(s3, bucket) == ["dir/new"]


def test_what_has_the_name_is_replaced(s3, bucket):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    s3.put_object(Bucket=bucket, Key="new", Body=b"replaced")
    rename(s3, bucket, "old", "new")
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"renamed"
    assert names(s3, bucket) == ["new"]


@pytest.mark.parametrize("form", ["{key}", "/{key}", "/{bucket}/{key}"])
@pytest.mark.parametrize("key", ["a b+c", "ä/ö%2Fü", "?x&y=z", "..//."])
def test_the_source_is_percent_encoded_with_or_without_the_bucket(s3, http, bucket, key, form):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    source = form.format(bucket=bucket, key=quote_key(key))
    headers = {"x-amz-rename-source": source}
    assert http.request("PUT", f"/{bucket}/new", "renameObject", headers=headers).status == 200
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == key.encode()
    assert names(s3, bucket) == ["new"]


def test_with_versioning_the_source_is_hidden_and_the_target_gets_a_version(
    s3, http, versioned, history
):
    source = s3.put_object(Bucket=versioned, Key="old", Body=b"renamed")["VersionId"]
    replaced = s3.put_object(Bucket=versioned, Key="new", Body=b"replaced")["VersionId"]
    headers = {"x-amz-rename-source": "old"}
    reply = http.request("PUT", f"/{versioned}/new", "renameObject", headers=headers)
    made = reply["x-amz-version-id"]
    found = s3.get_object(Bucket=versioned, Key="new")
    assert (found["VersionId"], found["Body"].read()) == (made, b"renamed")
    assert s3.get_object(Bucket=versioned, Key="old", VersionId=source)["Body"].read() == b"renamed"
    shown = sorted((name, latest) for name, _, latest in history(versioned))
    assert shown == [("-old", True), ("new", False), ("new", True), ("old", False)]
    s3.delete_object(Bucket=versioned, Key="old", VersionId=source)
    s3.delete_object(Bucket=versioned, Key="new", VersionId=replaced)
    assert s3.get_object(Bucket=versioned, Key="new")["Body"].read() == b"renamed"


def test_suspended_both_get_null_versions(s3, versioned, suspend, history):
    suspend(versioned)
    s3.put_object(Bucket=versioned, Key="old", Body=b"renamed")
    rename(s3, versioned, "old", "new")
    assert sorted(history(versioned)) == [("-old", "null", True), ("new", "null", True)]


@pytest.mark.parametrize(
    "condition",
    [
        {"SourceIfMatch": '"0"'},
        {"SourceIfNoneMatch": "*"},
        {"SourceIfModifiedSince": datetime.now(UTC) + HOUR},
        {"SourceIfUnmodifiedSince": datetime.now(UTC) - HOUR},
        {"DestinationIfMatch": '"0"'},
        {"DestinationIfNoneMatch": "*"},
        {"DestinationIfModifiedSince": datetime.now(UTC) + HOUR},
        {"DestinationIfUnmodifiedSince": datetime.now(UTC) - HOUR},
    ],
    ids=lambda condition: next(iter(condition)),
)
def test_a_condition_that_does_not_hold_changes_nothing(s3, bucket, refused, condition):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    s3.put_object(Bucket=bucket, Key="new", Body=b"there")
    with refused("PreconditionFailed", 412):
        rename(s3, bucket, "old", "new", **condition)
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"there"
    assert names(s3, bucket) == ["new", "old"]


def test_conditions_that_hold_let_it_go_on(s3, bucket):
    past, future = datetime.now(UTC) - HOUR, datetime.now(UTC) + HOUR
    etag = s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")["ETag"]
    there = s3.put_object(Bucket=bucket, Key="new", Body=b"there")["ETag"]
    rename(
        s3,
        bucket,
        "old",
        "new",
        SourceIfMatch=etag,
        SourceIfUnmodifiedSince=future,
        DestinationIfMatch=there,
        DestinationIfModifiedSince=past,
    )
    rename(s3, bucket, "new", "newer", DestinationIfNoneMatch="*")
    assert names(s3, bucket) == ["newer"]


@pytest.mark.parametrize(
    "condition",
    [{"DestinationIfMatch": "*"}, {"DestinationIfModifiedSince": datetime.now(UTC) - HOUR}],
)
def test_a_target_that_must_be_there_and_is_not_is_told(s3, bucket, refused, condition):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    with refused("PreconditionFailed", 412):
        rename(s3, bucket, "old", "new", **condition)
    assert names(s3, bucket) == ["old"]


def test_a_retry_with_the_same_token_does_nothing_more(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    rename(s3, bucket, "old", "new", ClientToken="token-1")
    s3.put_object(Bucket=bucket, Key="old", Body=b"another")
    rename(s3, bucket, "old", "new", ClientToken="token-1")
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"renamed"
    assert names(s3, bucket) == ["new", "old"]
    with refused("IdempotencyParameterMismatch", 400):
        rename(s3, bucket, "old", "other", ClientToken="token-1")
    with refused("IdempotencyParameterMismatch", 400):
        rename(s3, bucket, "old", "new", ClientToken="token-1", DestinationIfNoneMatch="*")


def test_without_a_token_a_retry_finds_no_source(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    rename(s3, bucket, "old", "new")
    with refused("NoSuchKey", 404):
        rename(s3, bucket, "old", "new")
    with refused("NoSuchKey", 404):
        rename(s3, bucket, "never", "new")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "InvalidRequest"),
        ({"x-amz-rename-source": "new"}, "InvalidRequest"),
        ({"x-amz-rename-source": ""}, "InvalidArgument"),
        ({"x-amz-rename-source": "%zz"}, "InvalidArgument"),
        ({"x-amz-rename-source": "%ff"}, "InvalidArgument"),
        ({"x-amz-rename-source": "k" * 1025}, "KeyTooLongError"),
        ({"x-amz-rename-source": "old", "if-modified-since": "yesterday"}, "InvalidArgument"),
        (
            {"x-amz-rename-source": "old", "x-amz-rename-source-if-unmodified-since": "x"},
            "InvalidArgument",
        ),
        ({"x-amz-rename-source": "old", "x-amz-client-token": "t" * 65}, "InvalidArgument"),
        ({"x-amz-rename-source": "old", "x-amz-client-token": "a b"}, "InvalidArgument"),
    ],
)
def test_bad_input_is_refused(s3, http, bucket, headers, code):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    reply = http.request("PUT", f"/{bucket}/new", "renameObject", headers=headers)
    assert (reply.status, reply.code) == (400, code)
    assert names(s3, bucket) == ["old"]


def test_a_rename_without_its_parameter_writes_nothing(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="new", Body=b"there")
    reply = http.request("PUT", f"/{bucket}/new", headers={"x-amz-rename-source": "old"})
    assert (reply.status, reply.code) == (400, "InvalidRequest")
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"there"


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        rename(s3, missing_bucket, "old", "new")


ACTIONS = {
    "s3:GetObject": "old",
    "s3:DeleteObject": "old",
    "s3:GetObjectTagging": "old",
    "s3:PutObject": "new",
    "s3:PutObjectTagging": "new",
}


@pytest.mark.parametrize("denied", [None, *ACTIONS])
def test_it_needs_to_read_and_delete_the_source_and_to_write_the_target(
    s3, http, bucket, put_policy, denied
):
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed", Tagging="t=1")
    statements = [
        {"Action": action, "Resource": f"arn:aws:s3:::{bucket}/{key}"}
        for action, key in ACTIONS.items()
        if action != denied
    ]
    put_policy(bucket, *statements)
    headers = {"x-amz-rename-source": "old"}
    reply = http.send("PUT", f"/{bucket}/new", "renameObject", headers=headers)
    assert reply.status == (200 if denied is None else 403)
    assert names(s3, bucket) == (["new"] if denied is None else ["old"])


def test_of_racing_renames_of_one_source_one_wins(server, s3, bucket):
    """Over all gateways of the store, each to a name of its own, while others write these names."""
    s3.put_object(Bucket=bucket, Key="old", Body=b"renamed")
    clients = [server.client(endpoint) for endpoint in server.endpoints]

    def attempt(number):
        client = clients[number % len(clients)]
        if number % 4 == 3:
            client.put_object(Bucket=bucket, Key=f"new-{number - 1}", Body=b"put")
            return "put"
        try:
            rename(client, bucket, "old", f"new-{number}")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "renamed"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert outcomes.count("renamed") == 1
    assert set(outcomes) == {"renamed", "put", "NoSuchKey"}
    bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in names(s3, bucket)]
    # A put after the rename may have replaced what came by it.
    assert bodies.count(b"renamed") <= 1
    assert "old" not in names(s3, bucket)


def test_an_encrypted_object_is_renamed_without_its_key(s3, bucket, refused):
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": os.urandom(32)}
    body = os.urandom(200_000)
    s3.put_object(Bucket=bucket, Key="old", Body=body, **key)
    rename(s3, bucket, "old", "new")
    assert s3.get_object(Bucket=bucket, Key="new", **key)["Body"].read() == body
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="new")
