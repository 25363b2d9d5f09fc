"""PutBucketPolicy: what is taken, what is refused and why; what a policy then allows and denies."""

import base64
import hashlib
import json
import urllib.parse

import pytest
from botocore.exceptions import ClientError

from compose.s3_http import UNSIGNED_PAYLOAD


def policy(bucket, **elements):
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        **elements,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()


@pytest.fixture
def key(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    return f"/{bucket}/k"


def deny(http, bucket, **elements):
    body = policy(bucket, Effect="Deny", **elements)
    assert http.request("PUT", f"/{bucket}", "policy", body=body).status == 204


def test_a_policy_is_taken_without_a_body_in_the_answer(http, bucket):
    reply = http.request("PUT", f"/{bucket}", "policy", body=policy(bucket))
    assert (reply.status, reply.body) == (204, b"")


def test_a_new_policy_replaces_the_one_before(s3, bucket):
    for sid in ("one", "two"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, Sid=sid).decode())
    assert '"two"' in s3.get_bucket_policy(Bucket=bucket)["Policy"]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Effect": "Maybe"}, "Invalid effect: Maybe"),
        ({"Action": "s3:GetObjects"}, "Policy has invalid action"),
        ({"Resource": "arn:aws:s3:::another/*"}, "Policy has invalid resource"),
        ({"Action": "s3:ListBucket"}, "Action does not apply to any resource(s) in statement"),
        ({"Principal": {"AWS": "me"}}, "Invalid principal in policy"),
        ({"Condition": {"Bool": {"aws:Secure": "true"}}}, "invalid condition key - aws:Secure"),
        ({"Condition": {"Boole": {"aws:SecureTransport": "true"}}}, "Invalid Condition type"),
        ({"Comment": "x"}, "Unknown field Comment"),
    ],
)
def test_a_malformed_policy_is_refused_with_the_reason(http, bucket, elements, reason):
    reply = http.request("PUT", f"/{bucket}", "policy", body=policy(bucket, **elements))
    assert (reply.status, reply.code) == (400, "MalformedPolicy")
    assert reason in reply.body.decode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MissingRequestBodyError"),
        (b"<Policy/>", "MalformedPolicy"),
        (b"{", "MalformedPolicy"),
        (b'{"a":' * 4000, "MalformedPolicy"),
        (b"{" + b" " * 20480 + b"}", "MalformedPolicy"),
        (b"{" + b" " * 300_000 + b"}", "MalformedPolicy"),
        (b"\xff\xfe", "MalformedPolicy"),
    ],
    ids=["empty", "XML", "cut", "deep", "too large", "much too large", "not UTF-8"],
)
def test_what_is_no_policy_is_refused(http, s3, bucket, refused, body, code):
    reply = http.request("PUT", f"/{bucket}", "policy", body=body)
    assert (reply.status, reply.code) == (400, code)
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)


def test_a_policy_for_a_bucket_that_is_not_there(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_policy(Bucket=missing_bucket, Policy=policy(missing_bucket).decode())


def test_nobody_else_may_set_one(http, bucket):
    reply = http.send("PUT", f"/{bucket}", "policy", body=policy(bucket))
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_not_even_with_a_policy_that_allows_it(http, s3, put_policy, bucket):
    put_policy(bucket, {"Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}"})
    before = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    for method in ("PUT", "GET", "DELETE"):
        reply = http.send(method, f"/{bucket}", "policy", body=b"{}" if method == "PUT" else b"")
        assert (reply.status, reply.code) == (405, "MethodNotAllowed")
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == before


def test_a_public_bucket_is_read_by_anybody(http, key, bucket):
    assert http.send("GET", key).status == 403
    assert http.request("PUT", f"/{bucket}", "policy", body=policy(bucket)).status == 204
    reply = http.send("GET", key)
    assert (reply.status, reply.body) == (200, b"content")
    assert http.send("HEAD", key).status == 200
    for method, path, query in [
        ("PUT", f"/{bucket}/new", ""),
        ("DELETE", key, ""),
        ("GET", f"/{bucket}", "list-type=2"),
        ("GET", key, "tagging"),
        ("GET", key, "attributes"),
        ("POST", f"/{bucket}/new", "uploads"),
    ]:
        headers = {"x-amz-object-attributes": "ETag"}
        assert http.send(method, path, query, headers=headers).code == "AccessDenied", query


def test_who_may_not_list_is_not_told_which_keys_are_missing(http, put_policy, key, bucket):
    put_policy(bucket, {})
    reply = http.send("GET", f"/{bucket}/missing")
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert http.send("HEAD", f"/{bucket}/missing").status == 403
    put_policy(bucket, {}, {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"})
    reply = http.send("GET", f"/{bucket}/missing")
    assert (reply.status, reply.code) == (404, "NoSuchKey")


def test_what_anybody_writes_is_the_bucket_owners(http, s3, put_policy, bucket):
    put_policy(bucket, {"Action": ["s3:PutObject", "s3:DeleteObject"]})
    assert http.send("PUT", f"/{bucket}/a", body=b"x").status == 200
    listed = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    owner = s3.list_buckets()["Owner"]["ID"]
    assert [(each["Key"], each["Owner"]["ID"]) for each in listed] == [("a", owner)]
    tagged = http.send("PUT", f"/{bucket}/a", headers={"x-amz-tagging": "a=b"}, body=b"y")
    assert tagged.code == "AccessDenied"
    assert http.send("DELETE", f"/{bucket}/a").status == 204


def test_a_listing_by_prefix(http, s3, put_policy, bucket):
    s3.put_object(Bucket=bucket, Key="home/ann/a", Body=b"")
    put_policy(
        bucket,
        {
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{bucket}",
            "Condition": {"StringLike": {"s3:prefix": "home/ann/*"}},
        },
    )
    allowed = http.send("GET", f"/{bucket}", "list-type=2&prefix=home%2Fann%2F")
    assert (allowed.status, b"home/ann/a" in allowed.body) == (200, True)
    for query in ("list-type=2", "list-type=2&prefix=home%2F", "prefix=home%2Fbob%2F"):
        assert http.send("GET", f"/{bucket}", query).code == "AccessDenied"


def test_who_may_list_by_prefix_is_told_which_keys_of_it_are_missing(http, put_policy, bucket):
    may_list = {
        "Action": "s3:ListBucket",
        "Resource": f"arn:aws:s3:::{bucket}",
        "Condition": {"StringLike": {"s3:prefix": "public/*"}},
    }
    for statements, status in (([{}], 403), ([{}, may_list], 404)):
        put_policy(bucket, *statements)
        assert http.send("HEAD", f"/{bucket}/public/missing").status == status
        assert http.send("HEAD", f"/{bucket}/private/missing").status == 403


@pytest.mark.parametrize("written", ["{}/public/a k", "/{}/public/a k"])
def test_a_copy_is_judged_by_its_source_however_the_header_says_it(
    http, s3, make_bucket, put_policy, written
):
    source, target = make_bucket(), make_bucket()
    condition = {"StringEquals": {"s3:x-amz-copy-source": written.format(source)}}
    denied = {"Effect": "Deny", "Action": "s3:PutObject", "Condition": condition}
    put_policy(source, {})
    put_policy(target, {"Action": "s3:PutObject"}, denied)
    for key in ("public/a k", "public/b"):
        s3.put_object(Bucket=source, Key=key, Body=b"x")
    for header in (
        f"{source}/public/a%20k",
        f"/{source}/public/a%20k",
        f"{source}/public/a+k",
        f"{source}%2Fpublic%2Fa%20k",
        f"%2F{source}/publi%63/a%20k",
    ):
        reply = http.send("PUT", f"/{target}/k", headers={"x-amz-copy-source": header})
        assert (reply.status, reply.code) == (403, "AccessDenied"), header
    other = {"x-amz-copy-source": f"/{source}/public/b"}
    assert http.send("PUT", f"/{target}/k", headers=other).status == 200


def test_the_owner_is_denied_what_is_denied_and_told_by_which_statement(http, key, bucket):
    deny(http, bucket, Sid="no reads")
    reply = http.request("GET", key)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert b"statement &quot;no reads&quot;" in reply.body or b'"no reads"' in reply.body
    assert http.send("GET", key).body.count(b"no reads") == 0


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"Bool": {"aws:SecureTransport": "false"}}, 403),
        ({"Bool": {"aws:SecureTransport": "true"}}, 200),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, 403),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, 200),
        ({"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}}, 403),
        ({"StringEquals": {"s3:authType": "REST-HEADER"}}, 403),
        ({"StringEquals": {"s3:authType": "REST-QUERY-STRING"}}, 200),
        ({"NumericLessThan": {"s3:signatureAge": "600000"}}, 403),
        ({"NumericGreaterThan": {"s3:signatureAge": "600000"}}, 200),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01"}}, 403),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01"}}, 200),
        ({"StringLike": {"aws:UserAgent": "curl*"}}, 403),
        ({"StringEquals": {"aws:Referer": "https://a.example/"}}, 403),
        ({"Null": {"aws:Referer": "true"}}, 200),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:root"}}, 403),
        ({"StringEquals": {"aws:PrincipalType": "Account"}}, 403),
        ({"Null": {"aws:username": "false"}}, 200),
        ({"StringEquals": {"s3:ExistingObjectTag/team": "red"}}, 403),
        ({"StringEquals": {"s3:ExistingObjectTag/team": "blue"}}, 200),
        ({"Null": {"s3:VersionId": "false"}}, 200),
    ],
    ids=json.dumps,
)
def test_conditions(http, s3, bucket, condition, status):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="team=red")
    deny(http, bucket, Condition=condition)
    headers = {"user-agent": "curl/8", "referer": "https://a.example/"}
    assert http.request("GET", f"/{bucket}/k", headers=headers).status == status


@pytest.mark.parametrize(
    ("condition", "headers", "status"),
    [
        ({"StringEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}}, {}, 200),
        (
            {"StringEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}},
            {"x-amz-storage-class": "STANDARD_IA"},
            403,
        ),
        ({"Null": {"s3:if-none-match": "true"}}, {}, 403),
        ({"Null": {"s3:if-none-match": "true"}}, {"if-none-match": "*"}, 200),
        ({"StringEquals": {"s3:RequestObjectTag/a": "1"}}, {"x-amz-tagging": "a=1&b=2"}, 403),
        ({"StringEquals": {"s3:RequestObjectTag/a": "2"}}, {"x-amz-tagging": "a=1&b=2"}, 200),
        (
            {"ForAnyValue:StringEquals": {"s3:RequestObjectTagKeys": "b"}},
            {"x-amz-tagging": "a=1&b=2"},
            403,
        ),
        ({"StringEquals": {"s3:x-amz-acl": "private"}}, {"x-amz-acl": "private"}, 403),
        ({"Null": {"s3:x-amz-server-side-encryption": "true"}}, {}, 403),
        ({"Null": {"s3:x-amz-checksum-algorithm": "true"}}, {}, 403),
        (
            {"Null": {"s3:x-amz-checksum-algorithm": "true"}},
            {"x-amz-checksum-crc32": "jNwWgw=="},
            200,
        ),
        (
            {"StringEquals": {"s3:x-amz-checksum-algorithm": "CRC32"}},
            {"x-amz-checksum-crc32": "jNwWgw=="},
            403,
        ),
        ({"Bool": {"s3:ObjectCreationOperation": "true"}}, {}, 403),
        ({"Bool": {"s3:ObjectCreationOperation": "false"}}, {}, 200),
    ],
    ids=json.dumps,
)
def test_conditions_of_writes(http, bucket, condition, headers, status):
    deny(http, bucket, Action="s3:PutObject", Condition=condition)
    assert http.request("PUT", f"/{bucket}/k", headers=headers, body=b"x").status == status


@pytest.mark.parametrize(
    "condition",
    [
        {"Null": {"s3:x-amz-server-side-encryption": "true"}},
        {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}},
    ],
    ids=json.dumps,
)
def test_an_encryption_that_is_demanded_is_that_of_the_upload(http, s3, bucket, condition):
    """Parts and completion cannot name one; an upload that is not there has none."""
    key = {"Bucket": bucket, "Key": "k"}
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    deny(http, bucket, Action="s3:PutObject", Condition=condition)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.create_multipart_upload(**key)
    begun = s3.create_multipart_upload(**key, ServerSideEncryption="AES256")
    part = {**key, "UploadId": begun["UploadId"]}
    first = s3.upload_part(**part, PartNumber=1, Body=bytes(5 << 20))["ETag"]
    source = {"Bucket": bucket, "Key": "source"}
    second = s3.upload_part_copy(**part, PartNumber=2, CopySource=source)["CopyPartResult"]["ETag"]
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    done = s3.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    assert s3.head_object(**key)["ServerSideEncryption"] == "AES256"
    # Whoever did not get the answer asks again.
    again = s3.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    assert again["ETag"] == done["ETag"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.upload_part(**key, UploadId="0" * 32, PartNumber=1, Body=b"x")


def test_an_upload_that_is_not_encrypted_as_demanded_gets_no_parts(http, s3, bucket):
    """Nor is it completed: what the headers of these requests say encrypts nothing."""
    key = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**key)["UploadId"]
    etag = s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    other = {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}
    deny(http, bucket, Action="s3:PutObject", Condition=other)
    path = f"/{bucket}/k"
    part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    listed = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
    for headers in ({}, {"x-amz-server-side-encryption": "aws:kms"}):
        for method, query, body in (
            ("PUT", f"partNumber=1&uploadId={upload}", b"x"),
            ("POST", f"uploadId={upload}", listed),
        ):
            reply = http.request(method, path, query, headers=headers, body=body)
            assert (reply.status, reply.code) == (403, "AccessDenied"), (method, headers)


def test_deletes_without_a_condition_can_be_denied(http, s3, bucket):
    """Of many keys each by its own entry; a header beside them is not looked at, and counts for
    nothing."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    deny(http, bucket, Action="s3:DeleteObject", Condition={"Null": {"s3:if-match": "true"}})
    assert http.request("DELETE", f"/{bucket}/k").code == "AccessDenied"

    def deleted(entry, headers):
        body = f"<Delete><Object><Key>k</Key>{entry}</Object></Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        reply = http.request(
            "POST", f"/{bucket}", "delete", headers={"content-md5": digest, **headers}, body=body
        )
        assert reply.status == 200
        return b"<Deleted>" in reply.body, b"<Code>AccessDenied</Code>" in reply.body

    assert deleted("", {}) == (False, True)
    assert deleted("", {"if-match": "*"}) == (False, True)
    assert deleted(f"<ETag>{etag}</ETag>", {}) == (True, False)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert http.request("DELETE", f"/{bucket}/k", headers={"if-match": etag}).status == 204


def test_a_presigned_url_is_judged_by_the_policy(http, key, bucket):
    host = {"host": http.netloc}
    query = http.signer.presigned("GET", key, "", host, expires_seconds=60)
    assert http.send("GET", key, query).body == b"content"
    deny(http, bucket, Condition={"StringEquals": {"s3:authType": "REST-QUERY-STRING"}})
    assert http.send("GET", key, query).code == "AccessDenied"
    assert http.request("GET", key).status == 200


def test_unsigned_payloads_can_be_denied(http, key, bucket):
    deny(http, bucket, Condition={"StringEquals": {"s3:x-amz-content-sha256": UNSIGNED_PAYLOAD}})
    assert http.request("GET", key, payload_hash=UNSIGNED_PAYLOAD).code == "AccessDenied"
    assert http.request("GET", key).status == 200


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:GetObject*"])
def test_a_copy_needs_to_read_its_source(http, s3, make_bucket, action):
    source, target = make_bucket(), make_bucket()
    s3.put_object(Bucket=source, Key="secret", Body=b"x")
    deny(http, source, Action=action, Resource=f"arn:aws:s3:::{source}/secret")
    headers = {"x-amz-copy-source": f"/{source}/secret"}
    assert http.request("PUT", f"/{target}/k", headers=headers).code == "AccessDenied"
    upload = s3.create_multipart_upload(Bucket=target, Key="k")["UploadId"]
    part = f"partNumber=1&uploadId={urllib.parse.quote(upload)}"
    assert http.request("PUT", f"/{target}/k", part, headers=headers).code == "AccessDenied"
    assert "Contents" not in s3.list_objects_v2(Bucket=target)


def test_anybody_copies_only_between_what_is_open(http, s3, put_policy, make_bucket):
    opened, closed, target = make_bucket(), make_bucket(), make_bucket()
    for name in (opened, closed):
        s3.put_object(Bucket=name, Key="k", Body=b"x", Tagging="a=b")
    put_policy(opened, {})
    put_policy(target, {"Action": "s3:PutObject"})

    def copy(source, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.send(
            "PUT", f"/{target}/k", headers={"x-amz-copy-source": f"/{source}/k", **headers}
        )

    assert copy(closed).code == "AccessDenied"
    assert copy(opened).code == "AccessDenied"  # its tags would be read and written too
    assert copy(opened, x_amz_tagging_directive="REPLACE").status == 200
    assert copy(opened, x_amz_copy_source_range="bytes=0-0", x_amz_tagging="c=d").status == 403


def test_delete_objects_asks_for_each_key(http, s3, put_policy, bucket):
    for key in ("open/a", "closed/b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    put_policy(bucket, {"Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/open/*"})
    body = (
        b"<Delete><Object><Key>open/a</Key></Object><Object><Key>closed/b</Key></Object>"
        b"<Object><Key>open/a</Key><VersionId>null</VersionId></Object></Delete>"
    )
    sha = {"x-amz-checksum-algorithm": "CRC32", "content-md5": _md5(body)}
    reply = http.send("POST", f"/{bucket}", "delete", headers=sha, body=body)
    assert reply.status == 200
    text = reply.body.decode()
    assert "<Deleted><Key>open/a</Key></Deleted>" in text
    assert "<Error><Key>closed/b</Key><Code>AccessDenied</Code>" in text
    assert "<VersionId>null</VersionId><Code>AccessDenied</Code>" in text
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["closed/b"]


def test_delete_objects_by_the_owner_obeys_a_deny(s3, http, bucket):
    for key in ("a", "locked"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    deny(http, bucket, Action="s3:DeleteObject", Resource=f"arn:aws:s3:::{bucket}/locked")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "locked"}]})
    assert [each["Key"] for each in reply["Deleted"]] == ["a"]
    assert [(each["Key"], each["Code"]) for each in reply["Errors"]] == [("locked", "AccessDenied")]
    s3.delete_bucket_policy(Bucket=bucket)


def test_the_owner_cannot_lock_himself_out(s3, refused, put_policy, bucket):
    everything = {"Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    put_policy(bucket, {"Effect": "Deny", "Action": "s3:*", **everything})
    with refused("AccessDenied", 403):
        s3.get_bucket_location(Bucket=bucket)
    assert "Deny" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    put_policy(bucket, {"Effect": "Deny", "Action": "s3:*", **everything})
    s3.delete_bucket_policy(Bucket=bucket)
    s3.get_bucket_location(Bucket=bucket)


def test_a_policy_counts_on_every_gateway_at_once(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for number in range(3):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, Sid=str(number)).decode())
        replies = [server.http(each).send("GET", f"/{bucket}/k") for each in server.endpoints]
        assert {each.status for each in replies} == {200}
        s3.delete_bucket_policy(Bucket=bucket)
        replies = [server.http(each).send("GET", f"/{bucket}/k") for each in server.endpoints]
        assert {each.status for each in replies} == {403}


def test_the_expected_owner_may_be_named_by_account_or_canonical_id(http, s3, key):
    canonical = s3.list_buckets()["Owner"]["ID"]
    for owner, status in ((canonical, 200), ("000000000000", 200), ("123456789012", 403)):
        headers = {"x-amz-expected-bucket-owner": owner}
        assert http.request("GET", key, headers=headers).status == status


def _md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


@pytest.mark.parametrize(
    ("document", "message"),
    [(b"[]", b"first byte must be"), (b'{"Statement": [}', b"This policy contains invalid Json")],
)
def test_a_document_that_is_no_json_object_is_told_why(http, bucket, document, message):
    reply = http.request("PUT", f"/{bucket}", "policy", body=document)
    assert (reply.status, reply.code) == (400, "MalformedPolicy")
    assert message in reply.body
