"""DeleteBucketOwnershipControls."""

CONTROLS = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def test_they_are_gone(http, s3, bucket, refused):
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=CONTROLS)
    reply = http.request("DELETE", f"/{bucket}", "ownershipControls")
    assert (reply.status, reply.body) == (204, b"")
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=bucket)


def test_where_there_are_none_it_succeeds_too(http, bucket):
    assert http.request("DELETE", f"/{bucket}", "ownershipControls").status == 204


def test_nobody_else_may(http, s3, bucket):
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=CONTROLS)
    assert http.send("DELETE", f"/{bucket}", "ownershipControls").code == "AccessDenied"
    s3.get_bucket_ownership_controls(Bucket=bucket)


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_ownership_controls(Bucket=missing_bucket)
