"""A bucket configuration stored and returned: what the operations of a sub-resource have in common.

A document is validated, brought into its canonical form, and stored in the bucket's record by one
guarded commit; a read gives back the stored bytes. Of configurations with an id a bucket has many
(s3gw.buckets.configurations); they are kept beside the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from s3gw import errors, limits
from s3gw.buckets.configurations import Kind, check_id
from s3gw.buckets.document import Document, Value
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import Transaction
from s3gw.objects.buckets import change_bucket, change_configurations, read_configurations
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.bucket_subresources import fresh_answer
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire.tokens import Position, decode_token, encode_token
from s3gw.wire.xml import Writer

T = TypeVar("T")
Guard = Callable[[Transaction], Awaitable[None]]


async def parse_body(call: Call, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of the request's body; in a thread when it is large enough to be felt by
    other requests."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    if len(body) <= limits.XML_ON_LOOP_BYTES_MAX:
        return parse(body)
    return await asyncio.to_thread(parse, body)


async def change_own_bucket(
    call: Call, change: Callable[[BucketRecord], BucketRecord], *, guard: Guard | None = None
) -> None:
    """Change the bucket that the request is about, if its caller may do so as well when it is read
    for that. Raises as `change_bucket`, AccessDenied."""
    check = still_allowed_in_bucket(call)
    await change_bucket(call.storage, call.bucket_name, change, guard=guard, check=check)


async def _change_configurations(
    call: Call, kind: Kind, change: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    check = still_allowed_in_bucket(call)
    await change_configurations(call.storage, call.bucket_name, kind.name, change, check)


def require_checksum(call: Call) -> None:
    """Refuse a body that came without a checksum, as S3 does for some. Raises InvalidRequest."""
    if not call.body.requested.content_md5 and call.body.requested.algorithm is None:
        raise errors.InvalidRequest(
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
        )


async def put_document(
    call: Call,
    document: Document,
    *,
    guard: Callable[[Value], Guard] | None = None,
) -> Reply:
    """Store the document in the body; one without any element removes the setting.

    `guard` makes of the document what its commit also rests on.
    """

    def canonical(body: bytes) -> tuple[Value, bytes]:
        value = document.parse(body)
        return value, document.render(value)

    value, rendered = await parse_body(call, canonical)
    await change_own_bucket(
        call,
        lambda record: with_document(record, document.name, rendered if value else None),
        guard=guard(value) if guard is not None and value else None,
    )
    return Reply()


def get_document(call: Call, document: Document) -> Reply:
    """The stored document, or S3's answer when there is none."""
    stored = call.bucket.documents.get(document.name)
    if stored is None:
        stored = fresh_answer(call.operation, bucket=call.bucket_name)
    return xml_reply(stored)


async def delete_document(call: Call, document: Document) -> Reply:
    """Remove the setting; it is no error when there is none."""
    await set_document(call, document.name, None)
    return Reply(204)


async def set_document(call: Call, name: str, rendered: bytes | None) -> None:
    """Keep a document, or with None none, whatever the bucket has."""
    await change_own_bucket(call, lambda record: with_document(record, name, rendered))


def with_document(record: BucketRecord, name: str, rendered: bytes | None) -> BucketRecord:
    """The record with the document, or with None without it."""
    documents = {other: stored for other, stored in record.documents.items() if other != name}
    if rendered is not None:
        documents[name] = rendered
    return msgspec.structs.replace(record, documents=documents)


# Configurations with an id.


async def put_configuration(
    call: Call, kind: Kind, *, check: Callable[[Value], Awaitable[None]] | None = None
) -> Reply:
    """Store the configuration in the body under the `id` of the request, which it repeats, if
    `check` does not raise."""
    id_ = check_id(call.query["id"])

    def canonical(body: bytes) -> tuple[Value, bytes]:
        value = kind.document.parse(body)
        if value["Id"] != id_:
            raise errors.InvalidArgument(
                "The id in the request and the Id of the configuration differ.",
                ArgumentName="id",
                ArgumentValue=id_,
            )
        return value, kind.document.fragment(value).encode()

    value, stored = await parse_body(call, canonical)
    if check is not None:
        await check(value)
    await _change_configurations(call, kind, lambda by_id: {**by_id, id_: stored})
    return Reply()


async def get_configuration(call: Call, kind: Kind) -> Reply:
    """The configuration of the `id`. Raises NoSuchConfiguration."""
    id_ = check_id(call.query["id"])
    held = await read_configurations(call.storage, call.bucket_name, kind.name)
    stored = held.by_id.get(id_)
    if stored is None:
        raise errors.NoSuchConfiguration(BucketName=call.bucket_name)
    root = kind.document.root
    writer = Writer(root)
    writer.raw(stored.decode().removeprefix(f"<{root}>").removesuffix(f"</{root}>"))
    return xml_reply(writer.finish())


async def delete_configuration(call: Call, kind: Kind) -> Reply:
    """Remove the configuration of the `id`. Raises NoSuchConfiguration."""
    id_ = check_id(call.query["id"])

    def without(by_id: dict[str, bytes]) -> dict[str, bytes]:
        if id_ not in by_id:
            raise errors.NoSuchConfiguration(BucketName=call.bucket_name)
        return {other: stored for other, stored in by_id.items() if other != id_}

    await _change_configurations(call, kind, without)
    return Reply(204)


async def list_configurations(call: Call, kind: Kind) -> Reply:
    """A page of the configurations, by id."""
    token = call.query.get("continuation-token", "")
    secret = call.storage.store.identity.token_secret
    context = f"{call.operation} {call.bucket_name}".encode()
    after = ""
    if token:
        after = decode_token(secret, context, token, "continuation-token").key.decode()
    held = await read_configurations(call.storage, call.bucket_name, kind.name)
    ids = [id_ for id_ in held.by_id if id_ > after]
    page = ids[: limits.CONFIGURATIONS_PAGE_MAX]
    writer = Writer(kind.list_root)
    for id_ in page:
        writer.raw(held.by_id[id_].decode())
    if token:
        writer.element("ContinuationToken", token)
    writer.flag("IsTruncated", len(page) < len(ids))
    if len(page) < len(ids):
        following = encode_token(secret, context, Position(page[-1].encode()))
        writer.element("NextContinuationToken", following)
    return xml_reply(writer.finish())
