"""GetObject and HeadObject: the same answer, with and without the bytes."""

from __future__ import annotations

from dataclasses import dataclass

from s3gw import errors
from s3gw.metadata.records import Checksums, ManifestRef, ObjectRecord
from s3gw.objects.read import part_at
from s3gw.objects.reading import read_version
from s3gw.operations.call import Call, Reply
from s3gw.operations.encryption import encryption_headers, opened
from s3gw.operations.lifecycle_headers import expiration_headers
from s3gw.operations.parameters import part_number
from s3gw.operations.present import (
    cache_headers,
    checksum_headers,
    checksums_of,
    current_of,
    object_headers,
    part_count,
    version_headers,
    visible,
)
from s3gw.wire.conditions import ReadConditions, range_applies
from s3gw.wire.headers import response_overrides
from s3gw.wire.ranges import ByteRange, parse_range


@dataclass(frozen=True, slots=True)
class Selection:
    """The bytes [first, stop) of a version that a request asks for. `partial` answers 206.
    `of_part` are the checksums of a part; of another range of bytes none are known."""

    first: int
    stop: int
    partial: bool
    of_part: Checksums | None = None

    def checksums(self, record: ObjectRecord) -> Checksums:
        """Those of the bytes selected."""
        if self.of_part is not None:
            return self.of_part
        return Checksums() if self.partial else checksums_of(record)


async def get_object(call: Call) -> Reply:
    """A version, or a range or part of it."""
    record, selection, reply = await select(call)
    framing = await opened(call, record)
    reply.stream = read_version(
        call.storage, call.target, record, selection.first, selection.stop, framing
    )
    return reply


async def select(call: Call) -> tuple[ObjectRecord, Selection, Reply]:
    """The version, the bytes asked for, and the answer's head. Raises S3Error."""
    record = visible(call)
    await opened(call, record, for_content=False)
    current = current_of(record)
    assert current is not None
    try:
        ReadConditions.of(call.headers).check(current)
    except errors.NotModified as unchanged:
        raise errors.NotModified(headers={**unchanged.headers, **cache_headers(record)}) from None
    selection, headers = await _selected(call, record)
    overrides = response_overrides(call.query, signed=call.signed)
    with_checksums = call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    reply = Reply(
        206 if selection.partial else 200,
        object_headers(record, overrides)
        + (checksum_headers(selection.checksums(record)) if with_checksums else [])
        + version_headers(call.bucket, record)
        + (expiration_headers(call, record) if record is call.target.visible else [])
        + encryption_headers(call, record.description.encryption)
        + headers,
        length=selection.stop - selection.first,
    )
    return record, selection, reply


async def _selected(call: Call, record: ObjectRecord) -> tuple[Selection, list[tuple[str, str]]]:
    """What `partNumber` or `Range` selects, and the headers that say so."""
    if call.query.get("partNumber"):
        if "range" in call.headers:
            raise errors.InvalidRequest(
                "Cannot specify both Range header and partNumber query parameter"
            )
        return await _selected_part(call, record)
    current = current_of(record)
    assert current is not None
    if not range_applies(call.headers.get("if-range"), current):
        return Selection(0, record.size, partial=False), []
    wanted = parse_range(call.headers.get("range"), record.size)
    if wanted is None:
        return Selection(0, record.size, partial=False), []
    headers = [("Content-Range", wanted.content_range)]
    return Selection(wanted.first, wanted.last + 1, partial=True), headers


async def _selected_part(
    call: Call, record: ObjectRecord
) -> tuple[Selection, list[tuple[str, str]]]:
    """The part's bytes; an object that was not uploaded in parts is its own part 1."""
    number = part_number(call)
    count = part_count(record)
    if number > max(count, 1):
        raise errors.InvalidPartNumber(
            PartNumberRequested=str(number), ActualPartCount=str(max(count, 1))
        )
    if isinstance(record.data, ManifestRef):
        part, first = await part_at(call.storage, record.data, number - 1)
        stop = first + part.size
        # The type is that of the object: how the checksums of its parts make that of the whole.
        checksums = Checksums(part.checksums.values, record.checksums.kind)
    else:
        first, stop, checksums = 0, record.size, checksums_of(record)
    headers = [("x-amz-mp-parts-count", str(count))] if count else []
    if not record.size:
        return Selection(0, 0, False, checksums), headers
    shown = ByteRange(first, stop - 1, record.size)
    headers.append(("Content-Range", shown.content_range))
    return Selection(first, stop, True, checksums), headers
