"""Access control lists and explanations as users and sessions meet them, beside root and nobody."""

import dataclasses
import json
import secrets

import pytest

from compose.local import wait_until
from compose.s3_http import S3Http, Signer
from tests import sdk
from tests.compat.conftest import REGION

PROCESSES_MET = 16
"""Requests, each over its own connection, after which every process of a gateway was met."""


@pytest.fixture
def iam(server):
    return sdk.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


@pytest.fixture
def make_user(iam, server):
    """`make_user({"Effect": …}, …)`: requests of a new user with these statements, once the
    gateway knows it."""
    made = []

    def make(*statements):
        name = f"user-{secrets.token_hex(6)}"
        iam.create_user(UserName=name)
        made.append(name)
        if statements:
            document = json.dumps({"Version": "2012-10-17", "Statement": statements})
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        user = S3Http(server.endpoint, Signer(key["AccessKeyId"], key["SecretAccessKey"]))
        # Several processes answer, each of which learns of the user by itself.
        wait_until(
            lambda: all(
                user.request("GET", "/").code != "InvalidAccessKeyId" for _ in range(PROCESSES_MET)
            ),
            what="the user is known",
        )
        return user

    yield make
    for name in made:
        for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
            iam.delete_user_policy(UserName=name, PolicyName=policy)
        iam.delete_user(UserName=name)


def allow(*actions, effect="Allow", resource="*"):
    return {"Effect": effect, "Action": list(actions), "Resource": resource}


EXPLAIN = allow("s3gw:ExplainAccess")


def test_who_signs_is_an_authenticated_user(s3, http, listed, make_user):
    s3.put_object(Bucket=listed, Key="k", Body=b"x", ACL="authenticated-read")
    s3.put_object(Bucket=listed, Key="private", Body=b"x")
    nobody_in_particular, denied = make_user(), make_user(allow("s3:*", effect="Deny"))
    assert nobody_in_particular.request("GET", f"/{listed}/k").status == 200
    assert nobody_in_particular.request("GET", f"/{listed}/private").code == "AccessDenied"
    assert denied.request("GET", f"/{listed}/k").code == "AccessDenied"
    assert http.send("GET", f"/{listed}/k").code == "AccessDenied"


def test_an_upload_of_who_may_only_create_cannot_replace_what_came_meanwhile(s3, listed, make_user):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    user = make_user()
    made = user.request("POST", f"/{listed}/k", "uploads")
    upload = made.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
    part = user.request("PUT", f"/{listed}/k", f"partNumber=1&uploadId={upload}", body=b"theirs")
    assert part.status == 200
    s3.put_object(Bucket=listed, Key="k", Body=b"mine")
    body = (
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
        f"<ETag>{part['etag']}</ETag></Part></CompleteMultipartUpload>"
    ).encode()
    reply = user.request("POST", f"/{listed}/k", f"uploadId={upload}", body=body)
    assert b"AccessDenied" in reply.body
    assert s3.get_object(Bucket=listed, Key="k")["Body"].read() == b"mine"


def test_who_may_only_create_adds_nothing_to_uploads_of_others(s3, listed, make_user, upload_parts):
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    upload, parts = upload_parts(listed, "k", [b"mine"])
    path, query = f"/{listed}/k", f"uploadId={upload}"
    s3.put_object(Bucket=listed, Key="source", Body=b"x", ACL="public-read")
    listed_part = f"<Part><PartNumber>1</PartNumber><ETag>{parts[0]['ETag']}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{listed_part}</CompleteMultipartUpload>".encode()
    source = {"x-amz-copy-source": f"{listed}/source"}

    def attempts(user):
        return [
            user.request("PUT", path, f"partNumber=1&{query}", body=b"theirs"),
            user.request("PUT", path, f"partNumber=1&{query}", headers=source),
            user.request("POST", path, query, body=body),
        ]

    assert [reply.code for reply in attempts(make_user())] == ["AccessDenied"] * 3
    target = {"Bucket": listed, "Key": "k", "UploadId": upload}
    assert s3.list_parts(**target)["Parts"][0]["ETag"] == parts[0]["ETag"]
    allowed = attempts(make_user(allow("s3:PutObject"), allow("s3:GetObject")))
    assert [reply.status for reply in allowed[:2]] == [200, 200]
    assert b"InvalidPart" in allowed[2].body  # the part was replaced


def test_who_began_an_upload_lists_its_parts_and_ends_it(s3, bucket, put_policy, make_user):
    path, put = f"/{bucket}/k", allow("s3:PutObject")
    user, other = make_user(put), make_user(put)
    denied = make_user(put, allow("s3:AbortMultipartUpload", effect="Deny"))

    def begin(who):
        made = who.request("POST", path, "uploads")
        return f"uploadId={made.body.partition(b'<UploadId>')[2].partition(b'<')[0].decode()}"

    upload = begin(user)
    assert user.request("PUT", path, f"partNumber=1&{upload}", body=b"x").status == 200
    listing = user.request("GET", path, upload)
    assert (listing.status, listing.body.count(b"<Part>")) == (200, 1)
    for method in ("GET", "DELETE"):
        assert other.request(method, path, upload).code == "AccessDenied"
        assert other.request(method, path, "uploadId=unknown").code == "AccessDenied"
        assert user.request(method, path, "uploadId=unknown").code == "AccessDenied"
    assert user.request("DELETE", path, upload).status == 204
    assert user.request("GET", path, upload).code == "AccessDenied"
    own = begin(denied)
    assert denied.request("GET", path, own).status == 200
    assert denied.request("DELETE", path, own).code == "AccessDenied"
    upload = begin(user)
    put_policy(
        bucket,
        {
            "Effect": "Deny",
            "Action": "s3:*MultipartUpload*",
            "Resource": f"arn:aws:s3:::{bucket}/*",
        },
    )
    for method in ("GET", "DELETE"):
        assert user.request(method, path, upload).code == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)


def test_a_user_with_the_right_writes_lists_and_owns_nothing(s3, listed, make_user):
    user = make_user(allow("s3:PutObject"))
    headers = {"x-amz-acl": "public-read"}
    path = f"/{listed}/k"
    assert user.request("PUT", path, headers=headers, body=b"x").code == "AccessDenied"
    assert user.request("PUT", path, body=b"x").status == 200
    also = make_user(allow("s3:PutObject", "s3:PutObjectAcl"))
    assert also.request("PUT", path, headers=headers, body=b"x").status == 200
    acl = s3.get_object_acl(Bucket=listed, Key="k")
    assert acl["Owner"] == s3.get_bucket_acl(Bucket=listed)["Owner"]
    assert len(acl["Grants"]) == 2


def test_making_a_bucket_with_a_list_asks_for_more(s3, make_user):
    name = f"compat-{secrets.token_hex(8)}"
    headers = {"x-amz-acl": "public-read", "x-amz-object-ownership": "ObjectWriter"}
    actions = ["s3:CreateBucket", "s3:PutBucketAcl", "s3:PutBucketOwnershipControls"]
    for missing in actions[1:]:
        user = make_user(allow(*(action for action in actions if action != missing)))
        assert user.request("PUT", f"/{name}", headers=headers).code == "AccessDenied"
    user = make_user(allow(*actions))
    assert user.request("PUT", f"/{name}", headers=headers).status == 200
    s3.delete_bucket(Bucket=name)


def test_a_denial_is_explained_to_who_may_know(s3, bucket, put_policy, make_user, http):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {"Effect": "Deny", "Sid": "Not today"})
    read = allow("s3:GetObject")
    told, untold = make_user(read, EXPLAIN), make_user(read)
    text = told.request("GET", f"/{bucket}/k").body
    assert b"statement &quot;Not today&quot;" in text or b'statement "Not today"' in text
    assert f"the policy of bucket {bucket}".encode() in text
    for reply in (untold.request("GET", f"/{bucket}/k"), http.send("GET", f"/{bucket}/k")):
        assert reply.code == "AccessDenied"
        assert b"Not today" not in reply.body
    nothing = make_user(EXPLAIN).request("PUT", f"/{bucket}/k", body=b"x").body
    assert b"because no policy allows the s3:PutObject action" in nothing
    never = make_user(read, EXPLAIN, allow("s3gw:*", effect="Deny"))
    assert b"Not today" not in never.request("GET", f"/{bucket}/k").body


def test_a_signature_is_explained_to_who_may_know(bucket, make_user):
    path, debug = f"/{bucket}/k", {"x-s3gw-debug": "explain"}
    for user, explained in ((make_user(EXPLAIN), True), (make_user(), False)):
        signed, _ = user.signed_headers("GET", path, headers=debug)
        reply = user.send("HEAD", path, headers=signed)
        assert (reply.status, reply.body) == (403, b"")
        reply = user.send("PUT", path, headers=signed)
        assert reply.code == "SignatureDoesNotMatch"
        assert (b"<Explanation>The signature is right for the method" in reply.body) is explained
        wrong = S3Http(
            f"http://{user.netloc}", dataclasses.replace(user.signer, secret_key="wrong")
        )
        reply = wrong.request("GET", path, headers=debug)
        assert reply.code == "SignatureDoesNotMatch"
        assert user.signer.secret_key.encode() not in reply.body
