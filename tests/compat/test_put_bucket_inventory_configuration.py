"""PutBucketInventoryConfiguration."""

from tests.compat.bucket_configurations import INVENTORY


def test_what_is_set_is_read_back(s3, bucket):
    sent = INVENTORY.put(s3, bucket, "one")
    assert INVENTORY.get(s3, bucket, "one") == sent


def test_the_same_id_again_replaces_the_configuration(s3, bucket):
    INVENTORY.put(s3, bucket, "one")
    sent = INVENTORY.put(s3, bucket, "one", IsEnabled=False)
    assert INVENTORY.listed(INVENTORY.list(s3, bucket)) == [sent]


def test_a_destination_that_is_no_arn_is_refused(s3, bucket, refused):
    destination = {"S3BucketDestination": {"Bucket": "reports", "Format": "CSV"}}
    with refused("InvalidArgument", 400):
        INVENTORY.put(s3, bucket, "one", Destination=destination)
    assert INVENTORY.listed(INVENTORY.list(s3, bucket)) == []


def test_an_id_that_differs_from_that_of_the_request_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        s3.put_bucket_inventory_configuration(
            Bucket=bucket,
            Id="one",
            InventoryConfiguration={**INVENTORY.sample, "Id": "other"},
        )


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    for body in (b"", b"<Other/>", b"<InventoryConfiguration/>", b"<InventoryConfiguration"):
        reply = http.request("PUT", f"/{bucket}", "inventory&id=one", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        INVENTORY.put(s3, missing_bucket, "one")
