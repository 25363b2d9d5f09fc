"""GetBucketTagging."""

TAGS = [{"Key": "a", "Value": "1"}]


def test_every_gateway_has_the_tags_at_once(server, s3, bucket):
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": TAGS})
    for endpoint in server.endpoints:
        assert server.client(endpoint).get_bucket_tagging(Bucket=bucket)["TagSet"] == TAGS


def test_an_empty_tag_set_is_none(s3, bucket, refused):
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": TAGS})
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": []})
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
