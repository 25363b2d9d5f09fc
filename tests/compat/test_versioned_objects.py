"""Objects in buckets with versioning: what writes make, and reads by version id."""

import pytest

MISSING = "0000000000002q24"  # an id that may be, of a version that never was


def test_every_write_is_a_version_of_its_own(s3, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"one")["VersionId"]
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"two")["VersionId"]
    assert first != second
    assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == second
    for version, body in ((first, b"one"), (second, b"two")):
        reply = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (reply["VersionId"], reply["Body"].read()) == (version, body)
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version


def test_without_versioning_nothing_speaks_of_versions(s3, bucket):
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "VersionId" not in s3.get_object(Bucket=bucket, Key="k")
    assert "VersionId" not in s3.head_object(Bucket=bucket, Key="k", VersionId="null")
    assert "VersionId" not in s3.get_object_tagging(Bucket=bucket, Key="k")


def test_what_was_there_before_versioning_is_the_null_version(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    s3.put_object(Bucket=bucket, Key="k", Body=b"after")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"before"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"after"


def test_suspended_a_write_replaces_the_null_version_wherever_it_is(
    s3, versioned, suspend, history
):
    kept = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    suspend(versioned)
    assert s3.put_object(Bucket=versioned, Key="k", Body=b"null 1")["VersionId"] == "null"
    assert s3.put_object(Bucket=versioned, Key="k", Body=b"null 2")["VersionId"] == "null"
    assert history(versioned) == [("k", "null", True), ("k", kept, False)]
    s3.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Enabled"})
    newer = s3.put_object(Bucket=versioned, Key="k", Body=b"newer")["VersionId"]
    suspend(versioned)
    s3.put_object(Bucket=versioned, Key="k", Body=b"null 3")
    expected = [("k", "null", True), ("k", newer, False), ("k", kept, False)]
    assert history(versioned) == expected
    assert s3.get_object(Bucket=versioned, Key="k", VersionId="null")["Body"].read() == b"null 3"


def test_ranges_parts_and_conditions_are_of_the_version_named(s3, versioned, refused):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"0123456789")
    s3.put_object(Bucket=versioned, Key="k", Body=b"abc")
    named = {"Bucket": versioned, "Key": "k", "VersionId": old["VersionId"]}
    assert s3.get_object(**named, Range="bytes=5-")["Body"].read() == b"56789"
    assert s3.get_object(**named, IfMatch=old["ETag"])["ContentLength"] == 10
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=versioned, Key="k", IfMatch=old["ETag"])


def test_attributes_and_tags_are_of_the_version_named(s3, versioned):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"0123", Tagging="a=1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"x", Tagging="a=2")
    reply = s3.get_object_attributes(
        Bucket=versioned, Key="k", VersionId=old, ObjectAttributes=["ObjectSize"]
    )
    assert (reply["VersionId"], reply["ObjectSize"]) == (old, 4)
    tagging = s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)
    assert (tagging["VersionId"], tagging["TagSet"]) == (old, [{"Key": "a", "Value": "1"}])
    acl = s3.get_object_acl(Bucket=versioned, Key="k", VersionId=old)
    assert acl["Grants"][0]["Permission"] == "FULL_CONTROL"


@pytest.mark.parametrize("state", ["", "Enabled"])
def test_a_version_that_is_not_there_is_refused(s3, bucket, refused, state):
    if state:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for key in ("k", "other"):
        with refused("NoSuchVersion", 404):
            s3.get_object(Bucket=bucket, Key=key, VersionId=MISSING)
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=bucket, Key="other", VersionId="null")
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k", VersionId=MISSING)


@pytest.mark.parametrize("version_id", ["bad", "0" * 16, "NULL", "ü", "x" * 5000])
def test_what_cannot_be_a_version_id_is_refused(s3, versioned, refused, version_id):
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    named = {"Bucket": versioned, "Key": "k", "VersionId": version_id}
    for operation in (s3.get_object, s3.get_object_tagging, s3.get_object_acl, s3.delete_object):
        with refused("InvalidArgument", 400):
            operation(**named)
    with refused("400", 400):
        s3.head_object(**named)


def test_strangers_learn_nothing_about_versions(http, versioned):
    for version_id in ("null", "bad", MISSING):
        reply = http.send("GET", f"/{versioned}/k", f"versionId={version_id}")
        assert reply.status == 403


def test_a_write_if_the_key_is_free_succeeds_over_a_delete_marker(s3, versioned, refused):
    s3.put_object(Bucket=versioned, Key="k", Body=b"x", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=versioned, Key="k", Body=b"y", IfNoneMatch="*")
    s3.delete_object(Bucket=versioned, Key="k")
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=versioned, Key="k", Body=b"z", IfMatch="*")
    s3.put_object(Bucket=versioned, Key="k", Body=b"z", IfNoneMatch="*")
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"z"


def test_an_upload_in_parts_makes_a_version(s3, versioned, upload_parts):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")["VersionId"]
    upload_id, parts = upload_parts(versioned, "k", [b"p" * 5 * 2**20, b"end"])
    done = {
        "Bucket": versioned,
        "Key": "k",
        "UploadId": upload_id,
        "MultipartUpload": {"Parts": parts},
    }
    made = s3.complete_multipart_upload(**done)
    assert made["VersionId"] not in (old, "null")
    assert s3.complete_multipart_upload(**done)["VersionId"] == made["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k")
    reply = s3.get_object(Bucket=versioned, Key="k", VersionId=made["VersionId"], PartNumber=2)
    assert (reply["Body"].read(), reply["PartsCount"]) == (b"end", 2)


def test_a_copy_of_a_version_restores_it(s3, versioned, refused):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old", Metadata={"a": "1"})["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    source = {"Bucket": versioned, "Key": "k", "VersionId": old}
    reply = s3.copy_object(Bucket=versioned, Key="k", CopySource=source)
    assert reply["CopySourceVersionId"] == old
    found = s3.get_object(Bucket=versioned, Key="k")
    assert (found["VersionId"], found["Body"].read()) == (reply["VersionId"], b"old")
    assert found["Metadata"] == {"a": "1"}
    s3.copy_object(Bucket=versioned, Key="elsewhere", CopySource=source)
    assert s3.get_object(Bucket=versioned, Key="elsewhere")["Body"].read() == b"old"
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=versioned, Key="c", CopySource=source | {"VersionId": marker})
    with refused("NoSuchVersion", 404):
        s3.copy_object(Bucket=versioned, Key="c", CopySource=source | {"VersionId": MISSING})
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=versioned, Key="c", CopySource=source | {"VersionId": "bad"})


def test_a_part_copies_the_version_named(s3, versioned):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"0123456789")["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k")
    upload_id = s3.create_multipart_upload(Bucket=versioned, Key="c")["UploadId"]
    part = {"Bucket": versioned, "Key": "c", "UploadId": upload_id, "PartNumber": 1}
    source = {"Bucket": versioned, "Key": "k", "VersionId": old}
    reply = s3.upload_part_copy(**part, CopySource=source, CopySourceRange="bytes=2-4")
    assert reply["CopySourceVersionId"] == old
    parts = [{"PartNumber": 1, "ETag": reply["CopyPartResult"]["ETag"]}]
    s3.complete_multipart_upload(
        Bucket=versioned, Key="c", UploadId=upload_id, MultipartUpload={"Parts": parts}
    )
    assert s3.get_object(Bucket=versioned, Key="c")["Body"].read() == b"234"
