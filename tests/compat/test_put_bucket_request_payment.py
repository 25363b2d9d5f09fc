"""PutBucketRequestPayment."""


def test_the_payer_is_read_back_and_can_be_changed(s3, bucket):
    for payer in ("Requester", "BucketOwner"):
        s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": payer})
        assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == payer


def test_another_payer_is_refused(s3, bucket, refused):
    with refused("MalformedXML", 400):
        s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "You"})


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_request_payment(
            Bucket=missing_bucket, RequestPaymentConfiguration={"Payer": "Requester"}
        )
