"""DeleteObject."""

from datetime import timedelta


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
