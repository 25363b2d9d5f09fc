"""The errors of the query API, as IAM and STS name them.

Sources: IAM and STS API Reference, "Common Errors", and the errors of each action.
"""

from __future__ import annotations


class QueryError(Exception):
    """An answer to the client: HTTP `status`, error `code`, English `message`. A subclass's code is
    its own name unless it states another."""

    code: str = "InternalFailure"
    status: int = 500
    message: str = "The request processing has failed because of an unknown error."

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            cls.code = cls.__name__

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)

    @classmethod
    def named(cls, code: str, status: int, message: str) -> QueryError:
        """An error of IAM's that has no class here."""
        error = QueryError(message)
        error.code, error.status = code, status
        return error


class AccessDenied(QueryError):
    status, message = 403, "Access Denied"


class ExpiredToken(QueryError):
    status, message = 403, "The security token included in the request is expired"


class ExpiredTokenException(QueryError):
    status, message = 400, "The web identity token has expired"


class IDPCommunicationError(QueryError):
    status, message = 400, "The identity provider cannot be reached"


class IncompleteSignature(QueryError):
    status, message = 403, "The request signature does not conform to AWS standards."


class InvalidAction(QueryError):
    status, message = 400, "The action or operation requested is invalid."


class InvalidClientTokenId(QueryError):
    status, message = 403, "The security token included in the request is invalid."


class InvalidIdentityToken(QueryError):
    status, message = 400, "The ID Token provided is not a valid JWT"


class MalformedPolicyDocument(QueryError):
    status, message = 400, "The policy document is malformed."


class MalformedQueryString(QueryError):
    status, message = 400, "The query string contains a syntax error."


class MissingAction(QueryError):
    status, message = 400, "The request is missing an action or a required parameter."


class MissingAuthenticationToken(QueryError):
    status, message = 403, "Request is missing Authentication Token"


class NoSuchEntity(QueryError):
    status, message = 404, "The entity does not exist."


class NotImplementedAction(QueryError):
    code = "NotImplemented"
    status, message = 501, "This action is not implemented."


class PackedPolicyTooLarge(QueryError):
    status, message = 400, "The session policies and tags are too large."


class RequestEntityTooLarge(QueryError):
    status, message = 413, "The request is too large."


class RequestExpired(QueryError):
    status, message = 400, "The request reached the service too long after or before its time."


class ServiceUnavailable(QueryError):
    status, message = 503, "The request has failed due to a temporary failure of the server."


class SignatureDoesNotMatch(QueryError):
    status = 403
    message = (
        "The request signature we calculated does not match the signature you provided. Check "
        "your AWS Secret Access Key and signing method. Consult the service documentation for "
        "details."
    )


class ValidationError(QueryError):
    status, message = 400, "The input fails to satisfy the constraints specified by the service."
