"""PutBucketNotificationConfiguration: there are no destinations, so the empty one is accepted."""


def test_the_empty_configuration_is_accepted(s3, bucket):
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert set(found) == {"ResponseMetadata"}


def test_destinations_that_nobody_delivers_to_are_refused(s3, bucket, refused):
    events = ["s3:ObjectCreated:*"]
    for configuration in (
        {"TopicConfigurations": [{"TopicArn": "arn:aws:sns:::t", "Events": events}]},
        {"QueueConfigurations": [{"QueueArn": "arn:aws:sqs:::q", "Events": events}]},
        {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": "arn:f", "Events": events}]},
        {"EventBridgeConfiguration": {}},
    ):
        for skipped in (False, True):
            with refused("InvalidArgument", 400):
                s3.put_bucket_notification_configuration(
                    Bucket=bucket,
                    NotificationConfiguration=configuration,
                    SkipDestinationValidation=skipped,
                )


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    reply = http.request("PUT", f"/{bucket}", "notification", body=b"<Other/>")
    assert (reply.status, reply.code) == (400, "MalformedXML")
