"""Encryption and its keys."""

from s3gw.errors.base import S3Error


class KmsDisabled(S3Error):
    code = "KMS.DisabledException"
    status, message = 400, "The key is disabled."


class KmsInvalidState(S3Error):
    code = "KMS.KMSInvalidStateException"
    status, message = 400, "The key is pending deletion."


class KmsNotFound(S3Error):
    code = "KMS.NotFoundException"
    status, message = 400, "The key does not exist."
