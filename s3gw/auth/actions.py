"""The actions of Amazon S3 and what each is done to.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3".
"""

from __future__ import annotations

from s3gw.auth.patterns import Glob, Wild

_ACCOUNT_NAMES = "ListAllMyBuckets GetAccountPublicAccessBlock PutAccountPublicAccessBlock"
_OBJECT_NAMES = """
    AbortMultipartUpload BypassGovernanceRetention DeleteObject DeleteObjectAnnotation
    DeleteObjectTagging DeleteObjectVersion DeleteObjectVersionTagging GetObject GetObjectAcl
    GetObjectAnnotation GetObjectAttributes GetObjectLegalHold GetObjectRetention GetObjectTagging
    GetObjectTorrent GetObjectVersion GetObjectVersionAcl GetObjectVersionAttributes
    GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent
    InitiateReplication ListMultipartUploadParts ListObjectAnnotations
    ObjectOwnerOverrideToBucketOwner PutObject PutObjectAcl PutObjectAnnotation PutObjectLegalHold
    PutObjectRetention PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging ReplicateDelete
    ReplicateObject ReplicateTags RestoreObject UpdateObjectEncryption
"""
_BUCKET_NAMES = """
    CreateBucket CreateBucketMetadataTableConfiguration DeleteBucket
    DeleteBucketMetadataTableConfiguration DeleteBucketPolicy DeleteBucketWebsite
    GetAccelerateConfiguration GetAnalyticsConfiguration GetBucketAbac GetBucketAcl GetBucketCORS
    GetBucketLocation GetBucketLogging GetBucketMetadataTableConfiguration GetBucketNotification
    GetBucketObjectLockConfiguration GetBucketOwnershipControls GetBucketPolicy
    GetBucketPolicyStatus GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging
    GetBucketVersioning GetBucketWebsite GetEncryptionConfiguration
    GetIntelligentTieringConfiguration GetInventoryConfiguration GetLifecycleConfiguration
    GetMetricsConfiguration GetReplicationConfiguration ListBucket ListBucketMultipartUploads
    ListBucketVersions PutAccelerateConfiguration PutAnalyticsConfiguration PutBucketAbac
    PutBucketAcl PutBucketCORS PutBucketLogging PutBucketNotification
    PutBucketObjectLockConfiguration PutBucketOwnershipControls PutBucketPolicy
    PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning
    PutBucketWebsite PutEncryptionConfiguration PutIntelligentTieringConfiguration
    PutInventoryConfiguration PutLifecycleConfiguration PutMetricsConfiguration
    PutReplicationConfiguration UpdateBucketMetadataAnnotationTableConfiguration
    UpdateBucketMetadataInventoryTableConfiguration UpdateBucketMetadataJournalTableConfiguration
"""
ACCOUNT_ACTIONS = frozenset(f"s3:{name}" for name in _ACCOUNT_NAMES.split())
OBJECT_ACTIONS = frozenset(f"s3:{name}" for name in _OBJECT_NAMES.split())
BUCKET_ACTIONS = frozenset(f"s3:{name}" for name in _BUCKET_NAMES.split())
ACTIONS = ACCOUNT_ACTIONS | BUCKET_ACTIONS | OBJECT_ACTIONS

_FOLDED = tuple((action.lower(), action) for action in sorted(ACTIONS))


def named_by(pattern: str) -> frozenset[str]:
    """The actions of S3 that a policy's `Action` text names; case does not matter.

    >>> sorted(named_by("s3:*Torrent"))
    ['s3:GetObjectTorrent', 's3:GetObjectVersionTorrent']
    """
    wild = {"*": Wild.RUN, "?": Wild.ONE}
    glob = Glob([wild.get(character, character) for character in pattern.lower()])
    return frozenset(action for folded, action in _FOLDED if glob.matches(folded))
