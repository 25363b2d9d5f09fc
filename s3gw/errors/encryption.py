"""Encryption and its keys."""

from s3gw.errors.base import S3Error


class InvalidEncryptionAlgorithmError(S3Error):
    status = 400
    message = "The encryption request you specified is not valid. The valid value is AES256."


class KmsDisabled(S3Error):
    code = "KMS.DisabledException"
    status, message = 400, "The key is disabled."


class KmsInvalidState(S3Error):
    code = "KMS.KMSInvalidStateException"
    status, message = 400, "The key is pending deletion."


class KmsNotFound(S3Error):
    code = "KMS.NotFoundException"
    status, message = 400, "The key does not exist."
