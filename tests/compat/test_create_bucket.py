"""CreateBucket, with S3's naming rules for general purpose buckets."""

import secrets

import pytest

from compose.s3_http import quote_key

SUFFIX = secrets.token_hex(6)


@pytest.fixture
def name(s3):
    name = f"created-{secrets.token_hex(8)}"
    yield name
    s3.delete_bucket(Bucket=name)


def test_a_new_bucket_is_answered_with_its_location_and_no_body(http, name):
    reply = http.request("PUT", f"/{name}")
    assert (reply.status, reply["location"], reply.body) == (200, f"/{name}", b"")


def test_a_new_bucket_is_empty(s3, name):
    s3.create_bucket(Bucket=name)
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_creating_ones_own_bucket_again_succeeds_in_us_east_1_and_keeps_its_objects(s3, bucket):
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"x"


@pytest.mark.parametrize(
    "good",
    [
        f"a-{SUFFIX}",
        f"1{SUFFIX}1",
        f"with.dots.{SUFFIX}",
        f"{SUFFIX}".ljust(63, "z"),
        secrets.token_hex(2)[:3],
    ],
    ids=["hyphen", "digits", "dots", "63 characters", "3 characters"],
)
def test_legal_names_are_accepted(s3, good):
    s3.create_bucket(Bucket=good)
    s3.head_bucket(Bucket=good)
    s3.delete_bucket(Bucket=good)


@pytest.mark.parametrize(
    "bad",
    [
        "ab",
        "a" * 64,
        "Upper-case",
        "under_score",
        "-leading",
        "trailing-",
        ".leading",
        "trailing.",
        "two..dots",
        "hyphen-.period",
        "period.-hyphen",
        "192.168.5.4",
        "xn--bucket",
        "sthree-bucket",
        "amzn-s3-demo-bucket",
        "bucket-s3alias",
        "bucket--ol-s3",
        "bucket.mrap",
        "bucket--x-s3",
        "exclamation!",
    ],
)
def test_illegal_names_are_refused(http, bad):
    reply = http.request("PUT", f"/{quote_key(bad)}")
    assert (reply.status, reply.code) == (400, "InvalidBucketName")


def test_a_body_that_is_not_xml_is_refused(http):
    reply = http.request("PUT", f"/body-{SUFFIX}", body=b"not xml at all")
    assert (reply.status, reply.code) == (400, "MalformedXML")


@pytest.mark.parametrize(
    "namespace", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'], ids=["bare", "namespace"]
)
def test_an_empty_configuration_is_accepted_with_and_without_namespace(http, name, namespace):
    body = f"<CreateBucketConfiguration{namespace}></CreateBucketConfiguration>".encode()
    assert http.request("PUT", f"/{name}", body=body).status == 200


def test_another_region_is_refused(s3, refused):
    with refused("IllegalLocationConstraintException", 400):
        s3.create_bucket(
            Bucket=f"elsewhere-{SUFFIX}",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )


def test_an_acl_for_others_is_refused(s3, refused):
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        s3.create_bucket(Bucket=f"public-{SUFFIX}", ACL="public-read")


def test_a_bucket_can_be_made_with_lists(s3, http, name, refused):
    everyone = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
    enforced = {"ObjectOwnership": "BucketOwnerEnforced", "ACL": "public-read"}
    for asked in ({"GrantRead": everyone}, enforced):
        with refused("InvalidBucketAclWithObjectOwnership", 400):
            s3.create_bucket(Bucket=name, **asked)
    with refused("InvalidArgument", 400):
        s3.create_bucket(Bucket=name, ObjectOwnership="Nobody")
    s3.create_bucket(Bucket=name, ACL="public-read", ObjectOwnership="ObjectWriter")
    found = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]
    assert found == {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    assert http.send("GET", f"/{name}").status == 200
    s3.create_bucket(Bucket=name, ACL="public-read", ObjectOwnership="ObjectWriter")
    with refused("BucketAlreadyOwnedByYou", 409):  # its list would not be what was asked for
        s3.create_bucket(Bucket=name, ACL="public-read-write", ObjectOwnership="ObjectWriter")
    assert len(s3.get_bucket_acl(Bucket=name)["Grants"]) == 2


def test_an_acl_for_the_owner_is_accepted(s3, name):
    s3.create_bucket(Bucket=name, ACL="private")
    assert [grant["Permission"] for grant in s3.get_bucket_acl(Bucket=name)["Grants"]] == [
        "FULL_CONTROL"
    ]


def test_a_bucket_can_be_made_with_tags(s3, name, refused):
    tags = [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": ""}]
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": tags})
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == tags
    with refused("InvalidTag", 400):
        s3.create_bucket(
            Bucket=f"tagged-{SUFFIX}", CreateBucketConfiguration={"Tags": [tags[0]] * 2}
        )


def test_a_new_bucket_is_answered_with_its_arn(http, name):
    assert http.request("PUT", f"/{name}")["x-amz-bucket-arn"] == f"arn:aws:s3:::{name}"


def test_object_lock_is_asked_for_as_true_or_false(s3, http, name):
    for value, status in (("yes", 400), ("1", 400), ("False", 200)):
        headers = {"x-amz-bucket-object-lock-enabled": value}
        assert http.request("PUT", f"/{name}", headers=headers).status == status
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
