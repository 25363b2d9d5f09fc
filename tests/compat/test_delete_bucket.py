"""DeleteBucket."""

import secrets


def test_an_empty_bucket_is_deleted_with_204_and_no_body(s3, http, refused):
    name = f"deleted-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    reply = http.request("DELETE", f"/{name}")
    assert (reply.status, reply.body) == (204, b"")
    with refused("404", 404):
        s3.head_bucket(Bucket=name)


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket(Bucket=missing_bucket)


def test_a_bucket_with_an_object_is_refused_and_keeps_it(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_bucket_whose_objects_were_deleted_can_be_deleted(s3, refused):
    name = f"emptied-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    with refused("NoSuchBucket", 404):
        s3.put_object(Bucket=name, Key="k", Body=b"x")


def test_a_bucket_created_again_under_the_same_name_is_empty(s3):
    name = f"again-{secrets.token_hex(8)}"
    for _ in range(2):
        s3.create_bucket(Bucket=name)
        assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0
        s3.put_object(Bucket=name, Key="k", Body=b"x")
        s3.delete_object(Bucket=name, Key="k")
        s3.delete_bucket(Bucket=name)
