"""Sub-resources of a bucket on which nobody has set anything: AWS's exact answers.

Terraform, the SDKs and Gitea read these before they do anything else.
"""

import pytest

REFUSALS = {
    "get_bucket_lifecycle_configuration": "NoSuchLifecycleConfiguration",
    "get_bucket_policy": "NoSuchBucketPolicy",
    "get_bucket_policy_status": "NoSuchBucketPolicy",
    "get_bucket_cors": "NoSuchCORSConfiguration",
    "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "get_bucket_tagging": "NoSuchTagSet",
    "get_bucket_replication": "ReplicationConfigurationNotFoundError",
    "get_bucket_website": "NoSuchWebsiteConfiguration",
    "get_object_lock_configuration": "ObjectLockConfigurationNotFoundError",
    "get_public_access_block": "NoSuchPublicAccessBlockConfiguration",
    "get_bucket_ownership_controls": "OwnershipControlsNotFoundError",
}

DOCUMENTS = {
    "versioning": ("get_bucket_versioning", "VersioningConfiguration", {}),
    "accelerate": ("get_bucket_accelerate_configuration", "AccelerateConfiguration", {}),
    "logging": ("get_bucket_logging", "BucketLoggingStatus", {}),
    "notification": (
        "get_bucket_notification_configuration",
        "NotificationConfiguration",
        {},
    ),
    "requestPayment": (
        "get_bucket_request_payment",
        "RequestPaymentConfiguration",
        {"Payer": "BucketOwner"},
    ),
    "inventory": (
        "list_bucket_inventory_configurations",
        "ListInventoryConfigurationsResult",
        {"IsTruncated": False},
    ),
    "analytics": (
        "list_bucket_analytics_configurations",
        "ListBucketAnalyticsConfigurationResult",
        {"IsTruncated": False},
    ),
    "metrics": (
        "list_bucket_metrics_configurations",
        "ListMetricsConfigurationsResult",
        {"IsTruncated": False},
    ),
    "intelligent-tiering": (
        "list_bucket_intelligent_tiering_configurations",
        "ListBucketIntelligentTieringConfigurationsOutput",
        {"IsTruncated": False},
    ),
}


@pytest.mark.parametrize("operation", REFUSALS)
def test_what_was_never_set_is_refused_with_its_own_code(s3, bucket, refused, operation):
    with refused(REFUSALS[operation], 404):
        getattr(s3, operation)(Bucket=bucket)


@pytest.mark.parametrize("subresource", DOCUMENTS)
def test_what_has_a_default_is_answered_with_its_document(s3, http, bucket, subresource):
    operation, root, content = DOCUMENTS[subresource]
    reply = getattr(s3, operation)(Bucket=bucket)
    assert {name: value for name, value in reply.items() if name != "ResponseMetadata"} == content
    raw = http.request("GET", f"/{bucket}", subresource)
    assert raw["content-type"] == "application/xml"
    assert f"<{root}".encode() in raw.body


def test_the_owner_has_full_control(s3, bucket):
    reply = s3.get_bucket_acl(Bucket=bucket)
    [grant] = reply["Grants"]
    assert grant["Permission"] == "FULL_CONTROL"
    assert grant["Grantee"]["Type"] == "CanonicalUser"
    assert grant["Grantee"]["ID"] == reply["Owner"]["ID"]


def test_an_object_has_an_owner_and_no_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    acl = s3.get_object_acl(Bucket=bucket, Key="k")
    assert [grant["Permission"] for grant in acl["Grants"]] == ["FULL_CONTROL"]
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


@pytest.mark.parametrize("operation", [*REFUSALS, *(row[0] for row in DOCUMENTS.values())])
def test_a_missing_bucket_is_refused_first(s3, missing_bucket, refused, operation):
    with refused("NoSuchBucket", 404):
        getattr(s3, operation)(Bucket=missing_bucket)
