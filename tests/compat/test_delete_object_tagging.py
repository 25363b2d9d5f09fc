"""DeleteObjectTagging."""


def test_all_tags_are_removed_and_the_version_stays(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=2")
    before = s3.head_object(Bucket=bucket, Key="k")
    for _ in range(2):
        reply = s3.delete_object_tagging(Bucket=bucket, Key="k")
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    after = s3.head_object(Bucket=bucket, Key="k")
    assert "TagCount" not in after
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


def test_what_is_not_there_is_refused(s3, bucket, missing_bucket, refused):
    for name, code in ((bucket, "NoSuchKey"), (missing_bucket, "NoSuchBucket")):
        with refused(code, 404):
            s3.delete_object_tagging(Bucket=name, Key="k")
