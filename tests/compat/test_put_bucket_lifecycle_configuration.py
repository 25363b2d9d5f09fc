"""PutBucketLifecycleConfiguration: what is stored and told, and what is refused. What the rules do:
test_lifecycle_rules.py."""

import datetime
import hashlib
from base64 import b64encode
from email.utils import parsedate_to_datetime

import pytest

RULES = [
    {
        "ID": "all of it",
        "Filter": {
            "And": {
                "Prefix": "logs/",
                "Tags": [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": ""}],
                "ObjectSizeGreaterThan": 5,
                "ObjectSizeLessThan": 5000,
            }
        },
        "Status": "Enabled",
        "Expiration": {"Days": 365},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 9, "NewerNoncurrentVersions": 3},
    },
    {
        "ID": "dated",
        "Filter": {"Prefix": "tmp/"},
        "Status": "Disabled",
        "Expiration": {"Date": datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
    },
    {
        "ID": "old form",
        "Prefix": "old/",
        "Status": "Enabled",
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    },
]
EXPIRE = {"Filter": {}, "Status": "Enabled", "Expiration": {"Days": 3}}


def put(s3, bucket, *rules, **more):
    return s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **more
    )


def rules_of(s3, bucket):
    return s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]


def test_rules_are_read_back_and_replaced(s3, bucket):
    put(s3, bucket, *RULES)
    assert rules_of(s3, bucket) == RULES
    put(s3, bucket, RULES[1])
    assert rules_of(s3, bucket) == RULES[1:2]


def test_a_rule_without_an_id_gets_one(s3, bucket):
    put(s3, bucket, EXPIRE, {**EXPIRE, "Filter": {"Prefix": "x"}})
    ids = [rule["ID"] for rule in rules_of(s3, bucket)]
    assert len(set(ids)) == 2


def test_the_least_size_that_moves_is_kept_and_told(s3, bucket):
    name = "TransitionDefaultMinimumObjectSize"
    assert put(s3, bucket, EXPIRE)[name] == "all_storage_classes_128K"
    assert put(s3, bucket, EXPIRE, **{name: "varies_by_storage_class"})[name].startswith("varies")
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found[name] == "varies_by_storage_class"
    put(s3, bucket, EXPIRE)
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found[name] == "all_storage_classes_128K"


def expires_in(told, days):
    """`expiry-date` is the midnight after so many days."""
    date = parsedate_to_datetime(told.split('"')[1])
    now = datetime.datetime.now(datetime.UTC)
    ahead = (date - now).total_seconds() / 86_400
    assert (date.hour, date.minute, date.second) == (0, 0, 0)
    assert days - 0.01 <= ahead <= days + 1


def test_answers_tell_when_an_object_expires(s3, bucket, upload_parts):
    put(
        s3,
        bucket,
        {**EXPIRE, "ID": "a rule/ä"},
        {**EXPIRE, "ID": "later", "Expiration": {"Days": 9}},
    )
    answers = [
        s3.put_object(Bucket=bucket, Key="k", Body=b"x"),
        s3.get_object(Bucket=bucket, Key="k"),
        s3.head_object(Bucket=bucket, Key="k"),
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"}),
    ]
    upload_id, parts = upload_parts(bucket, "parts", [b"one part"])
    answers.append(
        s3.complete_multipart_upload(
            Bucket=bucket, Key="parts", UploadId=upload_id, MultipartUpload={"Parts": parts}
        )
    )
    for answer in answers:
        told = answer["Expiration"]
        assert told.endswith(', rule-id="a%20rule%2F%C3%A4"')
        expires_in(told, 3)


def test_only_objects_that_a_rule_is_about_expire(s3, bucket):
    tag = {"Key": "temporary", "Value": "yes"}
    put(s3, bucket, {**EXPIRE, "Filter": {"Tag": tag}})
    plain = s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    tagged = s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="temporary=yes")
    assert "Expiration" not in plain
    assert "Expiration" in tagged
    s3.put_object_tagging(Bucket=bucket, Key="plain", Tagging={"TagSet": [tag]})
    assert "Expiration" in s3.head_object(Bucket=bucket, Key="plain")


def test_noncurrent_versions_are_not_told_to_expire(s3, versioned):
    put(s3, versioned, EXPIRE)
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"2")
    assert "Expiration" not in s3.head_object(Bucket=versioned, Key="k", VersionId=first)
    assert "Expiration" in s3.head_object(Bucket=versioned, Key="k")


def test_uploads_tell_when_they_are_aborted(s3, bucket):
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}
    put(s3, bucket, {"ID": "ends", "Filter": {"Prefix": "a"}, "Status": "Enabled", **abort})
    made = s3.create_multipart_upload(Bucket=bucket, Key="a")
    listed = s3.list_parts(Bucket=bucket, Key="a", UploadId=made["UploadId"])
    for answer in (made, listed):
        assert answer["AbortRuleId"] == "ends"
        expires_in(f'"{answer["AbortDate"]:%a, %d %b %Y %H:%M:%S} GMT"', 2)
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="b")


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([], "MalformedXML"),
        ([{"Status": "Enabled", "Expiration": {"Days": 1}}], "MalformedXML"),
        ([{**EXPIRE, "Expiration": {"Days": 0}}], "InvalidArgument"),
        ([{**EXPIRE, "ID": "x"}, {**EXPIRE, "ID": "x"}], "InvalidArgument"),
        ([{**EXPIRE, "ID": "x" * 256}], "InvalidArgument"),
        ([{"Filter": {}, "Status": "Enabled"}], "InvalidRequest"),
        ([{**EXPIRE, "Status": "On"}], "MalformedXML"),
        (
            [{**EXPIRE, "Transitions": [{"Days": 1, "StorageClass": "NO_SUCH_CLASS"}]}],
            "InvalidStorageClass",
        ),
    ],
)
def test_what_means_nothing_is_refused(s3, bucket, refused, rules, code):
    with refused(code, 400):
        put(s3, bucket, *rules)
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_a_body_without_a_checksum_or_sense_is_refused(http, bucket):
    reply = http.request("PUT", f"/{bucket}", "lifecycle", body=b"<LifecycleConfiguration/>")
    assert (reply.status, reply.code) == (400, "InvalidRequest")
    for body in (b"<Other/>", b"<LifecycleConfiguration>"):
        md5 = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        reply = http.request(
            "PUT", f"/{bucket}", "lifecycle", body=body, headers={"content-md5": md5}
        )
        assert (reply.status, reply.code) == (400, "MalformedXML")


def test_an_unknown_least_size_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        put(s3, bucket, EXPIRE, TransitionDefaultMinimumObjectSize="some")


def test_whoever_is_not_allowed_is_denied(http, bucket):
    reply = http.send("PUT", f"/{bucket}?lifecycle", body=b"<LifecycleConfiguration/>")
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        put(s3, missing_bucket, EXPIRE)
