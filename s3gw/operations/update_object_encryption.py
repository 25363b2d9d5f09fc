"""UpdateObjectEncryption: another key for what is encrypted already, without moving a byte.

The data key of the version is opened and wrapped under the named key; the content, its ETag and its
date stay. What is not encrypted, or is with a customer's key, has no data key that the store could
wrap: a copy encrypts that.
"""

from __future__ import annotations

import msgspec

from s3gw import errors
from s3gw.buckets.document import Document, Flag, Structure, Text, optional, required
from s3gw.metadata.records import Encryption, ObjectRecord
from s3gw.objects.change import change_version
from s3gw.objects.keyring.ring import SSE_C, SSE_KMS, Wanted
from s3gw.operations.access import still_allowed
from s3gw.operations.bucket_documents import parse_body
from s3gw.operations.call import Call, Reply
from s3gw.operations.encryption import OPEN_KEY, USE_KEY, require_key
from s3gw.operations.present import visible

REQUEST = Document(
    "object-encryption",
    "ObjectEncryption",
    Structure(
        (
            required(
                "SSE-KMS",
                Structure(
                    (
                        required("KMSKeyArn", Text(1, 2048)),
                        optional("BucketKeyEnabled", Flag()),
                    )
                ),
            ),
        )
    ),
)


async def update_object_encryption(call: Call) -> Reply:
    """Encrypt the version's data key with the key that the body names."""
    asked = (await parse_body(call, REQUEST.parse))["SSE-KMS"]
    record = visible(call)
    before = _changeable(record)
    ring = call.storage.ring
    name = ring.name_of(asked["KMSKeyArn"])
    if before.kind == SSE_KMS:
        require_key(call, OPEN_KEY, before.key_name)
    require_key(call, USE_KEY, ring.arn(name))
    data_key = await ring.open(before, record.content_id)
    bucket_key = asked.get("BucketKeyEnabled", False)
    wanted = Wanted(SSE_KMS, name, before.context, bucket_key)
    after = (await ring.wrap(wanted, record.content_id, data_key)).encryption

    def change(now: ObjectRecord) -> ObjectRecord:
        if now.content_id != record.content_id or now.description.encryption != before:
            raise errors.OperationAborted("The object was changed by another request.")
        described = msgspec.structs.replace(now.description, encryption=after)
        return msgspec.structs.replace(now, description=described)

    await change_version(call.storage, call.target, change, still_allowed(call))
    return Reply()


def _changeable(record: ObjectRecord) -> Encryption:
    """The encryption of a version that can be changed so. Raises InvalidRequest."""
    encryption = record.description.encryption
    if encryption is None:
        raise errors.InvalidRequest("The object is not encrypted: copy it onto itself to do so.")
    if encryption.kind == SSE_C:
        raise errors.InvalidRequest("The object is encrypted with a customer provided key.")
    return encryption
