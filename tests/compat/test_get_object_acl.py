"""GetObjectAcl."""

OWNER = ("owner", "FULL_CONTROL")


def test_a_new_object_is_its_owners(s3, bucket, grants_of):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert grants_of(s3.get_object_acl(Bucket=bucket, Key="k")) == {OWNER}


def test_it_names_the_owner_as_listings_do(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    listed = s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]
    for found in (s3.get_object_acl(Bucket=bucket, Key="k"), s3.get_bucket_acl(Bucket=bucket)):
        assert found["Owner"] == listed
        grantee = found["Grants"][0]["Grantee"]
        assert {name: grantee[name] for name in listed} == listed


def test_every_version_has_its_own(s3, versioned, listed, grants_of):
    first = s3.put_object(Bucket=listed, Key="k", Body=b"1", ACL="public-read")["VersionId"]
    second = s3.put_object(Bucket=listed, Key="k", Body=b"2")["VersionId"]

    def read(**asked):
        return grants_of(s3.get_object_acl(Bucket=listed, Key="k", **asked))

    assert read(VersionId=first) == {OWNER, ("AllUsers", "READ")}
    assert read(VersionId=second) == read() == {OWNER}


def test_a_list_from_before_does_not_count_where_they_are_disabled(s3, listed, grants_of):
    s3.put_object(Bucket=listed, Key="k", Body=b"x", ACL="public-read")
    s3.delete_bucket_ownership_controls(Bucket=listed)
    assert grants_of(s3.get_object_acl(Bucket=listed, Key="k")) == {OWNER}


def test_who_may_read_it(http, s3, listed):
    s3.put_object(Bucket=listed, Key="k", Body=b"x", ACL="public-read")
    assert http.send("GET", f"/{listed}/k", "acl").code == "AccessDenied"
    uri = "http://acs.amazonaws.com/groups/global/AllUsers"
    s3.put_object(Bucket=listed, Key="k", Body=b"x", GrantReadACP=f"uri={uri}")
    assert http.send("GET", f"/{listed}/k", "acl").status == 200
    assert http.send("GET", f"/{listed}/k").code == "AccessDenied"


def test_what_is_not_there(s3, bucket, missing_bucket, refused):
    with refused("NoSuchKey", 404):
        s3.get_object_acl(Bucket=bucket, Key="missing")
    with refused("NoSuchBucket", 404):
        s3.get_object_acl(Bucket=missing_bucket, Key="k")


def test_a_version_id_that_is_none(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("InvalidArgument", 400):
        s3.get_object_acl(Bucket=bucket, Key="k", VersionId="nonsense")
