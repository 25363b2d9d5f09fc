"""GetBucketAcl."""

OWNER = ("owner", "FULL_CONTROL")


def test_a_new_bucket_is_its_owners(s3, bucket, grants_of):
    assert grants_of(s3.get_bucket_acl(Bucket=bucket)) == {OWNER}


def test_a_list_from_before_does_not_count_where_they_are_disabled(s3, listed, grants_of):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    s3.delete_bucket_ownership_controls(Bucket=listed)
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == {OWNER}
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=listed, OwnershipControls=controls)
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == {OWNER, ("AllUsers", "READ")}


def test_who_may_read_it(http, s3, listed):
    assert http.send("GET", f"/{listed}", "acl").code == "AccessDenied"
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    assert http.send("GET", f"/{listed}", "acl").code == "AccessDenied"
    s3.put_bucket_acl(
        Bucket=listed, GrantReadACP='uri="http://acs.amazonaws.com/groups/global/AllUsers"'
    )
    assert b"READ_ACP" in http.send("GET", f"/{listed}", "acl").body


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_acl(Bucket=missing_bucket)
