"""DeleteObject."""

from datetime import UTC, datetime, timedelta

import pytest


def test_a_deleted_object_is_gone_from_reads_and_listings(s3, http, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reply = http.request("DELETE", f"/{bucket}/k")
    assert (reply.status, reply.body) == (204, b"")
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="k")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_deleting_a_missing_key_succeeds(http, bucket):
    assert http.request("DELETE", f"/{bucket}/never").status == 204


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_object(Bucket=missing_bucket, Key="k")


def test_only_the_named_key_is_deleted(s3, bucket):
    for key in ("a", "a/", "a/b", "ab"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a/")
    found = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert found == ["a", "a/b", "ab"]


def test_an_unversioned_bucket_reports_no_version_and_no_marker(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reply = s3.delete_object(Bucket=bucket, Key="k")
    assert "VersionId" not in reply
    assert "DeleteMarker" not in reply


def test_a_delete_if_the_etag_matches(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch='"0123456789abcdef0123456789abcdef"')
    s3.head_object(Bucket=bucket, Key="k")
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k")


def test_a_delete_if_anything_is_there(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k", IfMatch="*")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_delete_if_the_size_matches(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"four")
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatchSize=5)
    s3.delete_object(Bucket=bucket, Key="k", IfMatchSize=4)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_delete_if_the_time_of_modification_matches(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(
            Bucket=bucket, Key="k", IfMatchLastModifiedTime=modified - timedelta(seconds=5)
        )
    s3.delete_object(Bucket=bucket, Key="k", IfMatchLastModifiedTime=modified)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_condition_about_what_is_not_there(s3, bucket, refused):
    """404 where something must match; size and time are no matter: it is gone."""
    for etag in ("*", '"0123456789abcdef0123456789abcdef"'):
        with refused("NoSuchKey", 404):
            s3.delete_object(Bucket=bucket, Key="never", IfMatch=etag)
    modified = datetime.now(UTC)
    for condition in ({"IfMatchSize": 4}, {"IfMatchLastModifiedTime": modified}):
        reply = s3.delete_object(Bucket=bucket, Key="never", **condition)
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_all_conditions_must_hold(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"four")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    right = {"IfMatch": etag, "IfMatchSize": 4, "IfMatchLastModifiedTime": modified}
    wrong = {"IfMatch": '"0"', "IfMatchSize": 5, "IfMatchLastModifiedTime": datetime.now(UTC)}
    wrong["IfMatchLastModifiedTime"] += timedelta(hours=1)
    for name, value in wrong.items():
        with refused("PreconditionFailed", 412):
            s3.delete_object(Bucket=bucket, Key="k", **{**right, name: value})
    s3.delete_object(Bucket=bucket, Key="k", **right)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-amz-if-match-size": "-1"}, 400, "InvalidArgument"),
        ({"x-amz-if-match-size": "four"}, 400, "InvalidArgument"),
        ({"x-amz-if-match-last-modified-time": "yesterday"}, 400, "InvalidArgument"),
        ({"if-none-match": "*"}, 501, "NotImplemented"),
        ({"if-unmodified-since": "Fri, 24 May 2013 00:00:00 GMT"}, 501, "NotImplemented"),
    ],
)
def test_a_condition_that_makes_no_sense_is_not_ignored(s3, http, bucket, headers, status, code):
    s3.put_object(Bucket=bucket, Key="k", Body=b"four")
    reply = http.request("DELETE", f"/{bucket}/k", headers=headers)
    assert (reply.status, reply.code) == (status, code)
    s3.head_object(Bucket=bucket, Key="k")


def test_a_condition_needs_the_right_to_read_unless_it_asks_for_existence(
    s3, http, bucket, put_policy
):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"four")["ETag"]
    put_policy(bucket, {"Action": "s3:DeleteObject"})
    for headers in ({"if-match": etag}, {"x-amz-if-match-size": "4"}):
        assert http.send("DELETE", f"/{bucket}/k", headers=headers).status == 403
    assert http.send("DELETE", f"/{bucket}/k", headers={"if-match": "*"}).status == 204
    s3.put_object(Bucket=bucket, Key="k", Body=b"four")
    put_policy(bucket, {"Action": ["s3:DeleteObject", "s3:GetObject"]})
    assert http.send("DELETE", f"/{bucket}/k", headers={"if-match": etag}).status == 204
