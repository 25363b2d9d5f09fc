"""GetBucketNotificationConfiguration."""


def test_there_are_no_destinations(s3, http, bucket):
    assert set(s3.get_bucket_notification_configuration(Bucket=bucket)) == {"ResponseMetadata"}
    raw = http.request("GET", f"/{bucket}", "notification")
    assert b"<NotificationConfiguration" in raw.body


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_notification_configuration(Bucket=missing_bucket)
