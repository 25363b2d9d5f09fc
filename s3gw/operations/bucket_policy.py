"""PutBucketPolicy, GetBucketPolicy, DeleteBucketPolicy and GetBucketPolicyStatus."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy_parse import TOO_LARGE, parse_bucket_policy
from s3gw.auth.public_policy import is_public
from s3gw.buckets import public_access
from s3gw.identities.policy_principals import decoded, encoded, renamed, shown, unique_ids
from s3gw.metadata.records import BucketRecord
from s3gw.operations.access import (
    POLICY_DOCUMENT,
    PRINCIPALS_DOCUMENT,
    stored_policy_is_public,
)
from s3gw.operations.bucket_documents import change_own_bucket, with_document
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire.xml import Writer


async def put_bucket_policy(call: Call) -> Reply:
    """Keep a policy, as sent, in place of the one before."""
    _refuse_strangers(call)
    try:
        body = await call.body.read(limits.BUCKET_POLICY_BYTES_MAX)
    except errors.MaxMessageLengthExceeded:
        raise errors.MalformedPolicy(TOO_LARGE) from None
    if not body:
        raise errors.MissingRequestBodyError()
    try:
        policy = parse_bucket_policy(body, call.bucket_name, limit=limits.BUCKET_POLICY_BYTES_MAX)
        principals = encoded(await unique_ids(call.storage.store, policy))
    except PolicyError as error:
        raise errors.MalformedPolicy(str(error)) from error
    public = is_public(policy)

    def change(bucket: BucketRecord) -> BucketRecord:
        block = public_access.stored(bucket.documents.get(public_access.DOCUMENT))
        if public and block.block_public_policy:
            raise errors.AccessDenied(
                "The policy is public, and public policies are blocked by the BlockPublicPolicy "
                "block public access setting."
            )
        named = with_document(bucket, PRINCIPALS_DOCUMENT, principals)
        return with_document(named, POLICY_DOCUMENT, body)

    await change_own_bucket(call, change)
    return Reply(204)


async def get_bucket_policy(call: Call) -> Reply:
    """The policy, byte for byte as it was put, unless somebody whom it names is gone or has
    another name now."""
    _refuse_strangers(call)
    ids = decoded(call.bucket.documents.get(PRINCIPALS_DOCUMENT))
    document = _document(call)
    if ids:
        others = await renamed(call.storage.store, ids.items())
        document = shown(document.decode(), ids, others).encode()
    return Reply(200, [("Content-Type", "application/json")], document)


async def delete_bucket_policy(call: Call) -> Reply:
    """Drop the policy; there may be none."""
    _refuse_strangers(call)

    def change(bucket: BucketRecord) -> BucketRecord:
        unnamed = with_document(bucket, PRINCIPALS_DOCUMENT, None)
        return with_document(unnamed, POLICY_DOCUMENT, None)

    await change_own_bucket(call, change)
    return Reply(204)


async def get_bucket_policy_status(call: Call) -> Reply:
    """Whether the policy is public."""
    _refuse_strangers(call)
    writer = Writer("PolicyStatus")
    writer.flag("IsPublic", stored_policy_is_public(_document(call), call.bucket_name))
    return xml_reply(writer.finish())


def _document(call: Call) -> bytes:
    document = call.bucket.documents.get(POLICY_DOCUMENT)
    if document is None:
        raise errors.NoSuchBucketPolicy(BucketName=call.bucket_name)
    return document


def _refuse_strangers(call: Call) -> None:
    """Whoever is not of the account cannot see or change its policies, even where one allows it:
    Amazon S3 answers 405. Raises MethodNotAllowed."""
    if call.principal.account != call.access.account:
        raise errors.MethodNotAllowed(Method=call.operation, ResourceType="BUCKETPOLICY")
