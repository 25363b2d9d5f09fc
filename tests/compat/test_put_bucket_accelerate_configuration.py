"""PutBucketAccelerateConfiguration."""

import secrets


def test_the_status_is_read_back_and_can_be_changed(s3, bucket):
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_accelerate_configuration(
            Bucket=bucket, AccelerateConfiguration={"Status": status}
        )
        assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == status


def test_a_name_with_dots_is_refused(s3, refused):
    name = f"dotted.{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    with refused("InvalidRequest", 400):
        s3.put_bucket_accelerate_configuration(
            Bucket=name, AccelerateConfiguration={"Status": "Enabled"}
        )
    s3.delete_bucket(Bucket=name)


def test_another_status_is_refused(s3, bucket, refused):
    with refused("MalformedXML", 400):
        s3.put_bucket_accelerate_configuration(
            Bucket=bucket, AccelerateConfiguration={"Status": "Fast"}
        )
