"""DeleteObject and DeleteObjects in buckets with versioning."""


def test_a_delete_hides_the_key_behind_a_marker(s3, http, versioned, refused, history):
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    reply = s3.delete_object(Bucket=versioned, Key="k")
    marker = reply["VersionId"]
    assert reply["DeleteMarker"] is True
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=versioned, Key="k")
    raw = http.request("GET", f"/{versioned}/k")
    assert (raw.status, raw["x-amz-delete-marker"], raw["x-amz-version-id"]) == (
        404,
        "true",
        marker,
    )
    raw = http.request("GET", f"/{versioned}/k", f"versionId={marker}")
    assert (raw.status, raw["x-amz-delete-marker"], raw["allow"]) == (405, "true", "DELETE")
    assert b"<Code>MethodNotAllowed</Code>" in raw.body
    raw = http.request("HEAD", f"/{versioned}/k", f"versionId={marker}")
    assert (raw.status, raw["x-amz-version-id"]) == (405, marker)
    assert s3.get_object(Bucket=versioned, Key="k", VersionId=version)["Body"].read() == b"x"
    assert sorted(history(versioned)) == [("-k", marker, True), ("k", version, False)]


def test_removing_the_marker_shows_the_version_again(s3, versioned):
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    markers = [s3.delete_object(Bucket=versioned, Key="k")["VersionId"] for _ in range(2)]
    for marker in markers:
        assert s3.list_objects_v2(Bucket=versioned)["KeyCount"] == 0
        reply = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
        assert (reply["VersionId"], reply["DeleteMarker"]) == (marker, True)
    assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == version
    assert s3.list_objects_v2(Bucket=versioned)["KeyCount"] == 1


def test_a_key_that_never_was_gets_a_marker_too(s3, versioned, history):
    marker = s3.delete_object(Bucket=versioned, Key="never")["VersionId"]
    assert history(versioned) == [("-never", marker, True)]


def test_removing_the_newest_version_shows_the_one_before(s3, versioned, history):
    ids = [
        s3.put_object(Bucket=versioned, Key="k", Body=b"%d" % number)["VersionId"]
        for number in range(3)
    ]
    reply = s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[2])
    assert reply["VersionId"] == ids[2]
    assert "DeleteMarker" not in reply
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"1"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[0])
    assert history(versioned) == [("k", ids[1], True)]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[1])
    assert history(versioned) == []


def test_removing_a_version_that_is_not_there_succeeds(s3, versioned, history):
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"y")
    for _ in range(2):
        s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    s3.delete_object(Bucket=versioned, Key="other", VersionId=version)
    s3.delete_object(Bucket=versioned, Key="k", VersionId="null")
    assert len(history(versioned)) == 1


def test_suspended_a_delete_leaves_a_null_marker_in_place_of_the_null_version(
    s3, versioned, suspend, history
):
    kept = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    suspend(versioned)
    s3.put_object(Bucket=versioned, Key="k", Body=b"null")
    for _ in range(2):
        reply = s3.delete_object(Bucket=versioned, Key="k")
        assert (reply["VersionId"], reply["DeleteMarker"]) == ("null", True)
        assert sorted(history(versioned)) == [("-k", "null", True), ("k", kept, False)]
    s3.delete_object(Bucket=versioned, Key="k", VersionId="null")
    assert history(versioned) == [("k", kept, True)]


def test_without_versioning_the_null_version_may_be_named(s3, bucket, history):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert history(bucket) == []


def test_conditions_are_judged_on_what_is_deleted(s3, versioned, refused, history):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")
    new = s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=versioned, Key="k", IfMatch=old["ETag"])
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=versioned, Key="k", VersionId=old["VersionId"], IfMatch=new["ETag"])
    s3.delete_object(Bucket=versioned, Key="k", VersionId=old["VersionId"], IfMatch=old["ETag"])
    assert history(versioned) == [("k", new["VersionId"], True)]


def test_many_versions_and_markers_go_at_once(s3, versioned, history):
    ids = [s3.put_object(Bucket=versioned, Key="a", Body=b"x")["VersionId"] for _ in range(5)]
    marker = s3.delete_object(Bucket=versioned, Key="a")["VersionId"]
    s3.put_object(Bucket=versioned, Key="b", Body=b"x")
    asked = [{"Key": "a", "VersionId": version} for version in [*ids, marker]]
    reply = s3.delete_objects(Bucket=versioned, Delete={"Objects": [*asked, {"Key": "b"}]})
    assert "Errors" not in reply
    deleted = {(row["Key"], row.get("VersionId")): row for row in reply["Deleted"]}
    assert set(deleted) == {("a", version) for version in [*ids, marker]} | {("b", None)}
    assert "DeleteMarker" not in deleted["a", ids[0]]
    assert deleted["a", marker]["DeleteMarkerVersionId"] == marker
    made = deleted["b", None]["DeleteMarkerVersionId"]
    assert deleted["b", None]["DeleteMarker"] is True
    assert ("-b", made, True) in history(versioned)
    assert [row for row in history(versioned) if "a" in row[0]] == []


def test_one_bad_version_id_does_not_stop_the_others(s3, versioned, history):
    version = s3.put_object(Bucket=versioned, Key="a", Body=b"x")["VersionId"]
    asked = [{"Key": "a", "VersionId": "bad"}, {"Key": "a", "VersionId": version}]
    reply = s3.delete_objects(Bucket=versioned, Delete={"Objects": asked})
    assert [(row["VersionId"], row["Code"]) for row in reply["Errors"]] == [
        ("bad", "InvalidArgument")
    ]
    assert history(versioned) == []


def test_a_bucket_with_a_noncurrent_version_or_a_marker_is_not_empty(s3, versioned, refused):
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=versioned)
    s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=versioned)
    s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    s3.delete_bucket(Bucket=versioned)
    s3.create_bucket(Bucket=versioned)  # for the fixture to remove


def test_a_condition_on_a_hidden_key_fails_and_leaves_it(s3, versioned, refused, history):
    etag = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["ETag"]
    s3.delete_object(Bucket=versioned, Key="k")
    before = history(versioned)
    for wanted in ("*", etag):
        with refused("PreconditionFailed", 412):
            s3.delete_object(Bucket=versioned, Key="k", IfMatch=wanted)
    assert history(versioned) == before
    with refused("NoSuchKey", 404):
        s3.delete_object(Bucket=versioned, Key="never", IfMatch="*")


def test_conditions_hold_for_a_marker_and_for_a_version(s3, versioned, refused, history):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")
    new = s3.put_object(Bucket=versioned, Key="k", Body=b"newer")
    for condition in ({"IfMatch": old["ETag"]}, {"IfMatchSize": 3}):
        with refused("PreconditionFailed", 412):
            s3.delete_object(Bucket=versioned, Key="k", **condition)
    named = {"Bucket": versioned, "Key": "k", "VersionId": old["VersionId"]}
    with refused("PreconditionFailed", 412):
        s3.delete_object(**named, IfMatchSize=5)
    s3.delete_object(**named, IfMatchSize=3, IfMatch="*")
    marker = s3.delete_object(Bucket=versioned, Key="k", IfMatch=new["ETag"], IfMatchSize=5)
    assert marker["DeleteMarker"] is True
    assert len(history(versioned)) == 2
