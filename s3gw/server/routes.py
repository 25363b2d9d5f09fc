"""THE route table: one row per S3 operation, built or not.

The first 116 names are those of botocore's model; four pairs of them are the same request on the
wire (a deprecated and a present form), so one row carries both names. The last rows are what S3
answers and the model leaves out. A row's name is the metric label, the audit field, the name of the
compatibility test and the row of the README's table.

A request belongs to the row of its method and scope whose discriminators it has: `query` keys (with
their values, where the value discriminates) and `headers`, lower case. The row with most of them
wins; `resolve` refuses what no row explains. `handler` is `module:function` under
`s3gw.operations`; without one the operation has a fresh answer (`s3gw.buckets.fresh`) or is an
honest 501.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from s3gw import limits


class Scope(Enum):
    """What the path names."""

    SERVICE = "service"
    BUCKET = "bucket"
    OBJECT = "object"


class Asks(Enum):
    """Who authorizes a request of the row."""

    ROW = "once, with the row's action"
    ITEM = "the operation, with the row's action, about what it finds in the body"
    UPLOAD = "the operation, with the row's action, once it knows who began the upload"
    NOBODY = "a CORS preflight carries no credentials"


class Body(NamedTuple):
    """What a request body is, and how many bytes it may have (0: the operation says)."""

    kind: str
    bytes_max: int


NONE = Body("none", 0)
XML = Body("xml", limits.XML_SMALL_BYTES_MAX)
XML_LIFECYCLE = Body("xml", limits.LIFECYCLE_BYTES_MAX)
XML_LARGE = Body("xml", limits.XML_LARGE_BYTES_MAX)
JSON = Body("json", limits.XML_SMALL_BYTES_MAX)
FORM = Body("form", 0)
STREAM = Body("stream", 0)

GET, HEAD, PUT, POST, DELETE, OPTIONS = "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"
SERVICE, BUCKET, OBJECT = Scope.SERVICE, Scope.BUCKET, Scope.OBJECT


@dataclass(frozen=True, slots=True)
class Row:
    """One operation.

    `query` is written as in a URL, `select&select-type=2`: a key without `=` needs only be there.
    `version_action` replaces `action` when the request names a `versionId`.
    """

    name: str
    method: str
    scope: Scope
    query: str
    action: str
    version_action: str | None = None
    body: Body = NONE
    handler: str | None = None
    headers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    asks: Asks = Asks.ROW

    @property
    def required(self) -> tuple[tuple[str, str | None], ...]:
        """`query` as (key, value that it must have or None) pairs."""
        pairs = (term.partition("=") for term in self.query.split("&") if term)
        return tuple((key, value if equals else None) for key, equals, value in pairs)


# One operation, one line, however long.
# ruff: noqa: E501
# fmt: off
ROWS: tuple[Row, ...] = (
    # Service.
    Row("ListBuckets", GET, SERVICE, "", "s3:ListAllMyBuckets", handler="list_buckets:list_buckets"),
    Row("ListDirectoryBuckets", GET, SERVICE, "max-directory-buckets", "s3express:ListAllMyDirectoryBuckets"),
    Row("WriteGetObjectResponse", POST, SERVICE, "", "s3-object-lambda:WriteGetObjectResponse", body=STREAM, headers=("x-amz-request-route",)),
    # Buckets.
    Row("CreateBucket", PUT, BUCKET, "", "s3:CreateBucket", body=XML, handler="create_bucket:create_bucket"),
    Row("HeadBucket", HEAD, BUCKET, "", "s3:ListBucket", handler="head_bucket:head_bucket"),
    Row("DeleteBucket", DELETE, BUCKET, "", "s3:DeleteBucket", handler="delete_bucket:delete_bucket"),
    Row("GetBucketLocation", GET, BUCKET, "location", "s3:GetBucketLocation", handler="get_bucket_location:get_bucket_location"),
    Row("CreateSession", GET, BUCKET, "session", "s3express:CreateSession"),
    # Listing.
    Row("ListObjects", GET, BUCKET, "", "s3:ListBucket", handler="list_objects:list_objects"),
    Row("ListObjectsV2", GET, BUCKET, "list-type=2", "s3:ListBucket", handler="list_objects_v2:list_objects_v2"),
    Row("ListObjectVersions", GET, BUCKET, "versions", "s3:ListBucketVersions", handler="list_object_versions:list_object_versions"),
    Row("ListMultipartUploads", GET, BUCKET, "uploads", "s3:ListBucketMultipartUploads", handler="list_multipart_uploads:list_multipart_uploads"),
    # Objects.
    Row("PutObject", PUT, OBJECT, "", "s3:PutObject", body=STREAM, handler="put_object:put_object"),
    Row("CopyObject", PUT, OBJECT, "", "s3:PutObject", headers=("x-amz-copy-source",), handler="copy_object:copy_object"),
    Row("GetObject", GET, OBJECT, "", "s3:GetObject", "s3:GetObjectVersion", handler="get_object:get_object"),
    Row("HeadObject", HEAD, OBJECT, "", "s3:GetObject", "s3:GetObjectVersion", handler="head_object:head_object"),
    Row("DeleteObject", DELETE, OBJECT, "", "s3:DeleteObject", "s3:DeleteObjectVersion", handler="delete_object:delete_object"),
    Row("DeleteObjects", POST, BUCKET, "delete", "s3:DeleteObject", "s3:DeleteObjectVersion", body=XML_LARGE, asks=Asks.ITEM, handler="delete_objects:delete_objects"),
    Row("GetObjectAttributes", GET, OBJECT, "attributes", "s3:GetObjectAttributes", "s3:GetObjectVersionAttributes", handler="get_object_attributes:get_object_attributes"),
    Row("RestoreObject", POST, OBJECT, "restore", "s3:RestoreObject", body=XML),
    Row("SelectObjectContent", POST, OBJECT, "select&select-type=2", "s3:GetObject", body=XML),
    Row("GetObjectTorrent", GET, OBJECT, "torrent", "s3:GetObjectTorrent", "s3:GetObjectVersionTorrent"),
    Row("RenameObject", PUT, OBJECT, "renameObject", "s3:PutObject", handler="rename_object:rename_object"),
    # Multipart uploads.
    Row("CreateMultipartUpload", POST, OBJECT, "uploads", "s3:PutObject", handler="create_multipart_upload:create_multipart_upload"),
    Row("UploadPart", PUT, OBJECT, "partNumber&uploadId", "s3:PutObject", body=STREAM, handler="upload_part:upload_part"),
    Row("UploadPartCopy", PUT, OBJECT, "partNumber&uploadId", "s3:PutObject", headers=("x-amz-copy-source",), handler="upload_part_copy:upload_part_copy"),
    Row("CompleteMultipartUpload", POST, OBJECT, "uploadId", "s3:PutObject", body=XML_LARGE, handler="complete_multipart_upload:complete_multipart_upload"),
    Row("AbortMultipartUpload", DELETE, OBJECT, "uploadId", "s3:AbortMultipartUpload", asks=Asks.UPLOAD, handler="abort_multipart_upload:abort_multipart_upload"),
    Row("ListParts", GET, OBJECT, "uploadId", "s3:ListMultipartUploadParts", asks=Asks.UPLOAD, handler="list_parts:list_parts"),
    # Sub-resources of objects.
    Row("GetObjectAcl", GET, OBJECT, "acl", "s3:GetObjectAcl", "s3:GetObjectVersionAcl", handler="object_acl:get_object_acl"),
    Row("PutObjectAcl", PUT, OBJECT, "acl", "s3:PutObjectAcl", "s3:PutObjectVersionAcl", body=XML, handler="object_acl:put_object_acl"),
    Row("GetObjectTagging", GET, OBJECT, "tagging", "s3:GetObjectTagging", "s3:GetObjectVersionTagging", handler="get_object_tagging:get_object_tagging"),
    Row("PutObjectTagging", PUT, OBJECT, "tagging", "s3:PutObjectTagging", "s3:PutObjectVersionTagging", body=XML, asks=Asks.ITEM, handler="object_tagging:put_object_tagging"),
    Row("DeleteObjectTagging", DELETE, OBJECT, "tagging", "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging", handler="object_tagging:delete_object_tagging"),
    Row("GetObjectLegalHold", GET, OBJECT, "legal-hold", "s3:GetObjectLegalHold", handler="object_lock:get_object_legal_hold"),
    Row("PutObjectLegalHold", PUT, OBJECT, "legal-hold", "s3:PutObjectLegalHold", body=XML, asks=Asks.ITEM, handler="object_lock:put_object_legal_hold"),
    Row("GetObjectRetention", GET, OBJECT, "retention", "s3:GetObjectRetention", handler="object_lock:get_object_retention"),
    Row("PutObjectRetention", PUT, OBJECT, "retention", "s3:PutObjectRetention", body=XML, asks=Asks.ITEM, handler="object_lock:put_object_retention"),
    Row("UpdateObjectEncryption", PUT, OBJECT, "encryption", "s3:UpdateObjectEncryption", body=XML, handler="update_object_encryption:update_object_encryption"),
    Row("ListObjectAnnotations", GET, OBJECT, "annotation", "s3:ListObjectAnnotations"),
    Row("GetObjectAnnotation", GET, OBJECT, "annotation&annotationName", "s3:GetObjectAnnotation"),
    Row("PutObjectAnnotation", PUT, OBJECT, "annotation&annotationName", "s3:PutObjectAnnotation", body=STREAM),
    Row("DeleteObjectAnnotation", DELETE, OBJECT, "annotation&annotationName", "s3:DeleteObjectAnnotation"),
    # Sub-resources of buckets.
    Row("GetBucketAbac", GET, BUCKET, "abac", "s3:GetBucketAbac"),
    Row("PutBucketAbac", PUT, BUCKET, "abac", "s3:PutBucketAbac", body=XML),
    Row("GetBucketAccelerateConfiguration", GET, BUCKET, "accelerate", "s3:GetAccelerateConfiguration", handler="bucket_accelerate:get_bucket_accelerate_configuration"),
    Row("PutBucketAccelerateConfiguration", PUT, BUCKET, "accelerate", "s3:PutAccelerateConfiguration", body=XML, handler="bucket_accelerate:put_bucket_accelerate_configuration"),
    Row("GetBucketAcl", GET, BUCKET, "acl", "s3:GetBucketAcl", handler="bucket_acl:get_bucket_acl"),
    Row("PutBucketAcl", PUT, BUCKET, "acl", "s3:PutBucketAcl", body=XML, handler="bucket_acl:put_bucket_acl"),
    Row("ListBucketAnalyticsConfigurations", GET, BUCKET, "analytics", "s3:GetAnalyticsConfiguration", handler="bucket_analytics:list_bucket_analytics_configurations"),
    Row("GetBucketAnalyticsConfiguration", GET, BUCKET, "analytics&id", "s3:GetAnalyticsConfiguration", handler="bucket_analytics:get_bucket_analytics_configuration"),
    Row("PutBucketAnalyticsConfiguration", PUT, BUCKET, "analytics&id", "s3:PutAnalyticsConfiguration", body=XML, handler="bucket_analytics:put_bucket_analytics_configuration"),
    Row("DeleteBucketAnalyticsConfiguration", DELETE, BUCKET, "analytics&id", "s3:PutAnalyticsConfiguration", handler="bucket_analytics:delete_bucket_analytics_configuration"),
    Row("GetBucketCors", GET, BUCKET, "cors", "s3:GetBucketCORS", handler="bucket_cors:get_bucket_cors"),
    Row("PutBucketCors", PUT, BUCKET, "cors", "s3:PutBucketCORS", body=XML, handler="bucket_cors:put_bucket_cors"),
    Row("DeleteBucketCors", DELETE, BUCKET, "cors", "s3:PutBucketCORS", handler="bucket_cors:delete_bucket_cors"),
    Row("GetBucketEncryption", GET, BUCKET, "encryption", "s3:GetEncryptionConfiguration", handler="bucket_encryption:get_bucket_encryption"),
    Row("PutBucketEncryption", PUT, BUCKET, "encryption", "s3:PutEncryptionConfiguration", body=XML, handler="bucket_encryption:put_bucket_encryption"),
    Row("DeleteBucketEncryption", DELETE, BUCKET, "encryption", "s3:PutEncryptionConfiguration", handler="bucket_encryption:delete_bucket_encryption"),
    Row("ListBucketIntelligentTieringConfigurations", GET, BUCKET, "intelligent-tiering", "s3:GetIntelligentTieringConfiguration", handler="bucket_intelligent_tiering:list_bucket_intelligent_tiering_configurations"),
    Row("GetBucketIntelligentTieringConfiguration", GET, BUCKET, "intelligent-tiering&id", "s3:GetIntelligentTieringConfiguration", handler="bucket_intelligent_tiering:get_bucket_intelligent_tiering_configuration"),
    Row("PutBucketIntelligentTieringConfiguration", PUT, BUCKET, "intelligent-tiering&id", "s3:PutIntelligentTieringConfiguration", body=XML, handler="bucket_intelligent_tiering:put_bucket_intelligent_tiering_configuration"),
    Row("DeleteBucketIntelligentTieringConfiguration", DELETE, BUCKET, "intelligent-tiering&id", "s3:PutIntelligentTieringConfiguration", handler="bucket_intelligent_tiering:delete_bucket_intelligent_tiering_configuration"),
    Row("ListBucketInventoryConfigurations", GET, BUCKET, "inventory", "s3:GetInventoryConfiguration", handler="bucket_inventory:list_bucket_inventory_configurations"),
    Row("GetBucketInventoryConfiguration", GET, BUCKET, "inventory&id", "s3:GetInventoryConfiguration", handler="bucket_inventory:get_bucket_inventory_configuration"),
    Row("PutBucketInventoryConfiguration", PUT, BUCKET, "inventory&id", "s3:PutInventoryConfiguration", body=XML, handler="bucket_inventory:put_bucket_inventory_configuration"),
    Row("DeleteBucketInventoryConfiguration", DELETE, BUCKET, "inventory&id", "s3:PutInventoryConfiguration", handler="bucket_inventory:delete_bucket_inventory_configuration"),
    Row("GetBucketLifecycleConfiguration", GET, BUCKET, "lifecycle", "s3:GetLifecycleConfiguration", handler="bucket_lifecycle:get_bucket_lifecycle", aliases=("GetBucketLifecycle",)),
    Row("PutBucketLifecycleConfiguration", PUT, BUCKET, "lifecycle", "s3:PutLifecycleConfiguration", body=XML_LIFECYCLE, handler="bucket_lifecycle:put_bucket_lifecycle", aliases=("PutBucketLifecycle",)),
    Row("DeleteBucketLifecycle", DELETE, BUCKET, "lifecycle", "s3:PutLifecycleConfiguration", handler="bucket_lifecycle:delete_bucket_lifecycle"),
    Row("GetBucketLogging", GET, BUCKET, "logging", "s3:GetBucketLogging", handler="bucket_logging:get_bucket_logging"),
    Row("PutBucketLogging", PUT, BUCKET, "logging", "s3:PutBucketLogging", body=XML, handler="bucket_logging:put_bucket_logging"),
    Row("CreateBucketMetadataConfiguration", POST, BUCKET, "metadataConfiguration", "s3:CreateBucketMetadataTableConfiguration", body=XML),
    Row("GetBucketMetadataConfiguration", GET, BUCKET, "metadataConfiguration", "s3:GetBucketMetadataTableConfiguration"),
    Row("DeleteBucketMetadataConfiguration", DELETE, BUCKET, "metadataConfiguration", "s3:DeleteBucketMetadataTableConfiguration"),
    Row("UpdateBucketMetadataAnnotationTableConfiguration", PUT, BUCKET, "metadataAnnotationTable", "s3:UpdateBucketMetadataAnnotationTableConfiguration", body=XML),
    Row("UpdateBucketMetadataInventoryTableConfiguration", PUT, BUCKET, "metadataInventoryTable", "s3:UpdateBucketMetadataInventoryTableConfiguration", body=XML),
    Row("UpdateBucketMetadataJournalTableConfiguration", PUT, BUCKET, "metadataJournalTable", "s3:UpdateBucketMetadataJournalTableConfiguration", body=XML),
    Row("CreateBucketMetadataTableConfiguration", POST, BUCKET, "metadataTable", "s3:CreateBucketMetadataTableConfiguration", body=XML),
    Row("GetBucketMetadataTableConfiguration", GET, BUCKET, "metadataTable", "s3:GetBucketMetadataTableConfiguration"),
    Row("DeleteBucketMetadataTableConfiguration", DELETE, BUCKET, "metadataTable", "s3:DeleteBucketMetadataTableConfiguration"),
    Row("ListBucketMetricsConfigurations", GET, BUCKET, "metrics", "s3:GetMetricsConfiguration", handler="bucket_metrics:list_bucket_metrics_configurations"),
    Row("GetBucketMetricsConfiguration", GET, BUCKET, "metrics&id", "s3:GetMetricsConfiguration", handler="bucket_metrics:get_bucket_metrics_configuration"),
    Row("PutBucketMetricsConfiguration", PUT, BUCKET, "metrics&id", "s3:PutMetricsConfiguration", body=XML, handler="bucket_metrics:put_bucket_metrics_configuration"),
    Row("DeleteBucketMetricsConfiguration", DELETE, BUCKET, "metrics&id", "s3:PutMetricsConfiguration", handler="bucket_metrics:delete_bucket_metrics_configuration"),
    Row("GetBucketNotificationConfiguration", GET, BUCKET, "notification", "s3:GetBucketNotification", handler="bucket_notification:get_bucket_notification_configuration", aliases=("GetBucketNotification",)),
    Row("PutBucketNotificationConfiguration", PUT, BUCKET, "notification", "s3:PutBucketNotification", body=XML, handler="bucket_notification:put_bucket_notification_configuration", aliases=("PutBucketNotification",)),
    Row("GetObjectLockConfiguration", GET, BUCKET, "object-lock", "s3:GetBucketObjectLockConfiguration", handler="object_lock:get_object_lock_configuration"),
    Row("PutObjectLockConfiguration", PUT, BUCKET, "object-lock", "s3:PutBucketObjectLockConfiguration", body=XML, handler="object_lock:put_object_lock_configuration"),
    Row("GetBucketOwnershipControls", GET, BUCKET, "ownershipControls", "s3:GetBucketOwnershipControls", handler="ownership_controls:get_bucket_ownership_controls"),
    Row("PutBucketOwnershipControls", PUT, BUCKET, "ownershipControls", "s3:PutBucketOwnershipControls", body=XML, handler="ownership_controls:put_bucket_ownership_controls"),
    Row("DeleteBucketOwnershipControls", DELETE, BUCKET, "ownershipControls", "s3:PutBucketOwnershipControls", handler="ownership_controls:delete_bucket_ownership_controls"),
    Row("GetBucketPolicy", GET, BUCKET, "policy", "s3:GetBucketPolicy", handler="bucket_policy:get_bucket_policy"),
    Row("PutBucketPolicy", PUT, BUCKET, "policy", "s3:PutBucketPolicy", body=JSON, handler="bucket_policy:put_bucket_policy"),
    Row("DeleteBucketPolicy", DELETE, BUCKET, "policy", "s3:DeleteBucketPolicy", handler="bucket_policy:delete_bucket_policy"),
    Row("GetBucketPolicyStatus", GET, BUCKET, "policyStatus", "s3:GetBucketPolicyStatus", handler="bucket_policy:get_bucket_policy_status"),
    Row("GetPublicAccessBlock", GET, BUCKET, "publicAccessBlock", "s3:GetBucketPublicAccessBlock", handler="public_access_block:get_public_access_block"),
    Row("PutPublicAccessBlock", PUT, BUCKET, "publicAccessBlock", "s3:PutBucketPublicAccessBlock", body=XML, handler="public_access_block:put_public_access_block"),
    Row("DeletePublicAccessBlock", DELETE, BUCKET, "publicAccessBlock", "s3:PutBucketPublicAccessBlock", handler="public_access_block:delete_public_access_block"),
    Row("GetBucketReplication", GET, BUCKET, "replication", "s3:GetReplicationConfiguration"),
    Row("PutBucketReplication", PUT, BUCKET, "replication", "s3:PutReplicationConfiguration", body=XML),
    Row("DeleteBucketReplication", DELETE, BUCKET, "replication", "s3:PutReplicationConfiguration"),
    Row("GetBucketRequestPayment", GET, BUCKET, "requestPayment", "s3:GetBucketRequestPayment", handler="bucket_request_payment:get_bucket_request_payment"),
    Row("PutBucketRequestPayment", PUT, BUCKET, "requestPayment", "s3:PutBucketRequestPayment", body=XML, handler="bucket_request_payment:put_bucket_request_payment"),
    Row("GetBucketTagging", GET, BUCKET, "tagging", "s3:GetBucketTagging", handler="bucket_tagging:get_bucket_tagging"),
    Row("PutBucketTagging", PUT, BUCKET, "tagging", "s3:PutBucketTagging", body=XML, handler="bucket_tagging:put_bucket_tagging"),
    Row("DeleteBucketTagging", DELETE, BUCKET, "tagging", "s3:PutBucketTagging", handler="bucket_tagging:delete_bucket_tagging"),
    Row("GetBucketVersioning", GET, BUCKET, "versioning", "s3:GetBucketVersioning", handler="bucket_versioning:get_bucket_versioning"),
    Row("PutBucketVersioning", PUT, BUCKET, "versioning", "s3:PutBucketVersioning", body=XML, handler="bucket_versioning:put_bucket_versioning"),
    Row("GetBucketWebsite", GET, BUCKET, "website", "s3:GetBucketWebsite", handler="bucket_website:get_bucket_website"),
    Row("PutBucketWebsite", PUT, BUCKET, "website", "s3:PutBucketWebsite", body=XML, handler="bucket_website:put_bucket_website"),
    Row("DeleteBucketWebsite", DELETE, BUCKET, "website", "s3:DeleteBucketWebsite", handler="bucket_website:delete_bucket_website"),
    # What S3 answers and botocore's model leaves out. An append that fell through to PutObject
    # would replace the object that it was to lengthen.
    Row("PostObject", POST, BUCKET, "", "s3:PutObject", body=FORM, handler="post_object:post_object"),
    Row("AppendObject", PUT, OBJECT, "", "s3express:CreateSession", body=STREAM, headers=("x-amz-write-offset-bytes",)),
    Row("PreflightBucket", OPTIONS, BUCKET, "", "s3:GetBucketCORS", asks=Asks.NOBODY, handler="bucket_cors:preflight"),
    Row("PreflightObject", OPTIONS, OBJECT, "", "s3:GetBucketCORS", asks=Asks.NOBODY, handler="bucket_cors:preflight"),
)
# fmt: on


def load_handler(row: Row) -> Callable[..., Any] | None:
    """The function of a built row; raises ImportError or AttributeError when the row is wrong."""
    if row.handler is None:
        return None
    module, _, function = row.handler.partition(":")
    handler: Callable[..., Any] = getattr(
        importlib.import_module(f"s3gw.operations.{module}"), function
    )
    return handler
