"""ListBuckets."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest


def mine(reply, prefix):
    return [entry["Name"] for entry in reply["Buckets"] if entry["Name"].startswith(prefix)]


@pytest.fixture
def family(s3):
    """Five buckets with a prefix of their own, in order."""
    prefix = f"family-{secrets.token_hex(6)}-"
    names = [prefix + letter for letter in "abcde"]
    for name in reversed(names):
        s3.create_bucket(Bucket=name)
    yield prefix, names
    for name in names:
        s3.delete_bucket(Bucket=name)


def test_buckets_are_listed_in_order_of_name(s3, family):
    prefix, names = family
    assert mine(s3.list_buckets(), prefix) == names


def test_a_bucket_is_listed_with_the_time_of_its_creation_and_its_owner(s3, bucket):
    reply = s3.list_buckets()
    [entry] = [entry for entry in reply["Buckets"] if entry["Name"] == bucket]
    assert abs(datetime.now(UTC) - entry["CreationDate"]) < timedelta(minutes=5)
    assert reply["Owner"]["ID"]


def test_a_prefix_selects_buckets_and_is_echoed(s3, family):
    prefix, names = family
    reply = s3.list_buckets(Prefix=prefix)
    assert [entry["Name"] for entry in reply["Buckets"]] == names
    assert reply["Prefix"] == prefix
    assert "ContinuationToken" not in reply


def test_pages_follow_each_other_without_gap_or_repetition(s3, family):
    prefix, names = family
    found, token, pages = [], {}, 0
    while True:
        reply = s3.list_buckets(Prefix=prefix, MaxBuckets=2, **token)
        found += [entry["Name"] for entry in reply["Buckets"]]
        pages += 1
        if "ContinuationToken" not in reply:
            break
        token = {"ContinuationToken": reply["ContinuationToken"]}
    assert (found, pages) == (names, 3)


@pytest.mark.parametrize("maximum", [0, 10_001, -3, "x"])
def test_a_page_size_out_of_range_is_refused(http, maximum):
    reply = http.request("GET", "/", f"max-buckets={maximum}")
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_token_that_was_never_given_out_is_refused(s3, refused):
    with refused("InvalidArgument", 400):
        s3.list_buckets(ContinuationToken="not-a-token")


def test_the_reply_is_a_list_all_my_buckets_result_in_amazons_namespace(http):
    reply = http.request("GET", "/")
    assert reply.status == 200
    assert reply["content-type"] == "application/xml"
    assert b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' in reply.body


def test_a_bucket_is_gone_from_the_list_when_it_was_deleted(s3):
    name = f"gone-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    s3.delete_bucket(Bucket=name)
    assert mine(s3.list_buckets(), name) == []
