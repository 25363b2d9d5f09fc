"""PutBucketOwnershipControls: whether access control lists count."""

import pytest


def put(s3, bucket, *rules):
    controls = {"Rules": [{"ObjectOwnership": rule} for rule in rules]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)


def test_enforced_ownership_is_kept(s3, bucket):
    put(s3, bucket, "BucketOwnerEnforced")
    found = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert found == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("ownership", ["BucketOwnerPreferred", "ObjectWriter"])
def test_the_other_settings_enable_lists(s3, http, bucket, refused, ownership):
    with refused("AccessControlListNotSupported", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    put(s3, bucket, ownership)
    found = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert found == {"Rules": [{"ObjectOwnership": ownership}]}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    assert http.send("GET", f"/{bucket}/k").status == 200
    put(s3, bucket, "BucketOwnerEnforced")
    assert http.send("GET", f"/{bucket}/k").code == "AccessDenied"
    put(s3, bucket, ownership)
    assert http.send("GET", f"/{bucket}/k").status == 200


def test_lists_are_not_disabled_while_the_buckets_own_grants_something(s3, listed, refused):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        put(s3, listed, "BucketOwnerEnforced")
    s3.put_bucket_acl(Bucket=listed, ACL="private")
    put(s3, listed, "BucketOwnerEnforced")


@pytest.mark.parametrize("rules", [(), ("Anything",), ("BucketOwnerEnforced",) * 2])
def test_malformed_controls_are_refused(s3, bucket, refused, rules):
    with refused("MalformedXML", 400):
        put(s3, bucket, *rules)


def test_nobody_else_may(http, bucket):
    assert http.send("PUT", f"/{bucket}", "ownershipControls").code == "AccessDenied"


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        put(s3, missing_bucket, "BucketOwnerEnforced")
