"""The condition keys of a request: what the policies of a bucket or a user may ask about it.

Sources: Service Authorization Reference, "Condition keys for Amazon S3"; IAM User Guide, "AWS
global condition context keys". A key that the request does not have is left out: operators treat it
otherwise than one with an empty value. Names are in lower case.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from s3gw.auth.policy import principal_values
from s3gw.auth.sigv4 import basic_time
from s3gw.errors import S3Error
from s3gw.metadata.records import Encryption, ObjectRecord
from s3gw.objects.keyring.ring import SSE_KMS, SSE_S3
from s3gw.operations.call import Call
from s3gw.wire.copy_source import parse_copy_source
from s3gw.wire.dates import iso8601_ms, parse_iso8601_ms
from s3gw.wire.tagging import parse_tagging_header

Found = dict[str, tuple[str, ...]]

IF_MATCH_KEY = "s3:if-match"
HEADER_KEYS = {
    "user-agent": "aws:useragent",
    "referer": "aws:referer",
    "if-match": IF_MATCH_KEY,
    "if-none-match": "s3:if-none-match",
    **{
        name: f"s3:{name}"
        for name in (
            "x-amz-acl",
            "x-amz-content-sha256",
            "x-amz-grant-full-control",
            "x-amz-grant-read",
            "x-amz-grant-read-acp",
            "x-amz-grant-write",
            "x-amz-grant-write-acp",
            "x-amz-metadata-directive",
            "x-amz-object-ownership",
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-server-side-encryption-customer-algorithm",
            "x-amz-storage-class",
            "x-amz-website-redirect-location",
        )
    },
}
# Only what makes an object gives it tags and a lock by headers; elsewhere the body does.
WRITES = frozenset({"PutObject", "PostObject", "CopyObject", "CreateMultipartUpload"})
LOCK_HEADERS = {
    "x-amz-object-lock-legal-hold": "s3:object-lock-legal-hold",
    "x-amz-object-lock-mode": "s3:object-lock-mode",
    "x-amz-object-lock-retain-until-date": "s3:object-lock-retain-until-date",
}
LISTINGS = frozenset({"ListObjects", "ListObjectsV2", "ListObjectVersions", "ListMultipartUploads"})
# Of what asks for `s3:PutObject`: whether an object comes of it (S3 User Guide, "Enforce
# conditional writes on Amazon S3 buckets").
CREATIONS = {
    **dict.fromkeys(("PutObject", "PostObject", "CopyObject", "CompleteMultipartUpload"), "true"),
    **dict.fromkeys(("CreateMultipartUpload", "UploadPart", "UploadPartCopy"), "false"),
}
# The algorithm of the checksum that comes with a body, or is asked for. Amazon S3 has no such key.
CHECKSUM_KEY, CHECKSUM_HEADER = "s3:x-amz-checksum-algorithm", "x-amz-checksum-algorithm"
SECONDS_PER_DAY = 86_400
LISTING_PARAMETERS = ("prefix", "delimiter", "max-keys")
OF_AN_UPLOAD = frozenset({"UploadPart", "UploadPartCopy", "CompleteMultipartUpload"})
ENCRYPTION_KEY = "s3:x-amz-server-side-encryption"
ENCRYPTION_KEYS = (ENCRYPTION_KEY, f"{ENCRYPTION_KEY}-aws-kms-key-id")
COPY_SOURCE_KEY, COPY_SOURCE_HEADER = "s3:x-amz-copy-source", "x-amz-copy-source"


def request_values(call: Call, account: str) -> Found:
    """The keys that are the same for every resource of the request. `account` owns the buckets."""
    origin = call.origin
    now = datetime.fromtimestamp(origin.now, UTC)
    values: Found = {
        "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:epochtime": (str(int(origin.now)),),
        "aws:securetransport": ("true" if origin.secure else "false",),
        "aws:requestedregion": (call.settings.region,),
        "aws:resourceaccount": (account,),
        "s3:resourceaccount": (account,),
        "aws:viaawsservice": ("false",),
        "aws:principalisawsservice": ("false",),
    }
    if origin.address:
        values["aws:sourceip"] = (origin.address,)
    for header, key in HEADER_KEYS.items():
        if header in call.headers:
            values[key] = (call.headers[header],)
    if call.operation in OF_AN_UPLOAD:
        # The upload has its encryption; what its parts and its end say of one encrypts nothing.
        for key in ENCRYPTION_KEYS:
            values.pop(key, None)
        values |= call.upload_values
    if call.operation == "DeleteObjects":
        # Its entries have their conditions; a header that nothing looks at is none.
        values.pop(IF_MATCH_KEY, None)
    if COPY_SOURCE_HEADER in call.headers:
        values[COPY_SOURCE_KEY] = copy_source_values(call.headers[COPY_SOURCE_HEADER])
    if origin.signature:
        values["s3:signatureversion"] = (origin.signature,)
        by_url = "REST-QUERY-STRING" if origin.presigned else "REST-HEADER"
        values["s3:authtype"] = ("POST" if call.operation == "PostObject" else by_url,)
    signed_at = basic_time(origin.timestamp)
    if signed_at is not None:
        values["s3:signatureage"] = (str(max(0, int((origin.now - signed_at) * 1000))),)
    checksum = call.body.requested.algorithm
    if checksum is not None:
        values[CHECKSUM_KEY] = (checksum.name,)
    elif CHECKSUM_HEADER in call.headers:
        values[CHECKSUM_KEY] = (call.headers[CHECKSUM_HEADER].upper(),)
    if call.operation in CREATIONS:
        values["s3:objectcreationoperation"] = (CREATIONS[call.operation],)
    if call.operation in LISTINGS:
        for name in LISTING_PARAMETERS:
            if name in call.query:
                values[f"s3:{name}"] = (call.query[name],)
    if call.operation == "CreateBucket":
        values["s3:locationconstraint"] = (call.settings.region,)  # no other is accepted
    return values | principal_values(call.principal)


def object_values(
    call: Call, record: ObjectRecord | None, version_id: str | None, *, own: bool
) -> Found:
    """The keys of one object: its version, its tags, and, where it is the request's `own` and not
    the source of a copy, the tags that the request gives it. Raises InvalidTag."""
    values: Found = {}
    if version_id is not None:
        values["s3:versionid"] = (version_id,)
    if record is not None:
        values |= existing_tag_values(record.description.tags)
    if own and call.operation in WRITES:
        values |= _written_values(call)
    return values


def encryption_values(encryption: Encryption) -> Found:
    """The keys of what asked for this encryption."""
    values: Found = {}
    if encryption.kind in (SSE_S3, SSE_KMS):
        values[ENCRYPTION_KEY] = (encryption.kind,)
    if encryption.key_name:
        values[ENCRYPTION_KEYS[1]] = (encryption.key_name,)
    return values


def copy_source_values(header: str) -> tuple[str, ...]:
    """The source of a copy, in both ways in which policies write it: with a slash in front and
    without. A header says the same source in many ways, encoded or with a version, and none of
    them may slip past a policy.

    >>> copy_source_values("b/a%2Fk?versionId=1")
    ('b/a/k', '/b/a/k')
    """
    try:
        named = parse_copy_source(header)
    except S3Error:
        return (header,)  # the operation refuses it
    path = f"{named.bucket}/{named.key}"
    return (path, f"/{path}")


def _written_values(call: Call) -> Found:
    """The keys of the lock and the tags that headers give a new object. Raises InvalidTag."""
    headers = call.headers
    values: Found = {key: (headers[name],) for name, key in LOCK_HEADERS.items() if name in headers}
    until_ms = parse_iso8601_ms(headers.get("x-amz-object-lock-retain-until-date", ""))
    if until_ms is not None:
        values |= retention_values(call, headers.get("x-amz-object-lock-mode", ""), until_ms)
    tagging = headers.get("x-amz-tagging")
    return values | tag_values(parse_tagging_header(tagging)) if tagging else values


def tag_values(tags: dict[str, str]) -> Found:
    """The keys of the tags that a request gives an object."""
    values: Found = {}
    _add_tags(values, "s3:requestobjecttag/", tags)
    if tags:
        values["s3:requestobjecttagkeys"] = tuple(tags)
    return values


def existing_tag_values(tags: dict[str, str]) -> Found:
    """The keys of the tags that an object has."""
    values: Found = {}
    _add_tags(values, "s3:existingobjecttag/", tags)
    return values


def retention_values(call: Call, mode: str, until_ms: int) -> Found:
    """The keys of the retention that a request gives an object; it may give it none."""
    if not mode:
        return {}
    days = max(0, math.ceil((until_ms / 1000 - call.origin.now) / SECONDS_PER_DAY))
    return {
        "s3:object-lock-mode": (mode,),
        "s3:object-lock-retain-until-date": (iso8601_ms(until_ms),),
        "s3:object-lock-remaining-retention-days": (str(days),),
    }


def _add_tags(values: Found, prefix: str, tags: dict[str, str]) -> None:
    """Names of tags differ by case, those of condition keys do not: `A` and `a` are one key with
    two values, so that neither hides the other."""
    for name, value in tags.items():
        key = prefix + name.lower()
        values[key] = (*values.get(key, ()), value)
