"""GetBucketLocation."""


def test_a_bucket_in_us_east_1_has_an_empty_location(s3, bucket):
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_the_document_is_an_empty_location_constraint(http, bucket):
    reply = http.request("GET", f"/{bucket}", "location")
    assert reply.status == 200
    assert b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' in reply.body


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_location(Bucket=missing_bucket)
