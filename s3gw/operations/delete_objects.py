"""DeleteObjects: up to a thousand keys, each in a commit of its own.

What names one key goes in order, one after the other; entries that are alike share commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3gw import errors, limits
from s3gw.objects import publish
from s3gw.objects.delete import Deleted, delete_again
from s3gw.objects.publish import Target
from s3gw.operations.access import Resource, bypasses
from s3gw.operations.call import Batched, Call, Reply, xml_reply
from s3gw.operations.present import current_of
from s3gw.operations.request_values import IF_MATCH_KEY, Found
from s3gw.operations.trouble import TROUBLE, translate
from s3gw.wire import xml
from s3gw.wire.conditions import WriteConditions
from s3gw.wire.version_ids import decode_version_id
from s3gw.wire.xml import Writer

PARALLEL = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One key to delete, as the client lists it."""

    key: str
    version_id: str | None
    conditions: WriteConditions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry. `size` is that of the object that was there, -1 for none."""

    entry: Entry
    deleted: Deleted = field(default_factory=Deleted)
    error: errors.S3Error | None = None
    size: int = -1

    def batched(self) -> Batched:
        """The outcome as the access log tells it."""
        entry, error = self.entry, self.error
        status, code = (204, "") if error is None else (error.status, error.code)
        return Batched(entry.key, entry.version_id or "", status, code, self.size)


async def delete_objects(call: Call) -> Reply:
    """Delete the keys listed in the body; the answer says of each what happened."""
    if not call.body.requested.content_md5 and call.body.requested.algorithm is None:
        raise errors.InvalidRequest(
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
        )
    body = await call.body.read(limits.XML_LARGE_BYTES_MAX)
    document = await xml.parse_off_loop(
        body, limit=limits.XML_LARGE_BYTES_MAX, root="Delete", lists=("Object",)
    )
    entries = _entries(document)
    quiet = xml.boolean(document, "Quiet")
    outcomes = await _delete_all(call, entries)
    reply = xml_reply(_result(outcomes, quiet))
    reply.batch = [outcome.batched() for outcome in outcomes]
    return reply


def _entries(document: xml.Node) -> list[Entry]:
    nodes = xml.children(document, "Object")
    if not 1 <= len(nodes) <= limits.DELETE_OBJECTS_KEYS_MAX:
        raise errors.MalformedXML()
    entries = []
    for node in nodes:
        key = xml.text(node, "Key")
        if not key:
            raise errors.UserKeyMustBeSpecified()
        conditions = WriteConditions.of_delete_entry(
            xml.optional_text(node, "ETag"),
            xml.optional_text(node, "LastModifiedTime"),
            xml.optional_text(node, "Size"),
        )
        entries.append(Entry(key, xml.optional_text(node, "VersionId") or None, conditions))
    return entries


async def _delete_all(call: Call, entries: Sequence[Entry]) -> list[Outcome]:
    """What became of each entry, in their order."""
    turn = asyncio.Semaphore(PARALLEL)
    by_key: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        by_key.setdefault(entry.key, []).append(number)
    outcomes: dict[int, Outcome] = {}

    async def delete_key(numbers: list[int]) -> None:
        while numbers:
            first = entries[numbers[0]]
            others = (at for at, number in enumerate(numbers) if entries[number] != first)
            async with turn:
                done = await _delete(call, first, next(others, len(numbers)))
            outcomes.update(zip(numbers, done, strict=False))
            numbers = numbers[len(done) :]

    await asyncio.gather(*map(delete_key, by_key.values()))
    return [outcomes[number] for number in range(len(entries))]


async def _delete(call: Call, entry: Entry, alike: int) -> list[Outcome]:
    """Delete what an entry names, which is listed so many times in a row; what became of each of
    the first of these."""
    size = -1
    try:
        if len(entry.key.encode()) > limits.KEY_BYTES_MAX:
            raise errors.KeyTooLongError()
        asked = None
        if entry.version_id is not None:
            asked = decode_version_id(entry.version_id)
        target = await publish.read_target(call.storage, call.bucket_name, entry.key, asked)
        if target.found is not None and not target.found.record.marker:
            size = target.found.record.size
        done = await delete_again(
            call.storage,
            target,
            lambda now: _check(call, entry, now),
            times=alike,
            owner=call.owner.id,
            bypass=bypasses(call),
        )
    except TROUBLE as error:
        return [Outcome(entry, error=translate(error), size=size)] * alike
    return [Outcome(entry, deleted, size=size) for deleted in done]


def _check(call: Call, entry: Entry, target: Target) -> None:
    """Whether the caller may delete the entry as it was read, and its conditions."""
    resource = Resource.of_target(target, entry.version_id)
    etag = entry.conditions.if_match
    values: Found = {} if etag is None else {IF_MATCH_KEY: (etag,)}
    call.access.require_delete(call, resource, values, telling=entry.conditions.telling)
    entry.conditions.check(current_of(target.shown))


def _result(outcomes: list[Outcome], quiet: bool) -> bytes:
    writer = Writer("DeleteResult")
    for outcome in outcomes:
        if outcome.error is None and quiet:
            continue
        element = "Deleted" if outcome.error is None else "Error"
        writer.open(element)
        writer.element("Key", outcome.entry.key)
        writer.optional("VersionId", outcome.entry.version_id)
        if outcome.deleted.marker:
            writer.flag("DeleteMarker", True)
            writer.element("DeleteMarkerVersionId", outcome.deleted.version_id)
        if outcome.error is not None:
            writer.element("Code", outcome.error.code)
            writer.element("Message", outcome.error.message)
        writer.close(element)
    return writer.finish()
