"""GetBucketWebsite."""


def test_every_gateway_has_the_configuration_at_once(server, s3, bucket):
    website = {"IndexDocument": {"Suffix": "index.html"}}
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
    for endpoint in server.endpoints:
        found = server.client(endpoint).get_bucket_website(Bucket=bucket)
        assert found["IndexDocument"] == website["IndexDocument"]


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_website(Bucket=missing_bucket)
