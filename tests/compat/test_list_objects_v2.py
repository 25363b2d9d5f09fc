"""ListObjectsV2."""

import re

import pytest

TREE = ("a", "a/", "a/b", "a/b/c", "a/d", "ab", "b-1", "b-2", "c", "é", "～", "😀")


def keys(page):
    return [entry["Key"] for entry in page.get("Contents", [])]


def prefixes(page):
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def pages(s3, **arguments):
    token = {}
    while True:
        page = s3.list_objects_v2(**arguments, **token)
        yield page
        if not page["IsTruncated"]:
            assert "NextContinuationToken" not in page
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


@pytest.mark.parametrize(
    ("arguments", "expected_keys", "expected_prefixes"),
    [
        ({}, list(TREE), []),
        ({"Prefix": "a/"}, ["a/", "a/b", "a/b/c", "a/d"], []),
        ({"Delimiter": "/"}, ["a", "ab", "b-1", "b-2", "c", "é", "～", "😀"], ["a/"]),
        ({"Delimiter": "/", "Prefix": "a/"}, ["a/", "a/b", "a/d"], ["a/b/"]),
        ({"Delimiter": "b/c"}, [key for key in TREE if "b/c" not in key], ["a/b/c"]),
        ({"StartAfter": "a/b"}, list(TREE[3:]), []),
        ({"StartAfter": "a/b", "Prefix": "a"}, ["a/b/c", "a/d", "ab"], []),
        ({"StartAfter": "zzzz", "Prefix": "a"}, [], []),
        ({"StartAfter": "a/b", "Delimiter": "/"}, list(TREE[5:]), ["a/"]),
        ({"MaxKeys": 0}, [], []),
    ],
)
def test_prefix_delimiter_and_start_select(s3, tree, arguments, expected_keys, expected_prefixes):
    page = s3.list_objects_v2(Bucket=tree, **arguments)
    assert (keys(page), prefixes(page)) == (expected_keys, expected_prefixes)
    assert page["KeyCount"] == len(expected_keys) + len(expected_prefixes)
    assert page["IsTruncated"] is False


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 12])
@pytest.mark.parametrize("delimiter", [{}, {"Delimiter": "/"}], ids=["flat", "folded"])
def test_pages_follow_each_other_without_gap_or_repetition(s3, tree, size, delimiter):
    whole = s3.list_objects_v2(Bucket=tree, **delimiter)
    found = list(pages(s3, Bucket=tree, MaxKeys=size, **delimiter))
    assert [key for page in found for key in keys(page)] == keys(whole)
    assert [prefix for page in found for prefix in prefixes(page)] == prefixes(whole)
    assert all(page["KeyCount"] == size for page in found[:-1])


def test_a_token_wins_over_start_after_and_both_are_echoed(s3, tree):
    token = s3.list_objects_v2(Bucket=tree, MaxKeys=4)["NextContinuationToken"]
    page = s3.list_objects_v2(Bucket=tree, ContinuationToken=token, StartAfter="c")
    assert keys(page) == list(TREE[4:])
    assert page["ContinuationToken"] == token


def test_a_page_continues_after_its_last_key_was_deleted(s3, tree):
    page = s3.list_objects_v2(Bucket=tree, MaxKeys=4)
    s3.delete_object(Bucket=tree, Key=keys(page)[-1])
    rest = s3.list_objects_v2(Bucket=tree, ContinuationToken=page["NextContinuationToken"])
    assert keys(rest) == list(TREE[4:])


@pytest.mark.parametrize("token", ["", "x", "bm90IGEgdG9rZW4="])
def test_a_token_that_was_never_given_out_is_refused(s3, bucket, refused, token):
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, ContinuationToken=token)


def test_the_owner_is_given_only_when_asked_for(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"]


def test_an_entry_tells_the_algorithm_of_its_checksum(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ChecksumAlgorithm="SHA256")
    [entry] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["ChecksumAlgorithm"], entry["ChecksumType"]) == (["SHA256"], "FULL_OBJECT")


def test_more_than_a_thousand_keys_take_two_pages(s3, thousands):
    bucket, expected = thousands
    found = list(pages(s3, Bucket=bucket))
    assert [len(keys(page)) for page in found] == [1000, 5]
    assert [key for page in found for key in keys(page)] == expected


def test_many_keys_fold_into_one_common_prefix(s3, thousands):
    bucket, _ = thousands
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="-")
    assert (keys(page), prefixes(page), page["IsTruncated"]) == ([], ["key-"], False)


def test_an_empty_bucket_has_an_empty_listing(http, bucket):
    text = http.request("GET", f"/{bucket}", "list-type=2").body.decode()
    assert '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' in text
    assert "<KeyCount>0</KeyCount>" in text
    assert "<MaxKeys>1000</MaxKeys>" in text
    assert "<Marker" not in text


def test_keys_that_xml_cannot_hold_are_listed_percent_encoded(s3, bucket):
    awkward = ["\x01", "\x0b", "a\x1f", "\ufffe"]
    for key in awkward:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    assert keys(s3.list_objects_v2(Bucket=bucket)) == sorted(awkward, key=str.encode)


@pytest.mark.parametrize("arguments", [{"Prefix": "a b/&<"}, {"StartAfter": "ü+"}])
def test_parameters_are_echoed_as_they_were_given(s3, bucket, arguments):
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="&", **arguments)
    assert page["Delimiter"] == "&"
    assert {name: page[name] for name in arguments} == arguments


@pytest.mark.parametrize("prefix", ["", "k"])
def test_without_encoding_the_reply_still_parses(http, s3, bucket, prefix):
    s3.put_object(Bucket=bucket, Key="k<&>\"'\r\n\t", Body=b"")
    text = http.request("GET", f"/{bucket}", f"list-type=2&prefix={prefix}").body.decode()
    [key] = re.findall("<Key>(.*?)</Key>", text, re.DOTALL)
    assert key.startswith("k&lt;&amp;&gt;")
    assert "&#13;" in key or "&#xD;" in key


def test_an_unknown_list_type_is_refused(http, bucket):
    reply = http.request("GET", f"/{bucket}", "list-type=3")
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.list_objects_v2(Bucket=missing_bucket)
