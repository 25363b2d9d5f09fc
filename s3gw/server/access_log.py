"""What the access log of a bucket is told of a request (BucketLoggingStatus).

A bucket without logging costs one look at its record. A request that was refused before its bucket
was read (a wrong signature) is logged where an earlier request has shown that the bucket wants it:
nobody makes this process read metadata by signing badly.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Protocol

from s3gw.buckets.settings import LOGGING
from s3gw.metadata.records import BucketRecord
from s3gw.operations.call import Batched, Call, Reply
from s3gw.server.error_body import HOST_ID
from s3gw.server.resolve import Resolved
from s3gw.server.routes import Scope
from s3gw.wire.access_log import Entry, access_line

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiScope = MutableMapping[str, Any]

# Resources as S3's log names them, by the sub-resource; others by their own name in capitals.
RESOURCES = {
    "": "BUCKET",
    "list-type": "BUCKET",
    "delete": "MULTI_OBJECT_DELETE",
    "uploads": "UPLOADS",
    "uploadId": "UPLOAD",
    "partNumber": "PART",
    "policy": "BUCKETPOLICY",
    "versions": "BUCKETVERSIONS",
    "logging": "LOGGING_STATUS",
    "requestPayment": "REQUEST_PAYMENT",
    "policyStatus": "BUCKET_POLICY_STATUS",
    "publicAccessBlock": "PUBLIC_ACCESS_BLOCK",
    "ownershipControls": "OWNERSHIP_CONTROLS",
    "intelligent-tiering": "INTELLIGENT_TIERING",
    "object-lock": "OBJECT_LOCK_CONFIGURATION",
    "legal-hold": "OBJECT_LOCK_LEGALHOLD",
    "retention": "OBJECT_LOCK_RETENTION",
    "renameObject": "OBJECT_RENAME",
}
# Not after their method.
OPERATIONS = {
    "CopyObject": "REST.COPY.OBJECT",
    "UploadPart": "REST.PUT.PART",
    "UploadPartCopy": "REST.COPY.PART",
    "GetObjectTagging": "REST.GET.OBJECT_TAGGING",
    "PutObjectTagging": "REST.PUT.OBJECT_TAGGING",
    "DeleteObjectTagging": "REST.DELETE.OBJECT_TAGGING",
    "PostObject": "REST.POST.OBJECT",
    "PreflightBucket": "REST.OPTIONS.PREFLIGHT",
    "PreflightObject": "REST.OPTIONS.PREFLIGHT",
}
BATCH = "BATCH.DELETE.OBJECT"
SIGNATURES = {"AWS4-HMAC-SHA256": "SigV4", "AWS": "SigV2"}


class AccessLog(Protocol):
    """Takes lines for delivery."""

    def add(self, bucket_name: str, bucket: BucketRecord, seconds: float, line: bytes) -> None:
        """Keep a line about a request at Unix time `seconds`, or drop and count it. Never waits."""
        ...

    def known(self, bucket_name: str) -> BucketRecord | None:
        """The bucket's record as `add` was last given it."""
        ...

    def forget(self, bucket_name: str) -> None:
        """The bucket does not want a log any more, if it ever did."""
        ...


def operation_name(resolved: Resolved) -> str:
    """`REST.GET.OBJECT` and the like."""
    row = resolved.row
    named = OPERATIONS.get(row.name)
    if named is not None:
        return named
    first = row.query.split("&")[0].split("=")[0]
    if row.scope is Scope.OBJECT and not first:
        resource = "OBJECT"
    else:
        resource = RESOURCES.get(first) or first.upper().replace("-", "_")
    return f"REST.{row.method}.{resource}"


def wanted(
    log: AccessLog | None, bucket_name: str, bucket: BucketRecord | None
) -> BucketRecord | None:
    """The record of a bucket whose requests are logged; None for others."""
    if log is None:
        return None
    if bucket is None:
        return log.known(bucket_name)
    if LOGGING.name in bucket.documents:
        return bucket
    log.forget(bucket_name)
    return None


class Note:
    """A request to a bucket with logging, as its answer begins. `call` is None when it did not come
    so far; `ready` is how long the answer took, in seconds."""

    def __init__(
        self,
        log: AccessLog,
        scope: AsgiScope,
        headers: Mapping[str, str],
        operation: str,
        bucket_name: str,
        key: str,
        bucket: BucketRecord,
        *,
        call: Call | None,
        ready: float,
    ) -> None:
        self._log = log
        self._scope = scope
        self._headers = headers
        self._operation = operation
        self._bucket_name = bucket_name
        self._key = key
        self._bucket = bucket
        self._call = call
        self._ready = ready
        self._sent = 0

    def counting(self, send: Send) -> Send:
        """`send`, which counts the bytes of the body."""

        async def counted(message: MutableMapping[str, Any]) -> None:
            await send(message)
            self._sent += len(message.get("body", b""))

        return counted

    def add(self, reply: Reply, request_id: str, seconds: float) -> None:
        """The line of the request, `seconds` after it came."""
        scope, call, headers = self._scope, self._call, self._headers
        session = scope.get("extensions", {}).get("tls_session", {})
        now = time.time() - seconds
        query = scope["query_string"].decode("latin-1")
        uri = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        origin = call.origin if call is not None else None
        signed = bool(origin and origin.signature)
        received = int(headers.get("content-length", "0") or 0) if _has_body(headers) else 0
        entry = Entry(
            owner=self._bucket.owner,
            bucket=self._bucket_name,
            seconds=now,
            address=(scope.get("client") or ("",))[0],
            requester=_requester(call),
            request_id=request_id,
            operation=self._operation,
            key=self._key,
            request_uri=f"{scope['method']} {uri} HTTP/{scope.get('http_version', '1.1')}",
            status=reply.status,
            error=reply.error,
            bytes_sent=self._sent,
            object_size=_object_size(call, received),
            total_ms=int(seconds * 1000),
            # How long the body took to come is not known.
            turnaround_ms=-1 if _has_body(headers) else int(self._ready * 1000),
            referrer=headers.get("referer", ""),
            user_agent=headers.get("user-agent", ""),
            version_id=call.query.get("versionId", "") if call is not None else "",
            host_id=HOST_ID,
            signature=SIGNATURES.get(origin.signature, "") if origin is not None else "",
            authentication=("QueryString" if origin.presigned else "AuthHeader")
            if origin is not None and signed
            else "",
            host=headers.get("host", ""),
            cipher=session.get("cipher", ""),
            tls=session.get("version", ""),
            by_list=call is not None and reply.status < 400 and call.access.rests_on_lists(call),
        )
        self._log.add(self._bucket_name, self._bucket, now, access_line(entry))
        for each in reply.batch:
            line = access_line(_of_batch(entry, each))
            self._log.add(self._bucket_name, self._bucket, now, line)


def _of_batch(entry: Entry, each: Batched) -> Entry:
    """The line of one object beside that of its request, as S3 writes it: what is of the request
    alone is not repeated."""
    return replace(
        entry,
        operation=BATCH,
        key=each.key,
        request_uri="",
        status=each.status,
        error=each.error,
        bytes_sent=0,
        object_size=each.size,
        by_list=False,
        total_ms=-1,
        turnaround_ms=-1,
        version_id=each.version_id,
    )


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _requester(call: Call | None) -> str:
    """The account, or the user or session by its ARN."""
    if call is None or call.principal.is_anonymous:
        return ""
    return call.principal.id if call.principal.is_root else call.principal.arn


def _object_size(call: Call | None, received: int) -> int:
    """Of an object read or written; -1 for others."""
    if call is None or not call.key or call.object_target is None:
        return -1
    if call.operation in ("PutObject", "PostObject"):
        size = call.body.size
        return received if size is None else size
    found = call.object_target.found
    return found.record.size if found is not None and not found.record.marker else -1
