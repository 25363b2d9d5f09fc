"""ListObjectVersions."""

import urllib.parse

import boto3
import pytest


def pages(s3, bucket, **asked):
    """All pages by the SDK's paginator: (key, version id, latest, marker) and common prefixes."""
    found, prefixes = [], []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **asked):
        rows = [(row, False) for row in page.get("Versions", [])]
        rows += [(row, True) for row in page.get("DeleteMarkers", [])]
        found += [(row["Key"], row["VersionId"], row["IsLatest"], gone) for row, gone in rows]
        prefixes += [row["Prefix"] for row in page.get("CommonPrefixes", [])]
    return found, prefixes


@pytest.fixture
def filled(s3, versioned):
    """Three versions of `a`, a hidden `b/x`, one of `b/y` and `c`, in the order of a listing."""
    made = {}
    for key in ("c", "a", "b/x", "b/y", "a", "a"):
        version = s3.put_object(Bucket=versioned, Key=key, Body=key.encode())["VersionId"]
        made.setdefault(key, []).insert(0, (key, version, False))
    marker = s3.delete_object(Bucket=versioned, Key="b/x")["VersionId"]
    made["b/x"].insert(0, ("b/x", marker, True))
    return [
        (key, version, row == 0, gone)
        for name in sorted(made)
        for row, (key, version, gone) in enumerate(made[name])
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pages_of_any_size_show_every_version_once(s3, versioned, filled, size):
    found, _ = pages(s3, versioned, PaginationConfig={"PageSize": size})
    assert sorted(found) == sorted(filled)
    shown = [row for row in found if not row[3]]
    assert shown == [row for row in filled if not row[3]]


def test_a_version_is_described(s3, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"four", StorageClass="STANDARD_IA")
    s3.delete_object(Bucket=versioned, Key="k")
    page = s3.list_object_versions(Bucket=versioned)
    [version], [marker] = page["Versions"], page["DeleteMarkers"]
    head = s3.head_object(Bucket=versioned, Key="k", VersionId=version["VersionId"])
    assert version["ETag"] == head["ETag"]
    assert version["Size"] == 4
    assert version["StorageClass"] == "STANDARD_IA"
    assert version["LastModified"].replace(microsecond=0) == head["LastModified"]
    assert (version["IsLatest"], marker["IsLatest"]) == (False, True)
    assert version["Owner"] == marker["Owner"]
    assert "Size" not in marker


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_common_prefixes_take_the_place_of_all_their_versions(s3, versioned, filled, size):
    found, prefixes = pages(s3, versioned, Delimiter="/", PaginationConfig={"PageSize": size})
    assert found == [row for row in filled if "/" not in row[0]]
    assert prefixes == ["b/"]


def test_a_prefix_picks_keys(s3, versioned, filled):
    found, prefixes = pages(s3, versioned, Prefix="b/", Delimiter="/")
    assert sorted(found) == sorted(row for row in filled if row[0].startswith("b/"))
    assert prefixes == []


def test_markers_and_limits_are_echoed(s3, versioned, filled):
    page = s3.list_object_versions(Bucket=versioned, MaxKeys=2, KeyMarker="0")
    assert (page["KeyMarker"], page["VersionIdMarker"], page["MaxKeys"]) == ("0", "", 2)
    assert (page["IsTruncated"], page["NextKeyMarker"]) == (True, "a")
    assert page["NextVersionIdMarker"] == filled[1][1]
    page = s3.list_object_versions(Bucket=versioned, MaxKeys=0)
    assert (page["IsTruncated"], "Versions" in page) == (False, False)
    assert s3.list_object_versions(Bucket=versioned, MaxKeys=2000)["MaxKeys"] == 1000


def test_a_key_marker_alone_passes_all_versions_of_its_key(s3, versioned, filled):
    page = s3.list_object_versions(Bucket=versioned, KeyMarker="a")
    assert {row["Key"] for row in page["Versions"]} == {"b/x", "b/y", "c"}
    page = s3.list_object_versions(Bucket=versioned, KeyMarker="b/", Delimiter="/")
    assert [row["Key"] for row in page["Versions"]] == ["c"]


def test_null_may_be_a_marker(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"null")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    s3.put_object(Bucket=bucket, Key="l", Body=b"x")
    page = s3.list_object_versions(Bucket=bucket, KeyMarker="k", VersionIdMarker="null")
    assert [row["Key"] for row in page["Versions"]] == ["l"]
    assert page["VersionIdMarker"] == "null"


@pytest.mark.parametrize(
    "asked",
    [
        {"VersionIdMarker": "null"},
        {"KeyMarker": "k", "VersionIdMarker": "bad"},
        {"MaxKeys": -1},
        {"EncodingType": "base64"},
    ],
)
def test_bad_parameters_are_refused(s3, versioned, refused, asked):
    with refused("InvalidArgument", 400):
        s3.list_object_versions(Bucket=versioned, **asked)


def test_keys_are_encoded_when_asked(s3, http, versioned):
    key = "a b/é\n"
    s3.put_object(Bucket=versioned, Key=key, Body=b"x")
    reply = http.request("GET", f"/{versioned}", "encoding-type=url&versions")
    assert f"<Key>{urllib.parse.quote(key)}</Key>".encode() in reply.body
    assert b"<EncodingType>url</EncodingType>" in reply.body
    assert s3.list_object_versions(Bucket=versioned)["Versions"][0]["Key"] == key


def test_without_versioning_every_object_is_its_null_version(server, s3, bucket):
    """As Terraform's force_destroy and boto3's `object_versions` read it, and delete by it."""
    for key in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert pages(s3, bucket)[0] == [("a", "null", True, False), ("b", "null", True, False)]
    resource = boto3.resource(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    resource.Bucket(bucket).object_versions.delete()
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_hidden_keys_and_their_prefixes_are_not_listed_as_objects(s3, versioned, filled):
    marker = s3.delete_object(Bucket=versioned, Key="b/y")["VersionId"]
    for listing in (s3.list_objects, s3.list_objects_v2):
        page = listing(Bucket=versioned, Delimiter="/")
        assert [row["Key"] for row in page["Contents"]] == ["a", "c"]
        assert "CommonPrefixes" not in page
    s3.delete_object(Bucket=versioned, Key="b/y", VersionId=marker)
    page = s3.list_objects_v2(Bucket=versioned, Delimiter="/")
    assert page["CommonPrefixes"] == [{"Prefix": "b/"}]


def test_a_missing_bucket_and_strangers_are_refused(s3, http, bucket, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.list_object_versions(Bucket=missing_bucket)
    assert http.send("GET", f"/{bucket}", "versions").status == 403
