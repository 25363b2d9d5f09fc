"""Server-side encryption in requests and answers: the headers of S3, and who may use which key.

A customer's key is held for the time of its request, compared with nothing stored and written
nowhere. S3 takes one over TLS only: over plain HTTP it is refused without the setting
`allow_ssec_over_http`, for stores behind a proxy that speaks TLS.

Source: S3 User Guide, "Protecting data with encryption"; API Reference, PutObject, GetObject,
CopyObject.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import b64decode, b64encode

from s3gw import errors
from s3gw.buckets.encryption import DUAL_LAYER, ENCRYPTION, NO_DEFAULT, Default, default_of
from s3gw.metadata.records import BucketRecord, Description, Encryption, ObjectRecord
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.encrypted import frame, framing_of, framing_of_version
from s3gw.objects.keyring.ring import SSE_C, SSE_KMS, SSE_S3, Wanted
from s3gw.objects.multipart import Upload, find_upload
from s3gw.operations.access import Resource
from s3gw.operations.call import Call

PREFIX = "x-amz-server-side-encryption"
KEY_ID = f"{PREFIX}-aws-kms-key-id"
BUCKET_KEY = f"{PREFIX}-bucket-key-enabled"
CONTEXT = f"{PREFIX}-context"
OWN = f"{PREFIX}-customer"
SOURCE = "x-amz-copy-source-server-side-encryption-customer"
PARTS_OF_KEY = ("algorithm", "key", "key-md5")
CHOICES = (PREFIX, KEY_ID, BUCKET_KEY, CONTEXT)
HEADERS = (*CHOICES, *(f"{OWN}-{name}" for name in PARTS_OF_KEY))
CUSTOMER_KEY_BYTES = 32
CONTEXT_BYTES_MAX = 8 * 1024
USE_KEY, OPEN_KEY = "kms:GenerateDataKey", "kms:Decrypt"
NOT_APPLICABLE = "The encryption parameters are not applicable to this object."
OTHER_KEY = "The provided encryption parameters did not match the ones used originally."
PART_KEY_NEEDED = (
    "The multipart upload initiate requested encryption. Subsequent part requests must include the "
    "appropriate encryption parameters."
)
KEY_NEEDED = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be "
    "provided to retrieve the object."
)
Headers = list[tuple[str, str]]


def asks_encryption(call: Call) -> bool:
    """Whether the request has any header of encryption."""
    return any(name in call.headers for name in HEADERS)


def customer_key(call: Call, prefix: str = OWN) -> bytes:
    """The customer's key in a request's headers; b"" when there is none. Raises InvalidArgument,
    InvalidEncryptionAlgorithmError, and InvalidRequest where it came in the clear."""
    algorithm, key, md5 = (call.headers.get(f"{prefix}-{name}") for name in PARTS_OF_KEY)
    if algorithm is None and key is None and md5 is None:
        return b""
    if not call.origin.secure and not call.settings.customer_keys_over_http:
        raise errors.InvalidRequest(
            "Requests specifying Server Side Encryption with Customer provided keys must be made "
            "over a secure connection."
        )
    if algorithm is None:
        raise _incomplete("a valid encryption algorithm", f"{prefix}-algorithm")
    if algorithm != SSE_S3:
        raise errors.InvalidEncryptionAlgorithmError(
            ArgumentName=f"{prefix}-algorithm", ArgumentValue=algorithm
        )
    if key is None:
        raise _incomplete("an appropriate secret key", f"{prefix}-key")
    if md5 is None:
        raise _incomplete("the client calculated MD5 of the secret key", f"{prefix}-key-MD5")
    return _checked_key(key, md5, prefix)


def _incomplete(what: str, header: str) -> errors.S3Error:
    return errors.InvalidArgument(
        "Requests specifying Server Side Encryption with Customer provided keys must provide "
        f"{what}.",
        ArgumentName=header,
    )


def _checked_key(text: str, md5: str, prefix: str) -> bytes:
    try:
        key = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != CUSTOMER_KEY_BYTES:
        raise errors.InvalidArgument(
            "The secret key was invalid for the specified algorithm.", ArgumentName=f"{prefix}-key"
        )
    if not hmac.compare_digest(_md5_of(key).encode(), md5.encode()):
        raise errors.InvalidArgument(
            "The calculated MD5 hash of the key did not match the hash that was provided.",
            ArgumentName=f"{prefix}-key-MD5",
        )
    return key


def _md5_of(key: bytes) -> str:
    return b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()


# What new objects get.


def wanted_encryption(call: Call) -> Wanted | None:
    """The encryption of an object that the request makes: what it asks for, else the bucket's
    default; None for none. Authorizes the use of the key. Raises S3Error."""
    default = default_of_bucket(call.bucket)
    wanted = _asked(call, default) if asks_encryption(call) else _of_default(default)
    if wanted is not None and wanted.kind == SSE_KMS:
        require_key(call, USE_KEY, call.storage.ring.arn(_name(call, wanted.key_name)))
    return wanted


def default_of_bucket(bucket: BucketRecord) -> Default:
    """The bucket's default encryption."""
    document = bucket.documents.get(ENCRYPTION.name)
    return NO_DEFAULT if document is None else default_of(document)


def _of_default(default: Default) -> Wanted | None:
    if not default.algorithm:
        return None
    return Wanted(default.algorithm, default.key_name, bucket_key=default.bucket_key)


def _asked(call: Call, default: Default) -> Wanted | None:
    key = customer_key(call)
    algorithm = call.headers.get(PREFIX)
    if key:
        if algorithm is not None:
            raise errors.InvalidArgument(
                "Server Side Encryption with Customer provided key is incompatible with the "
                "encryption method specified",
                ArgumentName=PREFIX,
                ArgumentValue=algorithm,
            )
        if default.blocks_customer_keys:
            raise errors.AccessDenied("The bucket does not take customer provided keys.")
        return Wanted(SSE_C, customer_key=key)
    if algorithm == DUAL_LAYER:
        raise errors.NotImplementedS3("Dual-layer encryption is not offered.", Header=PREFIX)
    if algorithm not in (None, SSE_S3, SSE_KMS):
        raise errors.InvalidArgument(
            "The encryption method specified is not supported",
            ArgumentName=PREFIX,
            ArgumentValue=algorithm or "",
        )
    if algorithm == SSE_KMS:
        flag = call.headers.get(BUCKET_KEY, "true" if default.bucket_key else "false")
        key_name = call.headers.get(KEY_ID, "")
        return Wanted(SSE_KMS, key_name, _context(call), flag.lower() == "true")
    for header in (KEY_ID, CONTEXT):
        if header in call.headers:
            raise errors.InvalidArgument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                "x-amz-server-side-encryption : aws:kms",
                ArgumentName=header,
            )
    return Wanted(SSE_S3) if algorithm == SSE_S3 else _of_default(default)


def _context(call: Call) -> str:
    """The encryption context: base64 of a JSON object of texts. Raises InvalidArgument."""
    text = call.headers.get(CONTEXT)
    if text is None:
        return ""
    pairs = None
    if len(text) <= CONTEXT_BYTES_MAX:
        try:
            pairs = json.loads(b64decode(text, validate=True))
        except (binascii.Error, ValueError, RecursionError):
            pairs = None
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise errors.InvalidArgument(
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 "
            "string holding JSON which represents a string-string map",
            ArgumentName=CONTEXT,
        )
    return text


def _name(call: Call, text: str) -> str:
    return call.storage.ring.name_of(text)


def require_key(call: Call, action: str, arn: str) -> None:
    """Authorize the use of a named key. Raises AccessDenied."""
    call.access.require(call, action, Resource(named=arn))


async def framed(call: Call, description: Description) -> tuple[Description, Framing]:
    """The framing of the object that the request makes, and its description with it. Raises
    S3Error."""
    return await frame(call.storage, call.bucket, description, wanted_encryption(call))


# What stored objects need.


def opening_key(
    call: Call, encryption: Encryption | None, prefix: str = OWN, *, needed: str = KEY_NEEDED
) -> bytes:
    """The customer's key that opens what is stored so; b"" where the store has the key itself.
    `needed` is what is said of a missing one. Raises InvalidRequest when it is missing or not asked
    for, InvalidArgument for headers that choose an encryption where there is none to choose."""
    key = customer_key(call, prefix)
    for header in CHOICES if prefix == OWN else ():
        if header in call.headers:
            raise errors.InvalidArgument(
                f"{header} header is not supported for this operation.",
                ArgumentName=header,
                ArgumentValue=call.headers[header],
            )
    if encryption is not None and encryption.kind == SSE_C:
        if not key:
            raise errors.InvalidRequest(needed)
    elif key:
        raise errors.InvalidRequest(NOT_APPLICABLE)
    return key


async def opened(
    call: Call, record: ObjectRecord, prefix: str = OWN, *, for_content: bool = True
) -> Framing:
    """The framing of a version that the request reads. When it is not `for_content`, only a
    customer's key is looked at. Raises S3Error: AccessDenied for another key than the object's."""
    encryption = record.description.encryption
    if encryption is None and not record.description.compression and not _names_key(call, prefix):
        return PLAIN
    key = opening_key(call, encryption, prefix)
    if encryption is not None and encryption.kind != SSE_C:
        if not for_content:
            return PLAIN
        if encryption.kind == SSE_KMS:
            require_key(call, OPEN_KEY, encryption.key_name)
    return await framing_of_version(call.storage, record, key)


def _names_key(call: Call, prefix: str) -> bool:
    if prefix == OWN:
        return asks_encryption(call)
    return any(f"{prefix}-{name}" in call.headers for name in PARTS_OF_KEY)


async def opened_upload(call: Call, upload: Upload) -> Framing:
    """The framing of an upload whose part the request writes. Raises S3Error: InvalidRequest for
    another key than the upload's, which is a mistake in the request, not a read that is denied."""
    description = upload.record.description
    encryption = description.encryption
    if encryption is None and not description.compression and not asks_encryption(call):
        return PLAIN
    key = opening_key(call, encryption, needed=PART_KEY_NEEDED)
    if encryption is not None and encryption.kind == SSE_KMS:
        require_key(call, OPEN_KEY, encryption.key_name)
    try:
        return await framing_of(call.storage, description, upload.upload_id, key)
    except errors.AccessDenied:
        if not key:
            raise
        raise errors.InvalidRequest(OTHER_KEY) from None


async def check_upload_key(call: Call, upload_id: bytes) -> None:
    """Whether the customer's key that comes with the end of an upload is the upload's: SDKs send it
    there, and older ones do not, which is no harm. Raises InvalidRequest, and as `customer_key`."""
    if not any(f"{OWN}-{name}" in call.headers for name in PARTS_OF_KEY):
        return
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id)
    except errors.NoSuchUpload:
        return  # it has ended; how, the operation finds out
    await opened_upload(call, upload)


def same_kept_keys(call: Call, source: Encryption | None, upload: Encryption | None) -> bool:
    """Whether a part of the upload may be sealed as the source is: not at all, or with the same
    keys."""
    if source is None or upload is None:
        return source is upload
    alike = (source.kind, source.key_name, source.context)
    if alike != (upload.kind, upload.key_name, upload.context):
        return False
    return source.kind != SSE_C or customer_key(call, SOURCE) == customer_key(call)


# Answers.


def encryption_headers(
    call: Call, encryption: Encryption | None, *, with_context: bool = False
) -> Headers:
    """The headers that say how an object is encrypted; with its context in the answer to whoever
    made it."""
    if encryption is None:
        return []
    if encryption.kind == SSE_C:
        md5 = call.headers.get(f"{OWN}-key-md5", "")
        return [(f"{OWN}-algorithm", SSE_S3), (f"{OWN}-key-MD5", md5)] if md5 else []
    headers = [(PREFIX, encryption.kind)]
    if encryption.kind == SSE_KMS:
        headers.append((KEY_ID, encryption.key_name))
        if encryption.bucket_key:
            headers.append((BUCKET_KEY, "true"))
        if with_context and encryption.context:
            headers.append((CONTEXT, encryption.context))
    return headers
