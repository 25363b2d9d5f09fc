"""What the state of things does not allow, and the server's own trouble."""

from s3gw.errors.base import RETRY_SOON, S3Error

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
