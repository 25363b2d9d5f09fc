"""PutObjectAcl, and the lists that objects are written with."""

import pytest

from tests.compat.conftest import ALL_USERS

OWNER = ("owner", "FULL_CONTROL")
EVERYONE = ("AllUsers", "READ")
CANNED = {
    "private": set(),
    "public-read": {EVERYONE},
    "public-read-write": {EVERYONE, ("AllUsers", "WRITE")},
    "authenticated-read": {("AuthenticatedUsers", "READ")},
    "bucket-owner-read": set(),
    "bucket-owner-full-control": set(),
}


@pytest.fixture
def key(s3, listed):
    s3.put_object(Bucket=listed, Key="k", Body=b"content")
    return f"/{listed}/k"


@pytest.mark.parametrize("name", CANNED)
def test_canned_lists(s3, listed, key, grants_of, name):
    s3.put_object_acl(Bucket=listed, Key="k", ACL=name)
    assert grants_of(s3.get_object_acl(Bucket=listed, Key="k")) == {OWNER, *CANNED[name]}


def test_a_list_for_buckets_is_refused(s3, listed, key, refused):
    with refused("InvalidArgument", 400):
        s3.put_object_acl(Bucket=listed, Key="k", ACL="log-delivery-write")


def test_a_public_object_is_read_by_everybody(http, s3, listed, key):
    assert http.send("GET", key).code == "AccessDenied"
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    assert http.send("GET", key).body == b"content"
    assert http.send("HEAD", key).status == 200
    assert http.send("GET", key, "tagging").code == "AccessDenied"
    assert http.send("PUT", key, body=b"x").code == "AccessDenied"
    assert http.send("GET", f"/{listed}").code == "AccessDenied"
    s3.put_object_acl(Bucket=listed, Key="k", ACL="private")
    assert http.send("GET", key).code == "AccessDenied"


def test_a_signed_reader_is_not_everybody(http, s3, listed, key):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="authenticated-read")
    assert http.send("GET", key).code == "AccessDenied"
    assert http.request("GET", key).status == 200


def test_nothing_but_the_list_changes(s3, listed, key):
    before = s3.head_object(Bucket=listed, Key="k")
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    after = s3.head_object(Bucket=listed, Key="k")
    for name in ("ETag", "LastModified", "ContentLength", "ContentType"):
        assert after[name] == before[name]


def test_a_version_is_changed_alone(http, s3, versioned, listed):
    first = s3.put_object(Bucket=listed, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=listed, Key="k", Body=b"2")
    s3.put_object_acl(Bucket=listed, Key="k", VersionId=first, ACL="public-read")
    assert http.send("GET", f"/{listed}/k", f"versionId={first}").body == b"1"
    assert http.send("GET", f"/{listed}/k").code == "AccessDenied"


def test_objects_are_written_with_lists(http, s3, listed, upload_parts, grants_of):
    s3.put_object(Bucket=listed, Key="put", Body=b"x", ACL="public-read")
    upload, parts = upload_parts(listed, "parts", [b"x"], GrantRead=f"uri={ALL_USERS}")
    s3.complete_multipart_upload(
        Bucket=listed, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    source = {"Bucket": listed, "Key": "put"}
    s3.copy_object(Bucket=listed, Key="copied", CopySource=source, ACL="public-read")
    for name in ("put", "parts", "copied"):
        assert http.send("GET", f"/{listed}/{name}").status == 200
        assert EVERYONE in grants_of(s3.get_object_acl(Bucket=listed, Key=name))
    assert grants_of(s3.get_object_acl(Bucket=listed, Key="parts")) == {EVERYONE}


@pytest.mark.parametrize("directive", ["COPY", "REPLACE"])
def test_a_copy_does_not_take_the_list_along(http, s3, listed, directive):
    s3.put_object(Bucket=listed, Key="put", Body=b"x", ACL="public-read")
    source = {"Bucket": listed, "Key": "put"}
    s3.copy_object(Bucket=listed, Key="copy", CopySource=source, MetadataDirective=directive)
    assert http.send("GET", f"/{listed}/copy").code == "AccessDenied"


def test_a_new_object_does_not_take_the_old_ones_list(http, s3, listed, key):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    s3.put_object(Bucket=listed, Key="k", Body=b"secret")
    assert http.send("GET", key).code == "AccessDenied"


def test_a_document_as_read_can_be_written(s3, listed, key, grants_of):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    found = s3.get_object_acl(Bucket=listed, Key="k")
    s3.put_object_acl(Bucket=listed, Key="k", ACL="private")
    policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
    s3.put_object_acl(Bucket=listed, Key="k", AccessControlPolicy=policy)
    assert grants_of(s3.get_object_acl(Bucket=listed, Key="k")) == {OWNER, EVERYONE}


def test_public_lists_are_refused_or_ignored_where_that_is_blocked(http, s3, listed, key, refused):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    block = {"BlockPublicAcls": True}
    s3.put_public_access_block(Bucket=listed, PublicAccessBlockConfiguration=block)
    assert http.send("GET", key).status == 200
    public = {"Bucket": listed, "Key": "new", "ACL": "public-read"}
    with refused("AccessDenied", 403):
        s3.put_object(**public, Body=b"x")
    with refused("AccessDenied", 403):
        s3.create_multipart_upload(**public)
    with refused("AccessDenied", 403):
        s3.copy_object(**public, CopySource={"Bucket": listed, "Key": "k"})
    with refused("AccessDenied", 403):
        s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read-write")
    s3.put_object(Bucket=listed, Key="new", Body=b"x", ACL="bucket-owner-full-control")
    block = {"IgnorePublicAcls": True}
    s3.put_public_access_block(Bucket=listed, PublicAccessBlockConfiguration=block)
    assert http.send("GET", key).code == "AccessDenied"
    s3.put_object(**public, Body=b"x")
    assert http.send("GET", f"/{listed}/new").code == "AccessDenied"


def test_a_policy_that_denies_wins(http, s3, listed, key, put_policy):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    put_policy(listed, {"Effect": "Deny"})
    assert http.send("GET", key).code == "AccessDenied"
    s3.delete_bucket_policy(Bucket=listed)
    assert http.send("GET", key).status == 200


def test_disabled_lists_open_nothing(http, s3, listed, key, refused):
    s3.put_object_acl(Bucket=listed, Key="k", ACL="public-read")
    s3.delete_bucket_ownership_controls(Bucket=listed)
    assert http.send("GET", key).code == "AccessDenied"
    for asked in ({"ACL": "public-read"}, {"GrantRead": f"uri={ALL_USERS}"}):
        with refused("AccessControlListNotSupported", 400):
            s3.put_object_acl(Bucket=listed, Key="k", **asked)
    s3.put_object_acl(Bucket=listed, Key="k", ACL="bucket-owner-full-control")
    found = s3.get_object_acl(Bucket=listed, Key="k")
    policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
    s3.put_object_acl(Bucket=listed, Key="k", AccessControlPolicy=policy)


def test_nobody_else_may_but_who_is_granted_it(http, s3, listed, key):
    public = {"x-amz-acl": "public-read"}
    assert http.send("PUT", key, "acl", headers=public).code == "AccessDenied"
    s3.put_object_acl(Bucket=listed, Key="k", GrantWriteACP=f"uri={ALL_USERS}")
    assert http.send("PUT", key, "acl", headers=public).status == 200
    assert http.send("GET", key).status == 200


def test_a_stranger_who_may_write_may_not_give_lists(http, s3, listed):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    public = {"x-amz-acl": "public-read"}
    path = f"/{listed}/new"
    assert http.send("PUT", path, headers=public, body=b"x").code == "AccessDenied"
    assert http.send("PUT", path, body=b"x").status == 200
    assert http.send("GET", path).code == "AccessDenied"


def test_bad_input(s3, http, listed, key, refused):
    with refused("InvalidArgument", 400):
        s3.put_object_acl(Bucket=listed, Key="k", ACL="everybody")
    with refused("UnresolvableGrantByEmailAddress", 400):
        s3.put_object_acl(Bucket=listed, Key="k", GrantRead="emailAddress=a@example.com")
    assert http.request("PUT", key, "acl").code == "MissingSecurityHeader"
    reply = http.request("PUT", key, "acl", body=b"<AccessControlPolicy/>")
    assert (reply.status, reply.code) == (400, "MalformedACLError")
    with refused("InvalidArgument", 400):
        s3.put_object_acl(Bucket=listed, Key="k", VersionId="nonsense", ACL="private")


def test_what_is_not_there(s3, versioned, missing_bucket, refused):
    with refused("NoSuchKey", 404):
        s3.put_object_acl(Bucket=versioned, Key="missing", ACL="private")
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused("MethodNotAllowed", 405):
        s3.put_object_acl(Bucket=versioned, Key="k", VersionId=marker, ACL="private")
    with refused("NoSuchBucket", 404):
        s3.put_object_acl(Bucket=missing_bucket, Key="k", ACL="private")
