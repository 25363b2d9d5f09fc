"""PutBucketAcl: in all three forms, and what the lists allow."""

import base64
import hashlib

import pytest

from tests.compat.conftest import ALL_USERS

OWNER = ("owner", "FULL_CONTROL")
EC2 = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
CANNED = {
    "private": set(),
    "public-read": {("AllUsers", "READ")},
    "public-read-write": {("AllUsers", "READ"), ("AllUsers", "WRITE")},
    "authenticated-read": {("AuthenticatedUsers", "READ")},
    "aws-exec-read": {(EC2, "READ")},
    "bucket-owner-full-control": set(),
    "log-delivery-write": {("LogDelivery", "WRITE"), ("LogDelivery", "READ_ACP")},
}


@pytest.mark.parametrize("name", CANNED)
def test_canned_lists(s3, listed, grants_of, name):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    s3.put_bucket_acl(Bucket=listed, ACL=name)
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == {OWNER, *CANNED[name]}


def test_grants_in_headers(s3, listed, grants_of):
    owner = s3.get_bucket_acl(Bucket=listed)["Owner"]["ID"]
    s3.put_bucket_acl(
        Bucket=listed,
        GrantFullControl=f'id="{owner}"',
        GrantRead=f'uri="{ALL_USERS}", id={owner}',
        GrantWriteACP=f"uri={ALL_USERS}",
    )
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == {
        OWNER,
        ("AllUsers", "READ"),
        ("owner", "READ"),
        ("AllUsers", "WRITE_ACP"),
    }


def test_a_document_as_read_can_be_written(s3, listed, grants_of):
    s3.put_bucket_acl(Bucket=listed, ACL="log-delivery-write")
    found = s3.get_bucket_acl(Bucket=listed)
    s3.put_bucket_acl(Bucket=listed, ACL="private")
    policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
    s3.put_bucket_acl(Bucket=listed, AccessControlPolicy=policy)
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == grants_of(found)


def test_a_public_bucket_can_be_listed_by_everybody(http, s3, listed):
    s3.put_object(Bucket=listed, Key="k", Body=b"x")
    assert http.send("GET", f"/{listed}").code == "AccessDenied"
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    assert b"<Key>k</Key>" in http.send("GET", f"/{listed}").body
    assert http.send("HEAD", f"/{listed}").status == 200
    assert http.send("GET", f"/{listed}", "versions").status == 200
    assert http.send("GET", f"/{listed}/k").code == "AccessDenied"
    assert http.send("GET", f"/{listed}/missing").code == "NoSuchKey"
    assert http.send("PUT", f"/{listed}/new", body=b"x").code == "AccessDenied"


def test_everybody_may_add_to_a_public_bucket_and_change_nothing(http, s3, listed):
    s3.put_object(Bucket=listed, Key="mine", Body=b"mine")
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    assert http.send("PUT", f"/{listed}/new", body=b"1").status == 200
    assert http.send("PUT", f"/{listed}/new", body=b"2").code == "AccessDenied"
    assert http.send("PUT", f"/{listed}/mine", body=b"2").code == "AccessDenied"
    assert http.send("DELETE", f"/{listed}/mine").code == "AccessDenied"
    body = b"<Delete><Object><Key>mine</Key></Object></Delete>"
    reply = http.send(
        "POST", f"/{listed}", "delete", body=body, headers={"content-md5": _md5(body)}
    )
    assert b"<Code>AccessDenied</Code>" in reply.body
    assert s3.get_object(Bucket=listed, Key="mine")["Body"].read() == b"mine"
    assert s3.get_object(Bucket=listed, Key="new")["Body"].read() == b"1"
    owners = {entry["Owner"]["ID"] for entry in s3.list_objects(Bucket=listed)["Contents"]}
    assert owners == {s3.get_bucket_acl(Bucket=listed)["Owner"]["ID"]}


def test_a_write_of_a_stranger_that_was_overtaken_replaces_nothing(http, s3, listed):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    size = 3_000_000

    def body():
        yield b"x" * (size - 1)
        s3.put_object(Bucket=listed, Key="k", Body=b"mine")
        yield b"x"

    length = {"content-length": str(size)}
    reply = http.send("PUT", f"/{listed}/k", headers=length, body=body())
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert s3.get_object(Bucket=listed, Key="k")["Body"].read() == b"mine"


def test_a_stranger_begins_no_upload_and_adds_nothing_to_one(http, s3, listed, upload_parts):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    upload, parts = upload_parts(listed, "k", [b"mine"])
    assert http.send("POST", f"/{listed}/k", "uploads").code == "AccessDenied"
    query = f"uploadId={upload}"
    for sent in (
        http.send("PUT", f"/{listed}/k", f"partNumber=1&{query}", body=b"theirs"),
        http.send(
            "PUT",
            f"/{listed}/k",
            f"partNumber=1&{query}",
            headers={"x-amz-copy-source": f"{listed}/other"},
        ),
        http.send("POST", f"/{listed}/k", query, body=b"<CompleteMultipartUpload/>"),
        http.send("GET", f"/{listed}/k", query),
        http.send("DELETE", f"/{listed}/k", query),
    ):
        assert (sent.status, sent.code) == (403, "AccessDenied")
    target = {"Bucket": listed, "Key": "k", "UploadId": upload}
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=listed, Key="k")["Body"].read() == b"mine"


def test_a_policy_that_denies_wins(http, s3, listed, put_policy):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    deny = {"Effect": "Deny", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{listed}"}
    put_policy(listed, deny)
    assert http.send("GET", f"/{listed}").code == "AccessDenied"
    s3.delete_bucket_policy(Bucket=listed)
    assert http.send("GET", f"/{listed}").status == 200


def test_a_policy_allows_beside_a_list(http, s3, listed, put_policy):
    s3.put_object(Bucket=listed, Key="k", Body=b"x")
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    put_policy(listed, {})
    assert http.send("GET", f"/{listed}").status == 200
    assert http.send("GET", f"/{listed}/k").status == 200


def test_disabled_lists_are_refused_but_for_what_is_so_anyway(s3, http, bucket, refused):
    for asked in (
        {"ACL": "public-read"},
        {"ACL": "private"},
        {"GrantRead": f'uri="{ALL_USERS}"'},
    ):
        with refused("AccessControlListNotSupported", 400):
            s3.put_bucket_acl(Bucket=bucket, **asked)
    s3.put_bucket_acl(Bucket=bucket, ACL="bucket-owner-full-control")
    found = s3.get_bucket_acl(Bucket=bucket)
    policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    everyone = {"Grantee": {"Type": "Group", "URI": ALL_USERS}, "Permission": "READ"}
    policy["Grants"] = [*policy["Grants"], everyone]
    with refused("AccessControlListNotSupported", 400):
        s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)


def test_public_lists_are_refused_or_ignored_where_that_is_blocked(http, s3, listed, refused):
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": False}
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    s3.put_public_access_block(Bucket=listed, PublicAccessBlockConfiguration=block)
    assert http.send("GET", f"/{listed}").status == 200  # it was there before
    for name in ("public-read", "authenticated-read"):
        with refused("AccessDenied", 403):
            s3.put_bucket_acl(Bucket=listed, ACL=name)
    s3.put_bucket_acl(Bucket=listed, ACL="log-delivery-write")
    s3.delete_public_access_block(Bucket=listed)
    s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    s3.put_public_access_block(
        Bucket=listed, PublicAccessBlockConfiguration={"IgnorePublicAcls": True}
    )
    assert http.send("GET", f"/{listed}").code == "AccessDenied"
    assert http.request("GET", f"/{listed}").status == 200


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"ACL": "everybody"}, "InvalidArgument"),
        ({"GrantRead": "id=nobody"}, "InvalidArgument"),
        ({"GrantRead": "uri=http://acs.amazonaws.com/groups/global/Nobody"}, "InvalidArgument"),
        ({"GrantRead": "somebody"}, "InvalidArgument"),
        ({"GrantRead": f"uri={ALL_USERS},"}, "InvalidArgument"),
        ({"GrantRead": f'uri="{ALL_USERS}'}, "InvalidArgument"),
        ({"GrantRead": "emailAddress=a@example.com"}, "UnresolvableGrantByEmailAddress"),
        ({"ACL": "private", "GrantRead": f"uri={ALL_USERS}"}, "InvalidRequest"),
    ],
)
def test_headers_that_name_nobody_are_refused(s3, listed, refused, grants_of, asked, code):
    with refused(code, 400):
        s3.put_bucket_acl(Bucket=listed, **asked)
    assert grants_of(s3.get_bucket_acl(Bucket=listed)) == {OWNER}


def _policy(owner, grants=""):
    named = f"<Owner><ID>{owner}</ID></Owner>" if owner else ""
    return (
        f"<AccessControlPolicy>{named}<AccessControlList>{grants}</AccessControlList>"
        "</AccessControlPolicy>"
    ).encode()


def _grant(kind, inner, permission="READ"):
    named = f' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{kind}"'
    return (
        f"<Grant><Grantee{named if kind else ''}>{inner}</Grantee>"
        f"<Permission>{permission}</Permission></Grant>"
    )


GROUP = f"<URI>{ALL_USERS}</URI>"


@pytest.mark.parametrize(
    ("grants", "status", "code"),
    [
        (_grant("CanonicalUser", "<ID>0</ID>"), 400, "InvalidArgument"),
        (_grant("Group", "<URI>http://a.example/</URI>"), 400, "InvalidArgument"),
        (
            _grant("AmazonCustomerByEmail", "<EmailAddress>a@b.example</EmailAddress>"),
            400,
            "UnresolvableGrantByEmailAddress",
        ),
        (_grant("", GROUP), 400, "MalformedACLError"),
        (_grant("Someone", GROUP), 400, "MalformedACLError"),
        (_grant("Group", ""), 400, "MalformedACLError"),
        (_grant("Group", GROUP, "EVERYTHING"), 400, "MalformedACLError"),
        ("<Grant><Permission>READ</Permission></Grant>", 400, "MalformedACLError"),
        (_grant("Group", GROUP) * 101, 400, "MalformedACLError"),
    ],
)
def test_documents_that_grant_nothing_known_are_refused(s3, http, listed, grants, status, code):
    owner = s3.get_bucket_acl(Bucket=listed)["Owner"]["ID"]
    reply = http.request("PUT", f"/{listed}", "acl", body=_policy(owner, grants))
    assert (reply.status, reply.code) == (status, code)


def test_the_owner_cannot_be_changed_or_left_out(http, listed):
    reply = http.request("PUT", f"/{listed}", "acl", body=_policy("0" * 64))
    assert (reply.status, reply.code) == (403, "AccessDenied")
    reply = http.request("PUT", f"/{listed}", "acl", body=_policy(""))
    assert (reply.status, reply.code) == (400, "MalformedACLError")


def test_exactly_one_form_is_taken(http, s3, listed):
    owner = s3.get_bucket_acl(Bucket=listed)["Owner"]["ID"]
    reply = http.request("PUT", f"/{listed}", "acl")
    assert (reply.status, reply.code) == (400, "MissingSecurityHeader")
    both = {"x-amz-acl": "private"}
    reply = http.request("PUT", f"/{listed}", "acl", headers=both, body=_policy(owner))
    assert (reply.status, reply.code) == (400, "UnexpectedContent")
    reply = http.request("PUT", f"/{listed}", "acl", body=b"<Acl/>")
    assert (reply.status, reply.code) == (400, "MalformedXML")


def test_nobody_else_may_but_who_is_granted_it(http, s3, listed):
    public = {"x-amz-acl": "public-read"}
    assert http.send("PUT", f"/{listed}", "acl", headers=public).code == "AccessDenied"
    s3.put_bucket_acl(Bucket=listed, GrantWriteACP=f"uri={ALL_USERS}")
    assert http.send("PUT", f"/{listed}", "acl", headers=public).status == 200
    assert http.send("GET", f"/{listed}").status == 200
    assert http.send("PUT", f"/{listed}", "acl", headers=public).code == "AccessDenied"


def test_a_policy_can_ask_what_list_is_given(http, s3, listed, put_policy, refused):
    put_policy(
        listed,
        {
            "Effect": "Deny",
            "Action": "s3:PutBucketAcl",
            "Resource": f"arn:aws:s3:::{listed}",
            "Condition": {"StringLike": {"s3:x-amz-acl": "public-*"}},
        },
    )
    with refused("AccessDenied", 403):
        s3.put_bucket_acl(Bucket=listed, ACL="public-read")
    s3.put_bucket_acl(Bucket=listed, ACL="authenticated-read")


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_acl(Bucket=missing_bucket, ACL="private")


def _md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def test_a_body_beside_headers_is_refused_before_either_is_read(http, listed):
    headers = {"x-amz-grant-read": "id=nobody"}
    reply = http.request("PUT", f"/{listed}", "acl", headers=headers, body=b"<not an ACL")
    assert (reply.status, reply.code) == (400, "UnexpectedContent")
