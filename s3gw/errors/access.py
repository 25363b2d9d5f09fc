"""Who may do what, and where else to ask."""

from s3gw.errors.base import S3Error

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
