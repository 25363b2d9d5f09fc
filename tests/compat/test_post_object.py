"""PostObject: uploads from forms, with every condition of their policies, and nothing stored when
anything is wrong."""

import base64
import hashlib
import json
import urllib.parse
import xml.etree.ElementTree as ET
from datetime import timedelta

import pytest

from compose.s3_http import S3Http, Signer
from tests.compat.forms import Poster, encode

TAGS = "<Tagging><TagSet><Tag><Key>a b</Key><Value>c+d=e</Value></Tag></TagSet></Tagging>"


@pytest.fixture
def poster(http, bucket):
    return Poster(http, bucket)


@pytest.fixture
def stored(s3, bucket):
    """The keys of the bucket."""

    def keys():
        return [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]

    return keys


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


# What is stored, and the answer.


@pytest.mark.parametrize("version", [4, 2])
def test_a_signed_form_is_stored(s3, poster, bucket, version):
    fields = poster.signed({"key": "dir/a b+é"}, [["eq", "$key", "dir/a b+é"]], version=version)
    reply = poster.send(fields, b"hello")
    assert (reply.status, reply.body) == (204, b"")
    assert reply["etag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert reply["location"] == f"http://{poster.http.netloc}/{bucket}/dir/a%20b%2B%C3%A9"
    assert read(s3, bucket, "dir/a b+é") == b"hello"


def test_what_boto3_presigns(s3, server, poster, bucket):
    for version in ("s3v4", "s3"):
        client = server.client(signature_version=version)
        presigned = client.generate_presigned_post(
            bucket,
            "user/${filename}",
            Fields={"acl": "private", "x-amz-meta-a": "b"},
            Conditions=[
                {"acl": "private"},
                {"x-amz-meta-a": "b"},
                ["content-length-range", 1, 100],
            ],
            ExpiresIn=60,
        )
        assert presigned["url"].endswith(f"/{bucket}")
        reply = poster.send(presigned["fields"], b"hello", filename=f"{version}.txt")
        assert reply.status == 204
        found = s3.get_object(Bucket=bucket, Key=f"user/{version}.txt")
        assert (found["Body"].read(), found["Metadata"]) == (b"hello", {"a": "b"})


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3 * 1024 * 1024 + 7])
def test_files_of_all_sizes(s3, poster, bucket, size):
    data = (b"\r\n--" * (size // 4 + 1))[:size]
    assert poster.post({"key": "k"}, data).status == 204
    assert read(s3, bucket, "k") == data


@pytest.mark.parametrize(
    ("filename", "key"),
    [("a b.txt", "x/a b.txt"), ("C:\\dir\\c.txt", "x/c.txt"), ("é", "x/é"), ("../up", "x/up")],
)
def test_the_name_of_the_file_in_the_key(poster, stored, filename, key):
    fields = poster.signed({"key": "x/${filename}"}, [["starts-with", "$key", "x/"]])
    assert poster.send(fields, filename=filename).status == 204
    assert stored() == [key]


def test_the_key_is_judged_with_the_name_of_the_file_in_it(poster, stored):
    fields = poster.signed({"key": "${filename}"}, [["starts-with", "$key", "mine/"]])
    assert poster.send(fields, filename="mine").code == "AccessDenied"
    assert poster.send(fields, filename="mine/x").code == "AccessDenied"
    assert stored() == []


def test_fields_are_what_headers_are_to_a_put(s3, poster, bucket):
    data = b"hello"
    fields = {
        "key": "k",
        "Content-Type": "text/x-é",
        "Cache-Control": "max-age=5",
        "Content-Disposition": "attachment",
        "Content-Encoding": "identity",
        "Content-Language": "de",
        "Expires": "Thu, 01 Dec 2033 16:00:00 GMT",
        "Content-MD5": base64.b64encode(hashlib.md5(data).digest()).decode(),
        "acl": "bucket-owner-full-control",
        "tagging": TAGS,
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-meta-Name": "Größe",
        "x-amz-website-redirect-location": "/other",
        "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(data).digest()).decode(),
    }
    assert poster.post(fields, data).status == 204
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found["ContentType"].encode("latin-1").decode() == "text/x-é"
    assert found["CacheControl"] == "max-age=5"
    assert found["ContentDisposition"] == "attachment"
    assert (found["ContentEncoding"], found["ContentLanguage"]) == ("identity", "de")
    assert found["ExpiresString"] == "Thu, 01 Dec 2033 16:00:00 GMT"
    assert found["StorageClass"] == "STANDARD_IA"
    assert found["Metadata"] == {"name": "=?UTF-8?B?R3LDtsOfZQ==?="}
    assert found["WebsiteRedirectLocation"] == "/other"
    assert found["ChecksumSHA256"] == fields["x-amz-checksum-sha256"]
    tags = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert tags == [{"Key": "a b", "Value": "c+d=e"}]


def test_a_plain_form_has_the_default_type_whatever_the_type_of_its_part(s3, poster, bucket):
    assert poster.post({"key": "k"}).status == 204
    assert s3.head_object(Bucket=bucket, Key="k")["ContentType"] == "binary/octet-stream"


def test_a_lock_in_a_bucket_that_has_locks(s3, http, make_bucket):
    bucket = f"{make_bucket()}-locked"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = "2100-01-01T00:00:00Z"
    fields = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": until}
    reply = Poster(http, bucket).post({"key": "k", **fields})
    assert reply.status == 204
    version = {"Bucket": bucket, "Key": "k", "VersionId": reply["x-amz-version-id"]}
    held = s3.get_object_retention(**version)["Retention"]
    assert (held["Mode"], held["RetainUntilDate"].year) == ("GOVERNANCE", 2100)
    s3.delete_object(**version, BypassGovernanceRetention=True)
    s3.delete_bucket(Bucket=bucket)


def test_encryption_with_keys_of_the_store_and_of_the_client(s3, poster, bucket):
    reply = poster.post({"key": "ours", "x-amz-server-side-encryption": "AES256"}, b"hello")
    assert (reply.status, reply["x-amz-server-side-encryption"]) == (204, "AES256")
    assert s3.head_object(Bucket=bucket, Key="ours")["ServerSideEncryption"] == "AES256"
    assert read(s3, bucket, "ours") == b"hello"
    key = bytes(range(32))
    prefix = "x-amz-server-side-encryption-customer-"
    fields = {
        f"{prefix}algorithm": "AES256",
        f"{prefix}key": base64.b64encode(key).decode(),
        f"{prefix}key-MD5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }
    assert poster.post({"key": "theirs", **fields}, b"hello").status == 204
    with_key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
    found = s3.get_object(Bucket=bucket, Key="theirs", **with_key)
    assert found["Body"].read() == b"hello"
    spoilt = {**fields, f"{prefix}key-MD5": base64.b64encode(b"0" * 16).decode()}
    assert poster.post({"key": "theirs", **spoilt}).status == 400


def test_a_lock_needs_a_bucket_that_has_locks(poster, stored):
    refused = poster.post({"key": "k", "x-amz-object-lock-legal-hold": "ON"})
    assert (refused.status, refused.code) == (400, "InvalidRequest")
    assert stored() == []


def test_statuses(poster, bucket):
    for asked, status in {"200": 200, "201": 201, "204": 204, "404": 204, "": 204}.items():
        reply = poster.post({"key": "a b", "success_action_status": asked}, b"hello")
        assert reply.status == status
        if status != 201:
            assert reply.body == b""
            continue
        document = ET.fromstring(reply.body)
        assert document.tag == "PostResponse"
        assert {child.tag: child.text for child in document} == {
            "Location": reply["location"],
            "Bucket": bucket,
            "Key": "a b",
            "ETag": reply["etag"],
        }


@pytest.mark.parametrize("field", ["success_action_redirect", "redirect"])
def test_a_redirect_says_what_was_stored(poster, bucket, field):
    fields = {"key": "a/b c", field: "http://a.test/done?x=1", "success_action_status": "201"}
    reply = poster.post(fields)
    assert (reply.status, reply.body) == (303, b"")
    url = urllib.parse.urlsplit(reply["location"])
    assert (url.netloc, url.path) == ("a.test", "/done")
    found = urllib.parse.parse_qs(url.query, strict_parsing=True)
    assert found == {"x": ["1"], "bucket": [bucket], "key": ["a/b c"], "etag": [reply["etag"]]}


@pytest.mark.parametrize(
    "url",
    ["", "nowhere", "//a.test", "javascript:alert(1)", "http://a\r\nX: y", "http://[", "ftp://a"],
)
def test_a_redirect_that_no_browser_could_follow_counts_as_none(poster, url):
    fields = poster.signed(
        {"key": "k", "success_action_redirect": url},
        [{"key": "k"}, ["starts-with", "$success_action_redirect", ""]],
    )
    reply = poster.send(fields)
    assert reply.status == 204
    assert reply["location"].endswith("/k")
    assert reply.headers["x"] is None


def test_versions(s3, poster, versioned):
    first = poster.post({"key": "k"}, b"1")
    second = poster.post({"key": "k"}, b"2")
    for reply, data in ((first, b"1"), (second, b"2")):
        found = s3.get_object(Bucket=versioned, Key="k", VersionId=reply["x-amz-version-id"])
        assert found["Body"].read() == data


def test_fields_after_the_file_are_ignored(s3, poster, bucket):
    content_type, body = encode(poster.signed({"key": "k"}, [{"key": "k"}]).items(), b"data")
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    late = b'\r\nContent-Disposition: form-data; name="x-amz-meta-a"\r\n\r\nlate\r\n' + boundary
    body = body.replace(boundary + b"--", boundary + late + b"--")
    reply = poster.http.send(
        "POST", f"/{bucket}", headers={"content-type": content_type}, body=body
    )
    assert reply.status == 204
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {}


def test_virtual_host_style(s3, server, poster, bucket):
    content_type, body = encode(poster.signed({"key": "k"}, [{"key": "k"}]).items(), b"data")
    host = f"{bucket}.{server.domain}"
    headers = {"content-type": content_type, "host": host}
    reply = poster.http.send("POST", "/", headers=headers, body=body)
    assert (reply.status, reply["location"]) == (204, f"http://{host}/k")
    assert read(s3, bucket, "k") == b"data"


def test_answers_are_for_scripts_of_sites_that_the_bucket_allows(s3, poster, bucket):
    rules = [{"AllowedMethods": ["POST"], "AllowedOrigins": ["http://a.test"]}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    for fields in ({"key": "k"}, {"key": ""}):
        reply = poster.post(fields, headers={"origin": "http://a.test"})
        assert reply["access-control-allow-origin"] == "http://a.test"
        reply = poster.post(fields, headers={"origin": "http://b.test"})
        assert reply.headers["access-control-allow-origin"] is None


# Policies.

GOOD = {"key": "user/a", "acl": "private", "Content-Type": "text/plain", "x-amz-meta-a": "b"}
COVERING = [
    ["starts-with", "$key", "user/"],
    {"acl": "private"},
    ["starts-with", "$Content-Type", "text/"],
    ["eq", "$x-amz-meta-a", "b"],
    ["content-length-range", 2, 4],
]


@pytest.mark.parametrize("version", [4, 2])
@pytest.mark.parametrize("position", range(4))
def test_each_condition_counts(poster, stored, position, version):
    """Each alone is what refuses a form that all others would let through."""
    fields = poster.signed(GOOD, COVERING, version=version)
    assert poster.send(fields).status == 204
    name = list(GOOD)[position]
    values = {"key": "other/a", "acl": "public-read", "Content-Type": "image/png"}
    value = values.get(name, "c")
    reply = poster.send({**fields, name: value})
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert b"Invalid according to Policy: Policy Condition failed: [" in reply.body
    missing = poster.send({n: v for n, v in fields.items() if n != name})
    assert missing.code == ("UserKeyMustBeSpecified" if name == "key" else "AccessDenied")
    uncovered = [condition for at, condition in enumerate(COVERING) if at != position]
    reply = poster.send(poster.signed(GOOD, uncovered, version=version))
    assert (reply.status, reply.code) == (403, "AccessDenied")
    extra = f"Invalid according to Policy: Extra input fields: {name.lower()}"
    assert extra.encode() in reply.body
    assert stored() == ["user/a"]


def test_a_field_more_is_refused(poster, stored):
    fields = poster.signed(GOOD, COVERING)
    for name in ("x-amz-meta-b", "success_action_redirect", "tagging", "submit", "x-amz-acl"):
        reply = poster.send({**fields, name: "x"})
        assert (reply.status, reply.code) == (403, "AccessDenied")
        assert b"Extra input fields" in reply.body
    assert poster.send({**fields, "x-ignore-submit": "x"}).status == 204


@pytest.mark.parametrize(
    ("size", "code"),
    [(1, "EntityTooSmall"), (2, ""), (4, ""), (5, "EntityTooLarge"), (200_000, "EntityTooLarge")],
)
def test_the_size_of_the_file_is_limited(poster, stored, size, code):
    reply = poster.send(poster.signed(GOOD, COVERING), b"x" * size)
    assert (reply.status, reply.code) == (400 if code else 204, code)
    assert stored() == ([] if code else ["user/a"])


def test_a_policy_that_has_ended(poster, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}], lasts=timedelta(seconds=-1))
    reply = poster.send(fields)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert b"Invalid according to Policy: Policy expired." in reply.body
    assert stored() == []


def test_a_policy_for_another_bucket(http, poster, make_bucket, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}])
    reply = Poster(http, make_bucket()).send(fields)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    no_bucket = json.dumps({"expiration": "2100-01-01T00:00:00Z", "conditions": [{"key": "k"}]})
    policy = base64.b64encode(no_bucket.encode()).decode()
    assert poster.send({**fields, "policy": policy}).code == "SignatureDoesNotMatch"


def test_names_are_compared_without_case(poster, stored):
    fields = poster.signed(
        {"KEY": "k", "Acl": "private"}, [["EQ", "$kEy", "k"], {"aCL": "private"}]
    )
    assert poster.send({name.swapcase(): value for name, value in fields.items()}).status == 204
    assert stored() == ["k"]


@pytest.mark.parametrize("version", [4, 2])
def test_spoilt_signatures(poster, stored, version):
    fields = poster.signed({"key": "k"}, [{"key": "k"}], version=version)
    key, signature = (
        ("x-amz-credential", "x-amz-signature") if version == 4 else ("AWSAccessKeyId", "signature")
    )
    other = Signer(poster.http.signer.access_key, "not the secret")
    wrong_secret = poster.signed({"key": "k"}, [{"key": "k"}], version=version, signer=other)
    for spoilt, code in (
        (wrong_secret, "SignatureDoesNotMatch"),
        ({**fields, signature: fields[signature].swapcase()}, "SignatureDoesNotMatch"),
        ({**fields, "policy": fields["policy"] + "="}, "SignatureDoesNotMatch"),
        ({**fields, key: "X" + fields[key]}, "InvalidAccessKeyId"),
    ):
        reply = poster.send(spoilt)
        assert (reply.status, reply.code) == (403, code)
    for name in (key, signature, "policy"):
        reply = poster.send({n: v for n, v in fields.items() if n != name})
        assert (reply.status, reply.code) == (400, "InvalidArgument")
    token = poster.signed({"key": "k"}, [{"key": "k"}], version=version, token="made up")
    assert poster.send(token).code == "InvalidToken"
    assert stored() == []


def test_two_ways_to_say_who_asks_are_refused(http, poster, bucket, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}])
    content_type, body = encode(fields.items(), b"data")
    reply = http.request("POST", f"/{bucket}", headers={"content-type": content_type}, body=body)
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    both = {**fields, **poster.signed({}, [], version=2)}
    assert poster.send(both).code == "InvalidArgument"
    assert stored() == []


# Who may.


def test_anonymous_forms_need_a_policy_of_the_bucket(s3, put_policy, poster, bucket, stored):
    reply = poster.send({"key": "in/k"})
    assert (reply.status, reply.code) == (403, "AccessDenied")
    resource = f"arn:aws:s3:::{bucket}/in/*"
    put_policy(bucket, {"Action": "s3:PutObject", "Resource": resource})
    assert poster.send({"key": "in/k", "more": "x"}, b"hello").status == 204
    assert poster.send({"key": "out/k"}).code == "AccessDenied"
    assert poster.send({"key": "in/${filename}"}, filename="b").status == 204
    assert poster.send({"key": "in/t", "tagging": TAGS}).code == "AccessDenied"
    assert poster.send({"key": "in/t", "acl": "private"}).code == "AccessDenied"
    assert stored() == ["in/b", "in/k"]
    put_policy(bucket, {"Action": ["s3:PutObject", "s3:PutObjectTagging"], "Resource": resource})
    assert poster.send({"key": "in/t", "tagging": TAGS}).status == 204


def test_the_policy_of_the_bucket_sees_what_the_form_says(put_policy, poster, bucket, stored):
    allow = {"Action": ["s3:PutObject", "s3:PutObjectTagging"]}
    put_policy(
        bucket,
        allow,
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Condition": {"StringNotEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}},
        },
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Condition": {"StringEquals": {"s3:RequestObjectTag/a b": "c+d=e"}},
        },
    )
    assert poster.send({"key": "a"}).code == "AccessDenied"
    assert poster.send({"key": "a", "x-amz-storage-class": "STANDARD_IA"}).status == 204
    tagged = {"key": "a", "x-amz-storage-class": "STANDARD_IA", "tagging": TAGS}
    assert poster.send(tagged).code == "AccessDenied"
    # A header is not signed by anybody, and says nothing about the upload.
    header = {"x-amz-storage-class": "STANDARD_IA"}
    assert poster.send({"key": "a"}, headers=header).code == "AccessDenied"


def test_the_policy_of_the_bucket_can_forbid_forms(put_policy, poster, bucket, stored):
    condition = {"StringEquals": {"s3:authType": "POST", "s3:signatureversion": "AWS"}}
    put_policy(bucket, {"Effect": "Deny", "Action": "s3:PutObject", "Condition": condition})
    for version, status in ((2, 403), (4, 204)):
        fields = poster.signed({"key": "k"}, [{"key": "k"}], version=version)
        assert poster.send(fields).status == status


def test_headers_of_the_request_do_not_describe_the_object(s3, poster, bucket):
    headers = {"x-amz-meta-a": "b", "cache-control": "max-age=1", "x-amz-acl": "public-read"}
    assert poster.post({"key": "k"}, headers=headers).status == 204
    found = s3.head_object(Bucket=bucket, Key="k")
    assert (found["Metadata"], found.get("CacheControl")) == ({}, None)


# What is no form.


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 400, "UserKeyMustBeSpecified"),
        ({"key": ""}, 400, "UserKeyMustBeSpecified"),
        ({"key": "x" * 1025}, 400, "KeyTooLongError"),
        ({"key": "a\0b"}, 400, "InvalidArgument"),
        ({"key": "k", "x-amz-meta-a": "a\r\nb"}, 400, "InvalidArgument"),
        ({"key": "k", "x-amz-meta-é": "a"}, 400, "InvalidArgument"),
        (
            {"key": "k", "x-amz-website-redirect-location": "nowhere"},
            400,
            "InvalidRedirectLocation",
        ),
        ({"key": "k", "x-amz-storage-class": "COLD"}, 400, "InvalidStorageClass"),
        ({"key": "k", "x-amz-meta-a": "x" * 2048}, 400, "MetadataTooLarge"),
        ({"key": "k", "tagging": "<Tagging"}, 400, "MalformedXML"),
        ({"key": "k", "tagging": "<!DOCTYPE a><Tagging/>"}, 400, "MalformedXML"),
        ({"key": "k", "Content-MD5": "x"}, 400, "InvalidDigest"),
        ({"key": "k", "Content-MD5": "XUFAKrxLKna5cZ2REBfFkg=="}, 400, "BadDigest"),
        ({"key": "k", "x-amz-checksum-crc32": "AAAAAA=="}, 400, "BadDigest"),
        ({"key": "k", "acl": "everybody"}, 400, "InvalidArgument"),
        ({"key": "k", "x-amz-meta-a": "x" * 20_480}, 400, "MaxPostPreDataLengthExceededError"),
    ],
)
def test_bad_fields(poster, stored, fields, status, code):
    reply = poster.post(fields)
    assert (reply.status, reply.code) == (status, code)
    assert stored() == []


def test_bad_policies(poster, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}, ["content-length-range", 0]])
    reply = poster.send(fields)
    assert (reply.status, reply.code) == (400, "InvalidPolicyDocument")
    fields = poster.signed({"key": "k"}, [{}])
    assert poster.send(fields).code == "InvalidPolicyDocument"
    assert stored() == []


def test_exactly_one_file(poster, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}])
    reply = poster.send(fields, b"one", b"two")
    assert (reply.status, reply.code) == (400, "IncorrectNumberOfFilesInPostRequest")
    reply = poster.send(fields, b"x" * 200_000, b"two")
    assert (reply.status, reply.code) == (400, "IncorrectNumberOfFilesInPostRequest")
    content_type, body = encode(fields.items())
    reply = poster.http.send(
        "POST", f"/{poster.bucket}", headers={"content-type": content_type}, body=body
    )
    assert (reply.status, reply.code) == (400, "IncorrectNumberOfFilesInPostRequest")
    assert stored() == []


def test_what_is_no_form(poster, http: S3Http, bucket, stored):
    fields = poster.signed({"key": "k"}, [{"key": "k"}])
    content_type, body = encode(fields.items(), b"x" * 100_000)
    for sent_type, sent, code in (
        ("application/x-www-form-urlencoded", b"key=k", "PreconditionFailed"),
        ("", body, "PreconditionFailed"),
        ("multipart/form-data", body, "MalformedPOSTRequest"),
        (content_type + "x", body, "MalformedPOSTRequest"),
        (content_type, b"", "MalformedPOSTRequest"),
        (content_type, body[:-10], "MalformedPOSTRequest"),
        (content_type, body[:50_000], "MalformedPOSTRequest"),
        (content_type, b"x" + body, "MalformedPOSTRequest"),
    ):
        reply = http.send("POST", f"/{bucket}", headers={"content-type": sent_type}, body=sent)
        assert (reply.status, reply.code) == (412 if code == "PreconditionFailed" else 400, code)
    assert stored() == []


def test_a_missing_bucket(http, missing_bucket):
    reply = Poster(http, missing_bucket).post({"key": "k"})
    assert (reply.status, reply.code) == (404, "NoSuchBucket")


def test_other_parameters_of_the_url_are_no_matter(s3, poster, bucket):
    content_type, body = encode(poster.signed({"key": "k"}, [{"key": "k"}]).items(), b"data")
    headers = {"content-type": content_type}
    reply = poster.http.send("POST", f"/{bucket}", "x=y&versionId=z", headers=headers, body=body)
    assert reply.status == 204
