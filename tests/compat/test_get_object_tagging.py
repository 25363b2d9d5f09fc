"""GetObjectTagging: the tags that PutObject, CreateMultipartUpload and CopyObject set."""

HEADER = "stage=a%20b%26%3Cc&%C3%A9="


def test_tags_of_a_put_are_read_back(s3, bucket, refused):
    # Characters that S3 does not allow in tags are refused when they are set.
    with refused("InvalidTag", 400):
        s3.put_object(Bucket=bucket, Key="k", Tagging=HEADER)
    s3.put_object(Bucket=bucket, Key="k", Tagging="stage=a%20b&%C3%A9=")
    expected = [{"Key": "stage", "Value": "a b"}, {"Key": "é", "Value": ""}]
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == expected
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2


def test_tags_of_an_upload_in_parts_are_read_back(s3, bucket, upload_parts):
    upload, parts = upload_parts(bucket, "k", [b"x"], Tagging="a=1")
    target = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]


def test_tags_are_copied_unless_they_are_replaced(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Tagging="a=1")
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="same", CopySource=source)
    s3.copy_object(
        Bucket=bucket, Key="other", CopySource=source, TaggingDirective="REPLACE", Tagging="b=2"
    )
    found = [s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] for key in ("same", "other")]
    assert found == [[{"Key": "a", "Value": "1"}], [{"Key": "b", "Value": "2"}]]


def test_a_missing_key_is_refused(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.get_object_tagging(Bucket=bucket, Key="k")
