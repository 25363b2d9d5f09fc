"""GetBucketCors."""


def test_the_document_is_the_rules_in_order(s3, http, bucket):
    rules = [
        {"AllowedMethods": ["PUT", "GET"], "AllowedOrigins": ["https://<&>.test"]},
        {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "MaxAgeSeconds": 0},
    ]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    raw = http.request("GET", f"/{bucket}", "cors")
    assert raw["content-type"] == "application/xml"
    assert raw.body.count(b"<CORSRule>") == 2


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_cors(Bucket=missing_bucket)
