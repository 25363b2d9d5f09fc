"""PutBucketVersioning and GetBucketVersioning."""

import pytest


def test_a_bucket_begins_without_versioning_and_says_what_it_has(s3, bucket):
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Enabled", "Suspended", "Enabled"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


def test_mfa_delete_is_refused_and_changes_nothing(s3, bucket, refused):
    with refused("NotImplemented", 501):
        s3.put_bucket_versioning(
            Bucket=bucket,
            MFA="serial 123456",
            VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"},
        )
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Disabled"}
    )
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<VersioningConfiguration/>", "IllegalVersioningConfigurationException"),
        (b"<VersioningConfiguration><Status>On</Status></VersioningConfiguration>", "MalformedXML"),
        (b"<Versioning><Status>Enabled</Status></Versioning>", "MalformedXML"),
        (b"<VersioningConfiguration><Status>Enabled</Status>", "MalformedXML"),
        (b"", "MissingRequestBodyError"),
    ],
)
def test_what_is_no_configuration_is_refused(s3, http, bucket, body, code):
    reply = http.request("PUT", f"/{bucket}", "versioning", body=body)
    assert (reply.status, f"<Code>{code}</Code>".encode() in reply.body) == (400, True)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_versioning(Bucket=missing_bucket)
    with refused("NoSuchBucket", 404):
        s3.put_bucket_versioning(
            Bucket=missing_bucket, VersioningConfiguration={"Status": "Enabled"}
        )


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_strangers_are_refused(http, bucket, method):
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    reply = http.send(method, f"/{bucket}", "versioning", body=body if method == "PUT" else b"")
    assert reply.status == 403
