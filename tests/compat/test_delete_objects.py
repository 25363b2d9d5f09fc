"""DeleteObjects."""

import base64
import hashlib
import zlib
from datetime import timedelta
from xml.sax.saxutils import escape

import pytest


def listed(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def document(*keys, quiet=False):
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete>{objects}<Quiet>{str(quiet).lower()}</Quiet></Delete>".encode()


def md5(body):
    return {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


def test_every_named_key_is_deleted_and_reported_whether_it_existed_or_not(s3, bucket):
    for key in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    reply = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ("a", "c", "missing")]}
    )
    assert sorted(entry["Key"] for entry in reply["Deleted"]) == ["a", "c", "missing"]
    assert "Errors" not in reply
    assert listed(s3, bucket) == ["b"]


def test_a_quiet_request_reports_errors_only(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}], "Quiet": True})
    assert "Deleted" not in reply
    assert listed(s3, bucket) == []


def test_spaces_around_a_key_belong_to_it(s3, http, bucket):
    for key in ("k", " k", "k ", "k\n"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    body = document(" k", "k ")
    assert http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body).status == 200
    assert listed(s3, bucket) == ["k", "k\n"]


def test_keys_with_markup_are_deleted(s3, bucket):
    keys = ["<a>&\"'", "é/ü", "😀"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert sorted(entry["Key"] for entry in reply["Deleted"]) == sorted(keys)
    assert listed(s3, bucket) == []


def test_a_thousand_keys_are_accepted_and_one_more_is_refused(s3, bucket, refused):
    objects = [{"Key": f"key-{number}"} for number in range(1001)]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects[:1000]})
    assert len(reply["Deleted"]) == 1000
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})


@pytest.mark.parametrize(
    "root", ["Delete", 'Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"']
)
def test_a_single_key_is_accepted_with_and_without_namespace(s3, http, bucket, root):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    body = f"<{root}><Object><Key>k</Key></Object></Delete>".encode()
    assert http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body).status == 200
    assert listed(s3, bucket) == []


def test_a_checksum_header_is_accepted_in_place_of_content_md5(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    body = document("k")
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    headers = {"x-amz-checksum-crc32": crc}
    assert http.request("POST", f"/{bucket}", "delete", headers=headers, body=body).status == 200
    assert listed(s3, bucket) == []


def test_a_request_without_any_checksum_is_refused(http, bucket):
    body = document("k")
    reply = http.request("POST", f"/{bucket}", "delete", body=body)
    assert (reply.status, reply.code) == (400, "InvalidRequest")


def test_a_wrong_content_md5_is_refused_and_nothing_is_deleted(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reply = http.request("POST", f"/{bucket}", "delete", headers=md5(b"other"), body=document("k"))
    assert (reply.status, reply.code) == (400, "BadDigest")
    assert listed(s3, bucket) == ["k"]


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"<Delete></Delete>",
        b"<Other><Object><Key>k</Key></Object></Other>",
        b"<Delete><Object></Object></Delete>",
        b'<!DOCTYPE x [<!ENTITY e "k">]><Delete><Object><Key>&e;</Key></Object></Delete>',
    ],
    ids=["unclosed", "no object", "other root", "no key", "entity"],
)
def test_a_malformed_document_is_refused_and_nothing_is_deleted(s3, http, bucket, body):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reply = http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body)
    assert (reply.status, reply.code) == (400, "MalformedXML")
    assert listed(s3, bucket) == ["k"]


def test_an_empty_body_is_refused(http, bucket):
    reply = http.request("POST", f"/{bucket}", "delete", headers=md5(b""))
    assert reply.status == 400
    assert reply.code in ("MissingRequestBodyError", "MalformedXML")


def test_unknown_elements_are_tolerated(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    body = b"<Delete><New/><Object><Key>k</Key><Newer>1</Newer></Object></Delete>"
    assert http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body).status == 200
    assert listed(s3, bucket) == []


def test_a_condition_of_one_key_fails_alone(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    s3.put_object(Bucket=bucket, Key="b", Body=b"y")
    objects = [{"Key": "a", "ETag": etag}, {"Key": "b", "ETag": etag}]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [entry["Key"] for entry in reply["Deleted"]] == ["a"]
    assert [(e["Key"], e["Code"]) for e in reply["Errors"]] == [("b", "PreconditionFailed")]
    assert listed(s3, bucket) == ["b"]


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_objects(Bucket=missing_bucket, Delete={"Objects": [{"Key": "k"}]})


def test_each_key_has_conditions_of_its_own(s3, bucket):
    etags = {key: s3.put_object(Bucket=bucket, Key=key, Body=b"four")["ETag"] for key in "abcdefgh"}
    modified = s3.head_object(Bucket=bucket, Key="a")["LastModified"]
    holding = [
        {"Key": "a", "ETag": etags["a"], "Size": 4},
        {"Key": "b", "ETag": "*"},
        {"Key": "c", "Size": 4},
        {"Key": "never", "Size": 4},
    ]
    failing = [
        {"Key": "d", "ETag": '"0"'},
        {"Key": "e", "Size": 5},
        {"Key": "f", "LastModifiedTime": modified - timedelta(hours=1)},
        {"Key": "g", "ETag": etags["g"], "Size": 3},
    ]
    missing = [{"Key": "nothing", "ETag": "*"}]
    reply = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [*holding, *failing, *missing], "Quiet": False}
    )
    assert sorted(row["Key"] for row in reply["Deleted"]) == ["a", "b", "c", "never"]
    codes = {row["Key"]: row["Code"] for row in reply["Errors"]}
    assert codes.pop("nothing") == "NoSuchKey"
    assert codes == dict.fromkeys("defg", "PreconditionFailed")
    assert listed(s3, bucket) == ["d", "e", "f", "g", "h"]


def test_times_are_given_as_http_or_as_xml_writes_them(s3, http, bucket):
    for key, form in (("a", "%a, %d %b %Y %H:%M:%S GMT"), ("b", "%Y-%m-%dT%H:%M:%S.000Z")):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        modified = s3.head_object(Bucket=bucket, Key=key)["LastModified"].strftime(form)
        body = (
            f"<Delete><Object><Key>{key}</Key><LastModifiedTime>{modified}</LastModifiedTime>"
            "</Object></Delete>"
        ).encode()
        reply = http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body)
        assert (reply.status, b"<Error>" in reply.body) == (200, False)
    assert listed(s3, bucket) == []


@pytest.mark.parametrize("element", ["<Size>four</Size>", "<LastModifiedTime>x</LastModifiedTime>"])
def test_a_condition_that_makes_no_sense_deletes_nothing(s3, http, bucket, element):
    s3.put_object(Bucket=bucket, Key="k", Body=b"four")
    body = f"<Delete><Object><Key>k</Key>{element}</Object></Delete>".encode()
    reply = http.request("POST", f"/{bucket}", "delete", headers=md5(body), body=body)
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert listed(s3, bucket) == ["k"]


def test_a_condition_needs_the_right_to_read(s3, http, bucket, put_policy):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"four")["ETag"].strip('"')
    put_policy(bucket, {"Action": "s3:DeleteObject"})
    body = f"<Delete><Object><Key>k</Key><ETag>{etag}</ETag></Object></Delete>".encode()
    reply = http.send("POST", f"/{bucket}", "delete", headers=md5(body), body=body)
    assert (reply.status, b"<Code>AccessDenied</Code>" in reply.body) == (200, True)
    assert listed(s3, bucket) == ["k"]


def test_one_key_named_a_thousand_times_is_answered_a_thousand_times(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}] * 1000})
    assert [entry["Key"] for entry in reply["Deleted"]] == ["k"] * 1000
    assert "Errors" not in reply
    assert listed(s3, bucket) == []


def test_with_versions_one_key_named_often_gets_as_many_markers(s3, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    reply = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}] * 200})
    made = {entry["DeleteMarkerVersionId"] for entry in reply["Deleted"]}
    assert len(made) == 200
    markers = s3.list_object_versions(Bucket=versioned)["DeleteMarkers"]
    assert {marker["VersionId"] for marker in markers} == made
    assert [marker["IsLatest"] for marker in markers] == [True] + [False] * 199
    objects = [{"Key": "k", "VersionId": version} for version in made] * 2
    reply = s3.delete_objects(Bucket=versioned, Delete={"Objects": objects})
    assert len(reply["Deleted"]) == 400
    assert listed(s3, versioned) == ["k"]


def test_what_names_one_key_goes_in_order(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    entries = [{"Key": "k", "ETag": '"0"'}, {"Key": "k", "ETag": etag}, {"Key": "k"}]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*entries, {"Key": "other"}]})
    assert [entry["Key"] for entry in reply["Deleted"]] == ["k", "k", "other"]
    assert [entry["Code"] for entry in reply["Errors"]] == ["PreconditionFailed"]
