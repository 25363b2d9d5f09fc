"""GetBucketOwnershipControls."""


def test_a_bucket_without_them(s3, bucket, refused):
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=bucket)


def test_who_is_denied_them(http, s3, bucket):
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    assert http.request("GET", f"/{bucket}", "ownershipControls").status == 200
    assert http.send("GET", f"/{bucket}", "ownershipControls").code == "AccessDenied"


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_ownership_controls(Bucket=missing_bucket)
