"""GetBucketRequestPayment."""


def test_the_owner_pays_until_somebody_else_does(s3, http, bucket):
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    raw = http.request("GET", f"/{bucket}", "requestPayment")
    assert raw["content-type"] == "application/xml"
    assert b"<Payer>Requester</Payer>" in raw.body
