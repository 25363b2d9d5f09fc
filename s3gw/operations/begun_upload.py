"""The upload that a request is about, where it counts who began it.

By default the initiator of an upload may end it and list its parts, so that who may write leaves
nothing behind. So it is authorized once the upload has been read; to whom may neither, it does not
say which uploads there are. And whom only an access control list lets write completes no uploads of
others, as it replaces nothing. Source: S3 User Guide, "Multipart upload API and permissions".

A policy that demands an encryption is about what the upload was begun with: parts and completion
cannot name one.
"""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets import acl
from s3gw.metadata import keys
from s3gw.metadata.records import CompletedRecord, Encryption
from s3gw.objects.multipart import Upload, find_upload
from s3gw.operations.call import Call
from s3gw.operations.parameters import upload_id
from s3gw.operations.request_values import OF_AN_UPLOAD, encryption_values


async def begun_upload(call: Call, action: str) -> Upload:
    """The upload that the query names, with the row's action authorized. Raises NoSuchBucket,
    NoSuchUpload, AccessDenied."""
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call))
    except errors.NoSuchUpload:
        call.access.require_row(call, action)
        raise
    call.initiator_id = upload.record.initiator_id
    call.access.require_row(call, action)
    return upload


async def require_completion(call: Call, identity: bytes) -> None:
    """Where lists count, whether the caller may complete the upload of this id, if there is one.
    Raises NoSuchBucket, AccessDenied."""
    if not acl.in_force(call.bucket.documents):
        return
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, identity)
    except errors.NoSuchUpload:
        return  # what is not there, or was completed before, is answered as it is
    call.access.require_parts(call, upload.record.initiator_id)


async def learn_upload(call: Call) -> bool:
    """Give a call about parts the encryption that their upload was begun with, as condition keys.
    Returns whether there is one: policies may then decide otherwise."""
    if call.operation not in OF_AN_UPLOAD or call.principal.is_anonymous:
        return False
    try:
        encryption = await _encryption(call, upload_id(call))
    except (errors.NoSuchUpload, errors.NoSuchBucket):
        return False
    if encryption is not None:
        call.upload_values = encryption_values(encryption)
    return bool(call.upload_values)


async def _encryption(call: Call, identity: bytes) -> Encryption | None:
    """That of an upload. One that was completed has it still: who did not get that answer asks
    again. Raises NoSuchBucket, NoSuchUpload."""
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, identity)
    except errors.NoSuchUpload:
        if call.operation != "CompleteMultipartUpload":
            raise
    else:
        return upload.record.description.encryption
    completed = keys.completed(call.bucket_name, identity)
    done = (await call.storage.store.get(CompletedRecord, completed)).record
    return done.encryption if done is not None and done.key == call.key else None
