"""What a fresh bucket and object answer, as botocore's own parser and exceptions see it."""

import xml.etree.ElementTree as ET
from typing import Any

import botocore.session
import pytest
from botocore.parsers import RestXMLParser

from s3gw.buckets.fresh import ANSWERS, Refusal
from s3gw.errors import S3Error
from s3gw.operations.bucket_subresources import fresh_answer
from s3gw.wire.xml import NAMESPACE

MODEL = botocore.session.get_session().get_service_model("s3")
ERRORS = {name for name, answer in ANSWERS.items() if isinstance(answer, Refusal)}
# What boto3 returns, beside ResponseMetadata.
PARSED: dict[str, dict[str, Any]] = {
    "GetBucketAbac": {"AbacStatus": {"Status": "Disabled"}},
    "GetBucketAccelerateConfiguration": {},
    "GetBucketLogging": {},
    "GetBucketNotificationConfiguration": {},
    "GetBucketRequestPayment": {"Payer": "BucketOwner"},
    "ListBucketAnalyticsConfigurations": {"IsTruncated": False},
    "ListBucketIntelligentTieringConfigurations": {"IsTruncated": False},
    "ListBucketInventoryConfigurations": {"IsTruncated": False},
    "ListBucketMetricsConfigurations": {"IsTruncated": False},
}
CODES = {
    "GetBucketAnalyticsConfiguration": ("NoSuchConfiguration", 404),
    "GetBucketCors": ("NoSuchCORSConfiguration", 404),
    "GetBucketEncryption": ("ServerSideEncryptionConfigurationNotFoundError", 404),
    "GetBucketIntelligentTieringConfiguration": ("NoSuchConfiguration", 404),
    "GetBucketInventoryConfiguration": ("NoSuchConfiguration", 404),
    "GetBucketLifecycleConfiguration": ("NoSuchLifecycleConfiguration", 404),
    "GetBucketMetadataConfiguration": ("MetadataConfigurationNotFound", 404),
    "GetBucketMetadataTableConfiguration": ("MetadataConfigurationNotFound", 404),
    "GetBucketMetricsConfiguration": ("NoSuchConfiguration", 404),
    "GetBucketReplication": ("ReplicationConfigurationNotFoundError", 404),
    "GetBucketTagging": ("NoSuchTagSet", 404),
    "GetBucketWebsite": ("NoSuchWebsiteConfiguration", 404),
    "PreflightBucket": ("AccessForbidden", 403),
    "PreflightObject": ("AccessForbidden", 403),
}
# The root element is that of the request which makes the setting.
SETTERS = {
    "GetBucketAbac": "PutBucketAbac",
    "GetBucketAccelerateConfiguration": "PutBucketAccelerateConfiguration",
    "GetBucketLogging": "PutBucketLogging",
    "GetBucketNotificationConfiguration": "PutBucketNotificationConfiguration",
    "GetBucketRequestPayment": "PutBucketRequestPayment",
}


def answer(name: str) -> bytes:
    return fresh_answer(name, bucket="bucket-name")


def test_every_answer_is_tested() -> None:
    assert set(CODES) == ERRORS
    assert set(PARSED) == set(ANSWERS) - ERRORS


@pytest.mark.parametrize("name", sorted(PARSED))
def test_document_reads_in_botocore_as_an_unset_setting(name: str) -> None:
    response = {"status_code": 200, "headers": {}, "body": answer(name)}
    parsed = RestXMLParser().parse(response, MODEL.operation_model(name).output_shape)
    del parsed["ResponseMetadata"]
    assert parsed == PARSED[name]


@pytest.mark.parametrize(("name", "setter"), SETTERS.items())
def test_root_element_is_the_models(name: str, setter: str) -> None:
    shape = MODEL.operation_model(setter).input_shape
    payload = shape.members[shape.serialization["payload"]]
    root = payload.serialization.get("name", payload.name)
    assert ET.fromstring(answer(name)).tag == f"{{{NAMESPACE}}}{root}"


@pytest.mark.parametrize(("name", "expected"), CODES.items())
def test_missing_setting_has_the_code_of_s3(name: str, expected: tuple[str, int]) -> None:
    with pytest.raises(S3Error) as caught:
        answer(name)
    assert (caught.value.code, caught.value.status) == expected
    assert caught.value.fields == {"BucketName": "bucket-name"}
