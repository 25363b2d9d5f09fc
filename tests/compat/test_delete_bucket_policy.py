"""DeleteBucketPolicy."""


def test_the_policy_is_gone_and_what_it_opened_is_closed(http, s3, put_policy, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {})
    assert http.send("GET", f"/{bucket}/k").status == 200
    reply = http.request("DELETE", f"/{bucket}", "policy")
    assert (reply.status, reply.body) == (204, b"")
    assert http.send("GET", f"/{bucket}/k").code == "AccessDenied"
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)


def test_where_there_is_none_it_succeeds_too(http, bucket):
    assert http.request("DELETE", f"/{bucket}", "policy").status == 204


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_policy(Bucket=missing_bucket)


def test_nobody_else_may(http, s3, put_policy, bucket):
    put_policy(bucket, {})
    assert http.send("DELETE", f"/{bucket}", "policy").code == "AccessDenied"
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"]
