"""PutBucketTagging."""


def tag_set(tags):
    return {"TagSet": [{"Key": name, "Value": value} for name, value in tags.items()]}


def test_tags_are_read_back_in_order(s3, bucket):
    sent = tag_set({"stage": "a b", "é": "", "a:b/c": "x@y"})
    reply = s3.put_bucket_tagging(Bucket=bucket, Tagging=sent)
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == sent["TagSet"]


def test_fifty_tags_are_accepted_and_replace_the_others(s3, bucket, refused):
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set({"old": "1"}))
    fifty = tag_set({f"k{number}": str(number) for number in range(50)})
    s3.put_bucket_tagging(Bucket=bucket, Tagging=fifty)
    with refused("BadRequest", 400):
        s3.put_bucket_tagging(
            Bucket=bucket, Tagging=tag_set({f"k{number}": "" for number in range(51)})
        )
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == fifty["TagSet"]


def test_tags_that_break_a_rule_are_refused(s3, bucket, refused):
    twice = {"TagSet": [{"Key": "a", "Value": "1"}] * 2}
    for tags in (tag_set({"aws:a": "1"}), tag_set({"k" * 129: ""}), tag_set({"a;": ""}), twice):
        with refused("InvalidTag", 400):
            s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)


def test_a_body_without_checksum_is_refused(http, bucket):
    body = b"<Tagging><TagSet/></Tagging>"
    reply = http.request("PUT", f"/{bucket}", "tagging", body=body)
    assert (reply.status, reply.code) == (400, "InvalidRequest")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_tagging(Bucket=missing_bucket, Tagging=tag_set({"a": "1"}))
