"""What is not there (404)."""

from s3gw.errors.base import S3Error


class NoSuchBucket(S3Error):
    status, message = 404, "The specified bucket does not exist"


class NoSuchBucketPolicy(S3Error):
    status, message = 404, "The bucket policy does not exist"


class NoSuchConfiguration(S3Error):
    status, message = 404, "The specified configuration does not exist."


class NoSuchCORSConfiguration(S3Error):
    status, message = 404, "The CORS configuration does not exist"


class NoSuchKey(S3Error):
    status, message = 404, "The specified key does not exist."


class NoSuchLifecycleConfiguration(S3Error):
    status, message = 404, "The lifecycle configuration does not exist"


class NoSuchObjectLockConfiguration(S3Error):
    status, message = 404, "The specified object does not have an ObjectLock configuration"


class NoSuchPublicAccessBlockConfiguration(S3Error):
    status, message = 404, "The public access block configuration was not found"


class NoSuchTagSet(S3Error):
    status, message = 404, "The TagSet does not exist"


class NoSuchTagSetError(S3Error):
    status, message = 404, "The tag set does not exist"


class NoSuchUpload(S3Error):
    status = 404
    message = (
        "The specified upload does not exist. The upload ID may be invalid, or the upload "
        "may have been aborted or completed."
    )


class NoSuchVersion(S3Error):
    status, message = 404, "The specified version does not exist."


class NoSuchWebsiteConfiguration(S3Error):
    status, message = 404, "The specified bucket does not have a website configuration"


class MetadataConfigurationNotFound(S3Error):
    status, message = 404, "The metadata configuration was not found"


class ObjectLockConfigurationNotFoundError(S3Error):
    status, message = 404, "Object Lock configuration does not exist for this bucket"


class OwnershipControlsNotFoundError(S3Error):
    status, message = 404, "The bucket ownership controls were not found"


class ReplicationConfigurationNotFoundError(S3Error):
    status, message = 404, "The replication configuration was not found"


class ServerSideEncryptionConfigurationNotFoundError(S3Error):
    status, message = 404, "The server side encryption configuration was not found"
