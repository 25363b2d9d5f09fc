"""PutBucketOwnershipControls: the bucket's owner owns everything, and nothing else is offered."""

import pytest


def put(s3, bucket, *rules):
    controls = {"Rules": [{"ObjectOwnership": rule} for rule in rules]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)


def test_enforced_ownership_is_kept(s3, bucket):
    put(s3, bucket, "BucketOwnerEnforced")
    found = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert found == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("ownership", ["BucketOwnerPreferred", "ObjectWriter"])
def test_what_would_enable_lists_is_refused_rather_than_not_obeyed(s3, bucket, refused, ownership):
    with refused("NotImplemented", 501):
        put(s3, bucket, ownership)
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=bucket)


@pytest.mark.parametrize("rules", [(), ("Anything",), ("BucketOwnerEnforced",) * 2])
def test_malformed_controls_are_refused(s3, bucket, refused, rules):
    with refused("MalformedXML", 400):
        put(s3, bucket, *rules)


def test_nobody_else_may(http, bucket):
    assert http.send("PUT", f"/{bucket}", "ownershipControls").code == "AccessDenied"


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        put(s3, missing_bucket, "BucketOwnerEnforced")
