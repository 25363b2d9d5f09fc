"""GetBucketEncryption."""

CONFIGURATION = {
    "Rules": [
        {
            "ApplyServerSideEncryptionByDefault": {
                "SSEAlgorithm": "aws:kms",
                "KMSMasterKeyID": "default",
            },
            "BucketKeyEnabled": True,
        }
    ]
}


def test_the_configuration_is_given_back(s3, bucket):
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=CONFIGURATION)
    found = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    assert found == CONFIGURATION


def test_a_bucket_without_one(s3, bucket, refused):
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)


def test_somebody_else_is_denied(http, bucket):
    reply = http.send("GET", f"/{bucket}", "encryption")
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_encryption(Bucket=missing_bucket)
