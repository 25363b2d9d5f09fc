"""PutObjectTagging: the tags change, and nothing else does."""

from concurrent.futures import ThreadPoolExecutor


def tag_set(tags):
    return {"TagSet": [{"Key": name, "Value": value} for name, value in tags.items()]}


def test_tags_are_replaced_and_the_version_stays(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="old=1", Metadata={"a": "b"})
    before = s3.get_object(Bucket=bucket, Key="k")
    sent = tag_set({"a": "1", "é": "", "c": "x y"})
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=sent)
    after = s3.get_object(Bucket=bucket, Key="k")
    same = ("ETag", "LastModified", "Metadata", "ContentType", "ContentLength")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert (after["TagCount"], after["Body"].read()) == (3, b"x")
    assert s3.head_object(Bucket=bucket, Key="k")["TagCount"] == 3
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == sent["TagSet"]


def test_an_object_of_parts_takes_tags(s3, bucket, upload_parts):
    upload, parts = upload_parts(bucket, "k", [b"x"])
    target = {"Bucket": bucket, "Key": "k"}
    s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload={"Parts": parts})
    s3.put_object_tagging(**target, Tagging=tag_set({"a": "1"}))
    assert s3.get_object(**target)["Body"].read() == b"x"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=target)
    assert (
        s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == tag_set({"a": "1"})["TagSet"]
    )


def test_what_breaks_a_rule_is_refused_and_changes_nothing(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Tagging="a=1")
    target = {"Bucket": bucket, "Key": "k"}
    with refused("BadRequest", 400):
        s3.put_object_tagging(**target, Tagging=tag_set({f"k{n}": "" for n in range(11)}))
    twice = {"TagSet": [{"Key": "a", "Value": "1"}] * 2}
    for tags in (tag_set({"aws:a": "1"}), tag_set({"a": "v" * 257}), tag_set({"a;": ""}), twice):
        with refused("InvalidTag", 400):
            s3.put_object_tagging(**target, Tagging=tags)
    assert s3.get_object_tagging(**target)["TagSet"] == [{"Key": "a", "Value": "1"}]


def test_a_body_that_is_no_tag_set_is_refused(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    for body in (b"", b"<Tagging/>", b"<Tags/>", b"x"):
        reply = http.request("PUT", f"/{bucket}/k", "tagging", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")


def test_what_is_not_there_is_refused(s3, bucket, missing_bucket, refused):
    for name, code in ((bucket, "NoSuchKey"), (missing_bucket, "NoSuchBucket")):
        with refused(code, 404):
            s3.put_object_tagging(Bucket=name, Key="k", Tagging=tag_set({"a": "1"}))


def test_racing_changes_leave_one_of_the_tag_sets(server, bucket):
    server.client().put_object(Bucket=bucket, Key="k", Body=b"x")
    clients = [server.client(endpoint) for endpoint in server.endpoints]

    def tag(number):
        s3 = clients[number % len(clients)]
        s3.put_object_tagging(
            Bucket=bucket, Key="k", Tagging=tag_set({"a": str(number), "b": str(number)})
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(24)))
    found = clients[0].get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert len({tag["Value"] for tag in found}) == 1
    assert clients[0].get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
