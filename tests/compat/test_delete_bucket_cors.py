"""DeleteBucketCors."""


def test_the_rules_are_removed_and_their_effect_with_them(s3, http, bucket, refused):
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    for _ in range(2):
        reply = s3.delete_bucket_cors(Bucket=bucket)
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)
    headers = http.request("GET", f"/{bucket}", headers={"origin": "https://a.test"}).headers
    assert "access-control-allow-origin" not in headers
    assert "vary" not in headers


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_cors(Bucket=missing_bucket)
