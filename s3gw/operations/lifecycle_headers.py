"""What answers tell of the lifecycle rules of a bucket: when an object expires, when an upload is
aborted. A bucket without rules costs one look into its record."""

from __future__ import annotations

from urllib.parse import quote

from s3gw.buckets.lifecycle import NAME
from s3gw.buckets.lifecycle_due import Action, abort, expiry
from s3gw.metadata.records import ObjectRecord
from s3gw.objects.lifecycle import as_seen, configuration_of
from s3gw.operations.call import Call
from s3gw.wire.dates import http_date

Headers = list[tuple[str, str]]
PRINTABLE = "".join(map(chr, range(32, 127)))


def expiration_headers(call: Call, record: ObjectRecord) -> Headers:
    """`x-amz-expiration` of a version that is visible. The rule's id is URL-encoded, as S3 has
    it."""
    if NAME not in call.bucket.documents:
        return []
    configuration = configuration_of(call.bucket)
    if configuration is None:
        return []
    seen = as_seen(call.bucket, call.key, record)
    action = expiry(configuration, seen, call.storage.lifecycle_day_ms)
    if action is None:
        return []
    told = f'expiry-date="{_date(action)}", rule-id="{quote(action.rule_id, safe="")}"'
    return [("x-amz-expiration", told)]


def abort_headers(call: Call, initiated_ms: int) -> Headers:
    """`x-amz-abort-date` and `x-amz-abort-rule-id` of an upload."""
    if NAME not in call.bucket.documents:
        return []
    configuration = configuration_of(call.bucket)
    if configuration is None:
        return []
    action = abort(configuration, call.key, initiated_ms, call.storage.lifecycle_day_ms)
    if action is None:
        return []
    return [
        ("x-amz-abort-date", _date(action)),
        ("x-amz-abort-rule-id", quote(action.rule_id, safe=PRINTABLE)),
    ]


def _date(action: Action) -> str:
    return http_date(action.due_ms // 1000)
