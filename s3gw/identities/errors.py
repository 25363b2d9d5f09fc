"""The errors of identities: one class per code of the IAM API.

Codes and statuses are those of the IAM API Reference ("Errors" of each operation, "Common errors").
"""

from __future__ import annotations

from s3gw.errors import S3Error


class IdentityError(S3Error):
    """A change or a question that cannot be answered with success."""

    status, message = 400, "The request cannot be done."


class NoSuchEntity(IdentityError):
    status, message = 404, "There is no such entity."

    @classmethod
    def of(cls, kind: str, name: str) -> NoSuchEntity:
        """In the words of IAM: `kind` is "user", "group", "role", …"""
        return cls(f"The {kind} with name {name} cannot be found.")


class EntityAlreadyExists(IdentityError):
    status, message = 409, "The entity exists already."

    @classmethod
    def of(cls, kind: str, name: str) -> EntityAlreadyExists:
        """In the words of IAM: `kind` is "User", "Group", "Role", …"""
        return cls(f"{kind} with name {name} already exists.")


class DeleteConflict(IdentityError):
    status, message = 409, "The entity is in use."


class LimitExceeded(IdentityError):
    status, message = 409, "A quota would be exceeded."


class ConcurrentModification(IdentityError):
    status = 409
    message = "Identities are changed too often by others. Please try again."


class MalformedPolicyDocument(IdentityError):
    status, message = 400, "The policy document is malformed."


class InvalidInput(IdentityError):
    status, message = 400, "The input is not valid."


class ValidationError(IdentityError):
    """A value does not have the form that its parameter wants."""

    status, message = 400, "A value is not of the form that is wanted."
