"""RenameObject: another name for an object of the bucket, in one step and without moving a byte.

Amazon offers it for directory buckets; here every bucket has it. Whoever renames reads the source
and deletes it, and writes the target: `s3:GetObject` and `s3:DeleteObject` there, `s3:PutObject`
here, and what writing the object's tags, lock and access control list asks for, which come along.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from s3gw import errors
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import publish
from s3gw.objects.publish import Target
from s3gw.objects.rename import Renaming, answer_of
from s3gw.objects.rename import rename_object as rename_stored
from s3gw.operations.access import Resource
from s3gw.operations.call import Call, Reply
from s3gw.operations.present import current_of
from s3gw.wire.conditions import RENAME_SOURCE_PREFIX, ReadConditions
from s3gw.wire.copy_source import parse_rename_source

SOURCE, TOKEN = "x-amz-rename-source", "x-amz-client-token"
TOKEN_CHARACTERS_MAX = 64
CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


async def rename_object(call: Call) -> Reply:
    """Give an object the name of the request's path; what has that name is replaced."""
    if "versionId" in call.query:
        raise errors.InvalidArgument(
            "This operation does not accept a version-id.",
            ArgumentName="versionId",
            ArgumentValue=call.query["versionId"],
        )
    if SOURCE not in call.headers:
        raise errors.InvalidRequest(f"Missing required header for this request: {SOURCE}")
    key = parse_rename_source(call.headers[SOURCE], call.bucket_name)
    if key == call.key:
        raise errors.InvalidRequest("The source and the destination of a rename are the same key.")
    renaming = _renaming(call, key)
    answered = (await answer_of(call.storage, call.target, renaming)).record
    if answered is not None:
        return _reply(answered.version_id)
    source = await publish.read_target(call.storage, call.bucket_name, key)
    if source.visible is None:
        _authorize(call, key, None)  # whether that may be told
    return _reply(await rename_stored(call.storage, source, call.target, renaming))


def _reply(version_id: str) -> Reply:
    return Reply(headers=[("x-amz-version-id", version_id)] if version_id else [])


def _renaming(call: Call, source_key: str) -> Renaming:
    of_source = ReadConditions.of_rename(call.headers, RENAME_SOURCE_PREFIX)
    of_target = ReadConditions.of_rename(call.headers)

    def check_source(source: Target) -> None:
        call.access.require_still(call, source.bucket, source.bucket_revision)
        _authorize(call, source_key, source.visible)
        of_source.check_renamed(current_of(source.visible), RENAME_SOURCE_PREFIX)

    def check(target: Target) -> None:
        call.access.require_still(call, target.bucket, target.bucket_revision, target)
        call.access.require_replace(call, target.visible)
        of_target.check_renamed(current_of(target.visible))

    token, digest = _token(call, source_key)
    return Renaming(call.owner.id, check_source, check, token, digest)


def _token(call: Call, source_key: str) -> tuple[bytes, bytes]:
    """Digests of the client token, as one of this caller, and of the parameters that it stands
    for. Raises InvalidArgument."""
    token = call.headers.get(TOKEN)
    if token is None:
        return b"", b""
    printable = all("!" <= character <= "~" for character in token)
    if not 1 <= len(token) <= TOKEN_CHARACTERS_MAX or not printable:
        raise errors.InvalidArgument(
            "A client token has 1 to 64 characters of printable ASCII.",
            ArgumentName=TOKEN,
            ArgumentValue=token,
        )
    names = (*CONDITIONS, *(RENAME_SOURCE_PREFIX + name for name in CONDITIONS))
    conditions = [(name, call.headers[name]) for name in names if name in call.headers]
    who = msgspec.msgpack.encode([call.principal.id, call.principal.arn, token])
    what = msgspec.msgpack.encode([source_key, call.key, conditions])
    return blake2b(who, digest_size=16).digest(), blake2b(what, digest_size=16).digest()


def _authorize(call: Call, key: str, record: ObjectRecord | None) -> None:
    """What a rename needs beside its row's action, for the source as it is found."""
    access, target = call.access, call.access.resource_of(call)
    held = Resource(call.bucket_name, call.bucket_record, key, True, record)
    access.require(call, "s3:GetObject", held)
    access.require(call, "s3:DeleteObject", held)
    if record is None:
        return
    if record.description.tags:
        access.require(call, "s3:GetObjectTagging", held)
        access.require(call, "s3:PutObjectTagging", target)
    if record.description.acl:
        access.require(call, "s3:PutObjectAcl", target)
    lock = record.description.lock
    if lock is not None and lock.mode:
        access.require(call, "s3:PutObjectRetention", target)
    if lock is not None and lock.legal_hold:
        access.require(call, "s3:PutObjectLegalHold", target)
