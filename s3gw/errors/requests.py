"""Requests refused for what they say, before anything is looked up."""

from s3gw.errors.base import S3Error

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


class IdempotencyParameterMismatch(S3Error):
    status = 400
    message = (
        "Parameters on this idempotent request are inconsistent with parameters used in previous "
        "request(s)."
    )


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


class KMSInvalidStateException(S3Error):
    code = "KMS.KMSInvalidStateException"
    status, message = (
        400,
        "The request was rejected because the specified KMS key is to be deleted.",
    )


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
