"""HeadBucket."""


def test_an_existing_bucket_is_answered_with_its_region_and_no_body(http, bucket):
    reply = http.request("HEAD", f"/{bucket}")
    assert (reply.status, reply["x-amz-bucket-region"], reply.body) == (200, "us-east-1", b"")


def test_a_missing_bucket_is_404_without_a_body(http, missing_bucket):
    reply = http.request("HEAD", f"/{missing_bucket}")
    assert (reply.status, reply.body) == (404, b"")
    assert reply["x-amz-request-id"]


def test_boto3_sees_the_region_and_the_missing_bucket(s3, bucket, missing_bucket, refused):
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    with refused("404", 404):
        s3.head_bucket(Bucket=missing_bucket)


def test_a_trailing_slash_after_the_bucket_is_still_the_bucket(http, bucket):
    assert http.request("HEAD", f"/{bucket}/").status == 200


def test_a_bucket_is_answered_with_its_arn(http, bucket):
    assert http.request("HEAD", f"/{bucket}")["x-amz-bucket-arn"] == f"arn:aws:s3:::{bucket}"
