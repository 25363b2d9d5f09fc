"""The object lock of a bucket, and retention and legal hold of a version: each Get and Put.

Retention and legal hold are fields of the version's record; changing them is a compare-and-swap of
that record, so no removal decided on the former ones can follow it.
"""

from __future__ import annotations

import msgspec

from s3gw import errors, limits
from s3gw.buckets import lock as rules
from s3gw.metadata.records import BucketRecord, Lock, ObjectRecord
from s3gw.objects.change import Change, change_version
from s3gw.objects.publish import ENABLED
from s3gw.operations.access import bypasses, still_allowed
from s3gw.operations.bucket_documents import change_own_bucket
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.present import visible
from s3gw.operations.request_values import Found, retention_values
from s3gw.wire import xml
from s3gw.wire.dates import iso8601_ms, parse_iso8601_ms
from s3gw.wire.xml import Writer

NO_LOCK = "Bucket is missing Object Lock Configuration"


async def get_object_lock_configuration(call: Call) -> Reply:
    """The bucket's object lock and default retention."""
    if not call.bucket.object_lock:
        raise errors.ObjectLockConfigurationNotFoundError(BucketName=call.bucket_name)
    writer = Writer("ObjectLockConfiguration")
    writer.element("ObjectLockEnabled", ENABLED)
    document = call.bucket.documents.get(rules.DOCUMENT)
    if document is not None:
        default = rules.decode_default(document)
        writer.open("Rule")
        writer.open("DefaultRetention")
        writer.element("Mode", default.mode)
        if default.days:
            writer.element("Days", default.days)
        else:
            writer.element("Years", default.years)
        writer.close("DefaultRetention")
        writer.close("Rule")
    return xml_reply(writer.finish())


async def put_object_lock_configuration(call: Call) -> Reply:
    """Enable object lock, for good, and set or remove the default retention. Raises
    InvalidBucketState for a bucket without versioning."""
    document = await _document(call, "ObjectLockConfiguration")
    if xml.optional_text(document, "ObjectLockEnabled") != ENABLED:
        raise errors.MalformedXML()
    default = _default_retention(document)

    def change(bucket: BucketRecord) -> BucketRecord:
        if bucket.versioning != ENABLED:
            raise errors.InvalidBucketState(
                "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
            )
        documents = {k: v for k, v in bucket.documents.items() if k != rules.DOCUMENT}
        if default is not None:
            documents[rules.DOCUMENT] = rules.encode_default(default)
        return msgspec.structs.replace(bucket, object_lock=True, documents=documents)

    await change_own_bucket(call, change)
    return Reply()


def _default_retention(document: xml.Node) -> rules.DefaultRetention | None:
    rule = xml.child(document, "Rule")
    if rule is None:
        return None
    retention = xml.child(rule, "DefaultRetention")
    if retention is None:
        raise errors.MalformedXML()
    days = xml.optional_integer(retention, "Days")
    years = xml.optional_integer(retention, "Years")
    mode = xml.text(retention, "Mode")
    if mode not in rules.MODES or (days is None) == (years is None):
        raise errors.MalformedXML()
    for name, value, most in (("Days", days, rules.DAYS_MAX), ("Years", years, rules.YEARS_MAX)):
        if value is not None and not 0 < value <= most:
            what = "must be a positive integer value" if value <= 0 else "too large"
            raise errors.InvalidArgument(
                f"Default retention period {what}.", ArgumentName=name, ArgumentValue=str(value)
            )
    return rules.DefaultRetention(mode, days or 0, years or 0)


async def get_object_retention(call: Call) -> Reply:
    """The retention of a version."""
    lock = _lock_of(call)
    if not lock.mode:
        raise errors.NoSuchObjectLockConfiguration(Key=call.key)
    writer = Writer("Retention")
    writer.element("Mode", lock.mode)
    writer.element("RetainUntilDate", iso8601_ms(lock.until_ms))
    return xml_reply(writer.finish())


async def put_object_retention(call: Call) -> Reply:
    """Set, prolong or, where that is allowed, weaken the retention of a version."""
    document = await _document(call, "Retention")
    mode = xml.optional_text(document, "Mode")
    until = xml.optional_text(document, "RetainUntilDate")
    until_ms = 0
    if mode is None and until is None:
        mode = ""
    else:
        mode, until_ms = retention_of(call, mode, until)
    given = retention_values(call, mode, until_ms)
    call.access.require_row(call, "s3:PutObjectRetention", given)
    _require_lock(call)
    now_ms, bypass = call.storage.clock_ms(), bypasses(call)

    def change(record: ObjectRecord) -> ObjectRecord:
        lock = record.description.lock or Lock()
        rules.check_change(
            lock.mode,
            lock.until_ms,
            new_mode=mode,
            new_until_ms=until_ms,
            now_ms=now_ms,
            bypass=bypass,
        )
        return _with_lock(record, Lock(mode, until_ms, lock.legal_hold))

    return await _change(call, change)


def retention_of(call: Call, mode: str | None, until: str | None) -> tuple[str, int]:
    """Mode and end of a retention as a body or headers give them. Raises MalformedXML,
    InvalidArgument."""
    if mode not in rules.MODES or until is None:
        raise errors.MalformedXML()
    until_ms = parse_iso8601_ms(until)
    if until_ms is None:
        raise errors.MalformedXML()
    if until_ms <= call.storage.clock_ms():
        raise errors.InvalidArgument(
            "The retain until date must be in the future!",
            ArgumentName="x-amz-object-lock-retain-until-date",
            ArgumentValue=until,
        )
    return mode, until_ms


async def get_object_legal_hold(call: Call) -> Reply:
    """Whether a legal hold is on."""
    lock = _lock_of(call)
    if visible(call).description.lock is None:
        raise errors.NoSuchObjectLockConfiguration(Key=call.key)
    writer = Writer("LegalHold")
    writer.element("Status", "ON" if lock.legal_hold else "OFF")
    return xml_reply(writer.finish())


async def put_object_legal_hold(call: Call) -> Reply:
    """Put a legal hold on a version, or take it off."""
    status = xml.optional_text(await _document(call, "LegalHold"), "Status")
    if status not in ("ON", "OFF"):
        raise errors.MalformedXML()
    given: Found = {"s3:object-lock-legal-hold": (status,)}
    call.access.require_row(call, "s3:PutObjectLegalHold", given)
    _require_lock(call)

    def change(record: ObjectRecord) -> ObjectRecord:
        lock = record.description.lock or Lock()
        return _with_lock(record, msgspec.structs.replace(lock, legal_hold=status == "ON"))

    return await _change(call, change)


def _require_lock(call: Call) -> None:
    if not call.bucket.object_lock:
        raise errors.InvalidRequest(NO_LOCK, BucketName=call.bucket_name)


def _lock_of(call: Call) -> Lock:
    _require_lock(call)
    return visible(call).description.lock or Lock()


def _with_lock(record: ObjectRecord, lock: Lock) -> ObjectRecord:
    description = msgspec.structs.replace(record.description, lock=lock)
    return msgspec.structs.replace(record, description=description)


async def _document(call: Call, root: str) -> xml.Node:
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    return await xml.parse_off_loop(body, limit=limits.XML_SMALL_BYTES_MAX, root=root)


async def _change(call: Call, change: Change) -> Reply:
    visible(call)  # or its error
    await change_version(call.storage, call.target, change, still_allowed(call))
    return Reply()
