"""The S3 errors: one class per error code, raised anywhere below, rendered once at the edge.

Codes, statuses and messages are those of the S3 API Reference ("Error responses", "List of error
codes"), and where that list is silent those that S3 was seen to send. Two are not Amazon's:
`InsufficientStorage` carries MinIO's code `XMinioStorageFull` with status 507, which no SDK retries
(a retry would meet the same full drives), and `QuotaExceeded` is Ceph's, status 403.

`raise NoSuchKey(Key=key)`: keyword arguments become additional elements of the error document.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
RETRY_SOON: Mapping[str, str] = MappingProxyType({"Retry-After": "1"})


class S3Error(Exception):
    """An answer to the client: HTTP `status`, error `code`, English `message`.

    `fields` are additional XML elements (name to text, in order); `headers` are response headers.
    A subclass's code is its own name unless it states another.
    """

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    message: str = "We encountered an internal error. Please try again."
    default_headers: ClassVar[Mapping[str, str]] = NO_HEADERS

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            cls.code = cls.__name__

    def __init__(
        self,
        message: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **fields: str,
    ) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)
        self.fields = fields
        self.headers = {**self.default_headers, **headers} if headers else self.default_headers

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


# Requests refused before anything is looked up.


class AuthorizationHeaderMalformed(S3Error):
    status, message = 400, "The authorization header that you provided is not valid."


class AuthorizationQueryParametersError(S3Error):
    status, message = 400, "Error parsing the X-Amz-Credential parameter."


class BadDigest(S3Error):
    status = 400
    message = (
        "The Content-MD5 or checksum value that you specified did not match what the server"
        " received."
    )


class BadRequest(S3Error):
    status, message = 400, "Bad Request"


class EntityTooLarge(S3Error):
    status, message = 400, "Your proposed upload exceeds the maximum allowed size"


class EntityTooSmall(S3Error):
    status, message = 400, "Your proposed upload is smaller than the minimum allowed size"


class ExpiredToken(S3Error):
    status, message = 400, "The provided token has expired."


class IllegalLocationConstraintException(S3Error):
    status = 400
    message = (
        "The specified location constraint is incompatible for the region specific endpoint"
        " this request was sent to."
    )


class IllegalVersioningConfigurationException(S3Error):
    status, message = 400, "The Versioning element must be specified"


class IncompleteBody(S3Error):
    status = 400
    message = "You did not provide the number of bytes specified by the Content-Length HTTP header."


class IncorrectNumberOfFilesInPostRequest(S3Error):
    status, message = 400, "POST requires exactly one file upload per request."


class InvalidArgument(S3Error):
    status, message = 400, "Invalid Argument"


class InvalidBucketAclWithObjectOwnership(S3Error):
    status = 400
    message = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"


class InvalidBucketName(S3Error):
    status, message = 400, "The specified bucket is not valid."


class InvalidDigest(S3Error):
    status, message = 400, "The Content-MD5 or checksum value that you specified is not valid."


class InvalidEncryptionAlgorithmError(S3Error):
    status = 400
    message = "The Encryption request you specified is not valid. Supported value: AES256."


class InvalidHostHeader(S3Error):
    status = 400
    message = "The host headers provided in the request used the incorrect style addressing."


class InvalidHttpMethod(S3Error):
    status, message = 400, "The request was made using an unexpected HTTP method."


class InvalidLocationConstraint(S3Error):
    status, message = 400, "The specified location-constraint is not valid"


class InvalidPart(S3Error):
    status = 400
    message = (
        "One or more of the specified parts could not be found. The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag."
    )


class InvalidPartOrder(S3Error):
    status = 400
    message = "The list of parts was not in ascending order. Parts must be ordered by part number."


class InvalidPolicyDocument(S3Error):
    status = 400
    message = (
        "The content of the form does not meet the conditions specified in the policy document."
    )


class InvalidRequest(S3Error):
    status, message = 400, "The request is not valid."


class InvalidSessionException(S3Error):
    status, message = 400, "The session is not valid or has been terminated."


class InvalidStorageClass(S3Error):
    status, message = 400, "The storage class you specified is not valid"


class InvalidTag(S3Error):
    status = 400
    message = (
        "The tag provided was not a valid tag. This error can occur if the tag did not pass"
        " input validation."
    )


class InvalidTargetBucketForLogging(S3Error):
    status = 400
    message = (
        "The target bucket for logging does not exist, is not owned by you, or does not "
        "have the appropriate grants for the log-delivery group."
    )


class InvalidToken(S3Error):
    status, message = 400, "The provided token is malformed or otherwise invalid."


class InvalidURI(S3Error):
    status, message = 400, "Couldn't parse the specified URI."


class InvalidWriteOffset(S3Error):
    status = 400
    message = "The write offset value that you specified does not match the current object size."


class KeyTooLongError(S3Error):
    status, message = 400, "Your key is too long"


class KMSDisabledException(S3Error):
    code = "KMS.DisabledException"
    status, message = 400, "The request was rejected because the specified KMS key is disabled."


class KMSNotFoundException(S3Error):
    code = "KMS.NotFoundException"
    status, message = 400, "The request was rejected because the specified KMS key does not exist."


class MalformedACLError(S3Error):
    status = 400
    message = (
        "The XML you provided was not well-formed or did not validate against our published schema"
    )


class MalformedPOSTRequest(S3Error):
    status, message = 400, "The body of your POST request is not well-formed multipart/form-data."


class MalformedPolicy(S3Error):
    status, message = 400, "Policies must be valid JSON and the first byte must be '{'"


class MalformedTrailerError(S3Error):
    status = 400
    message = (
        "The request contained trailing data that was not well-formed or did not conform to"
        " our published schema."
    )


class MalformedXML(S3Error):
    status = 400
    message = (
        "The XML you provided was not well-formed or did not validate against our published schema"
    )


class MaxMessageLengthExceeded(S3Error):
    status, message = 400, "Your request was too big."


class MaxPostPreDataLengthExceededError(S3Error):
    status, message = 400, "Your POST request fields preceding the upload file were too large."


class MetadataTooLarge(S3Error):
    status, message = 400, "Your metadata headers exceed the maximum allowed metadata size"


class MissingRequestBodyError(S3Error):
    status, message = 400, "Request Body is empty"


class MissingSecurityHeader(S3Error):
    status, message = 400, "Your request was missing a required header"


class RequestHeaderSectionTooLarge(S3Error):
    status, message = 400, "Your request header and query string exceed the maximum allowed size."


class RequestIsNotMultiPartContent(S3Error):
    status, message = 400, "Bucket POST must be of the enclosure-type multipart/form-data."


class RequestTimeout(S3Error):
    status = 400
    message = (
        "Your socket connection to the server was not read from or written to within the "
        "timeout period. Idle connections will be closed."
    )


class TokenCodeInvalidError(S3Error):
    status, message = 400, "The serial number and/or token code you provided is not valid."


class TooManyConfigurations(S3Error):
    status, message = 400, "The bucket has as many configurations of this kind as it may have."


class TooManyBuckets(S3Error):
    status, message = 400, "You have attempted to create more buckets than allowed"


class UnexpectedContent(S3Error):
    status, message = 400, "This request contains unsupported content."


class UnresolvableGrantByEmailAddress(S3Error):
    status, message = 400, "The email address you provided does not match any account on record."


class UnsupportedArgument(S3Error):
    status, message = 400, "The request contained an unsupported argument."


class UserKeyMustBeSpecified(S3Error):
    status = 400
    message = (
        "The bucket POST must contain the specified field name. If it is specified, check "
        "the order of the fields."
    )


class XAmzContentChecksumMismatch(S3Error):
    status, message = 400, "The provided 'x-amz-checksum' header does not match what was computed."


class XAmzContentSHA256Mismatch(S3Error):
    status = 400
    message = "The provided 'x-amz-content-sha256' header does not match what was computed."


# SelectObjectContent and RestoreObject.


class ObjectAlreadyInActiveTierError(S3Error):
    status, message = 403, "This object is already in the active tier."


class RestoreAlreadyInProgress(S3Error):
    status, message = 409, "Object restore is already in progress"


class GlacierExpeditedRetrievalNotAvailable(S3Error):
    status = 503
    message = "Glacier expedited retrievals are currently not available, please try again later"


# Redirects.


class PermanentRedirect(S3Error):
    status = 301
    message = (
        "The bucket you are attempting to access must be addressed using the specified "
        "endpoint. Please send all future requests to this endpoint."
    )


class NotModified(S3Error):
    status, message = 304, "Not Modified"


class TemporaryRedirect(S3Error):
    code = "Redirect"
    status = 307
    message = (
        "Please re-send this request to the specified temporary endpoint. Continue to use "
        "the original request endpoint for future requests."
    )


# Who may do what.


class AccessDenied(S3Error):
    status, message = 403, "Access Denied"


class AccessForbidden(S3Error):
    status, message = 403, "CORSResponse: CORS is not enabled for this bucket."


class AccountProblem(S3Error):
    status = 403
    message = (
        "There is a problem with your account that prevents the operation from completing "
        "successfully."
    )


class AllAccessDisabled(S3Error):
    status, message = 403, "All access to this object has been disabled."


class InvalidAccessKeyId(S3Error):
    status, message = 403, "The AWS Access Key Id you provided does not exist in our records."


class InvalidChunkSizeError(S3Error):
    status, message = 403, "Only the last chunk is allowed to have a size less than 8192 bytes"


class InvalidObjectState(S3Error):
    status, message = 403, "The operation is not valid for the object's storage class"


class InvalidSecurity(S3Error):
    status, message = 403, "The provided security credentials are not valid."


class QuotaExceeded(S3Error):
    status, message = 403, "The bucket has reached its storage quota."


class RequestTimeTooSkewed(S3Error):
    status = 403
    message = "The difference between the request time and the current time is too large."


class SignatureDoesNotMatch(S3Error):
    status = 403
    message = (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    )


# What is not there (404).


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


# Conflicts, conditions and forms of the request.


class MethodNotAllowed(S3Error):
    status, message = 405, "The specified method is not allowed against this resource."


class AccessControlListNotSupported(S3Error):
    status, message = 400, "The bucket does not allow ACLs"


class BucketAlreadyExists(S3Error):
    status = 409
    message = (
        "The requested bucket name is not available. The bucket namespace is shared by all "
        "users of the system. Please select a different name and try again."
    )


class BucketAlreadyOwnedByYou(S3Error):
    status = 409
    message = "Your previous request to create the named bucket succeeded and you already own it."


class BucketNotEmpty(S3Error):
    status, message = 409, "The bucket you tried to delete is not empty"


class ConditionalRequestConflict(S3Error):
    status = 409
    message = (
        "The conditional request cannot succeed due to a conflicting operation against this"
        " resource."
    )


class InvalidBucketState(S3Error):
    status, message = 409, "The request is not valid with the current state of the bucket."


class OperationAborted(S3Error):
    status = 409
    message = (
        "A conflicting conditional operation is currently in progress against this "
        "resource. Please try again."
    )


class MissingContentLength(S3Error):
    status, message = 411, "You must provide the Content-Length HTTP header."


class PreconditionFailed(S3Error):
    status, message = 412, "At least one of the pre-conditions you specified did not hold"


class InvalidRange(S3Error):
    status, message = 416, "The requested range is not satisfiable"


# The server's own trouble.


class InternalError(S3Error):
    status, message = 500, "We encountered an internal error. Please try again."


class NotImplementedS3(S3Error):
    code = "NotImplemented"
    status = 501
    message = "A header or query you provided requests functionality that is not implemented."


class ServiceUnavailable(S3Error):
    status, message = 503, "Service is unable to handle request."
    default_headers = RETRY_SOON


class SlowDown(S3Error):
    status, message = 503, "Please reduce your request rate."
    default_headers = RETRY_SOON


class InsufficientStorage(S3Error):
    code = "XMinioStorageFull"
    status = 507
    message = (
        "Storage backend has reached its minimum free drive threshold. Please delete a few "
        "objects to proceed."
    )


class InvalidPartNumber(S3Error):
    status, message = 416, "The requested partnumber is not satisfiable"


class InvalidRedirectLocation(S3Error):
    status = 400
    message = "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."
