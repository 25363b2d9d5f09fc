"""The path of every S3 request, in reading order.

    resolve → authenticate → load bucket → authorize → open body → operation → respond

Any S3 error, raised anywhere below, becomes error XML in one place; every answer about a bucket
gets the headers of its CORS rules in one place, and metrics and the access log are written in one
place. Authorization happens once, from the row's action; operations that find more items in their
body or headers ask again, through the same method (`Access.require`), and so does whoever has to
commit on a later reading than the one that was authorized (`Access.require_still`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.auth import sigv4
from s3gw.auth.authenticate import Signer, acting, authenticate
from s3gw.auth.canonical import Request
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Permissions
from s3gw.buckets.fresh import ANSWERS as FRESH
from s3gw.identities.root import ACCOUNT_ID
from s3gw.identities.view import Identities
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import versioned
from s3gw.metrics import Metrics
from s3gw.objects import publish
from s3gw.objects.storage import Storage
from s3gw.operations.access import Access
from s3gw.operations.begun_upload import learn_upload
from s3gw.operations.bucket_subresources import fresh_answer
from s3gw.operations.call import ANONYMOUS, Call, Origin, Principal, Reply, Settings, xml_reply
from s3gw.operations.present import visible
from s3gw.operations.trouble import TROUBLE, translate
from s3gw.server.access_log import AccessLog, Note, operation_name, wanted
from s3gw.server.body import RequestBody
from s3gw.server.cross_origin import Seen, cors_headers
from s3gw.server.error_body import CONTENT_TYPE, HOST_ID, error_body, new_request_id
from s3gw.server.explain import add_explanation, explanation_header
from s3gw.server.form import form_call
from s3gw.server.patience import PATIENT_OPERATIONS, Heard, answer_patiently
from s3gw.server.resolve import SUBRESOURCES, Domains, Resolved, resolve
from s3gw.server.respond import first_window, send_reply
from s3gw.server.routes import FORM, ROWS, Asks, Scope, load_handler
from s3gw.server.routes import NONE as NO_BODY
from s3gw.wire.headers import by_name
from s3gw.wire.version_ids import sequence_named

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Call], Awaitable[Reply]]

access_log = logging.getLogger("s3gw.access")
log = logging.getLogger("s3gw.server")

UNRESOLVED = "Unresolved"
# Headers of Complete are checksums of the object, not of the XML that it sends.
SUMS_OF_OBJECT = frozenset({"CompleteMultipartUpload"})
# What makes the metadata grow is refused when the engine is nearly full; deletes go on.
GROWING_OPERATIONS = frozenset(
    {
        "CreateBucket",
        "PutObject",
        "PostObject",
        "CopyObject",
        "RenameObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "PutObjectTagging",
        "UpdateObjectEncryption",
        "PutObjectAcl",
        "PutBucketAccelerateConfiguration",
        "PutBucketAcl",
        "PutBucketAnalyticsConfiguration",
        "PutBucketCors",
        "PutBucketEncryption",
        "PutBucketIntelligentTieringConfiguration",
        "PutBucketInventoryConfiguration",
        "PutBucketLifecycleConfiguration",
        "PutBucketLogging",
        "PutBucketMetricsConfiguration",
        "PutBucketNotificationConfiguration",
        "PutBucketPolicy",
        "PutBucketRequestPayment",
        "PutBucketTagging",
        "PutBucketWebsite",
    }
)
SUBRESOURCE_BYTES = frozenset(name.encode() for name in SUBRESOURCES)


@dataclass(frozen=True, slots=True)
class Edge:
    """What the S3 port needs to answer requests."""

    storage: Storage
    identities: Identities
    settings: Settings
    domains: Domains
    metrics: Metrics
    growth_refused: Callable[[], bool] = lambda: False
    explain_signatures: bool = False
    access_log: AccessLog | None = None


class S3App:
    """The S3 port as an ASGI application."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self._handlers: dict[str, Handler | None] = {row.name: load_handler(row) for row in ROWS}
        self._access = Access(ACCOUNT_ID)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request_id = new_request_id()
        resolved: Resolved | None = None
        first: list[Buffer] = []
        named: Mapping[str, str] = {}
        seen = Seen()
        try:
            request = Request(
                scope["method"],
                scope["raw_path"],
                scope["query_string"],
                scope["headers"],
                time.time(),
            )
            headers = acting(request).headers
            named = by_name(headers)
            resolved = self._resolve(request, headers)
            patient = resolved.row.name in PATIENT_OPERATIONS
            if patient:
                receive = heard = Heard(receive, out=resolved.row.body is NO_BODY)
            answer = self._answer(request, named, receive, resolved, request_id, scope, seen)
            if patient:
                errors_too = self._or_error(answer, scope, resolved, request_id)
                reply = await answer_patiently(asyncio.create_task(errors_too), heard)
            else:
                reply = await answer
            first = await first_window(reply)
        except Exception as error:  # noqa: BLE001 (answered and logged in one place)
            reply = self._error_reply(error, scope, resolved, request_id)
        operation = resolved.row.name if resolved else UNRESOLVED
        if resolved is not None:
            reply.headers += await cors_headers(self.edge.storage, resolved, named, seen)
        note = self._note(scope, named, resolved, seen, time.perf_counter() - started)
        if note is not None:
            send = note.counting(send)
        try:
            await send_reply(reply, first, scope["method"], request_id, HOST_ID, send)
        finally:
            seconds = time.perf_counter() - started
            self.edge.metrics.request(operation, reply.status, seconds)
            log_access(scope, operation, reply.status, seconds, request_id)
            if note is not None:
                note.add(reply, request_id, seconds)

    def _note(
        self,
        scope: AsgiScope,
        headers: Mapping[str, str],
        resolved: Resolved | None,
        seen: Seen,
        ready: float,
    ) -> Note | None:
        """What the access log of the bucket is to be told; None where there is none."""
        log_of_buckets = self.edge.access_log
        if log_of_buckets is None or resolved is None:
            return None
        bucket = wanted(log_of_buckets, resolved.bucket, seen.bucket)
        if bucket is None:
            return None
        key = seen.call.key if seen.call is not None else resolved.key
        return Note(
            log_of_buckets,
            scope,
            headers,
            operation_name(resolved),
            resolved.bucket,
            key,
            bucket,
            call=seen.call,
            ready=ready,
        )

    async def _or_error(
        self, answer: Awaitable[Reply], scope: AsgiScope, resolved: Resolved, request_id: str
    ) -> Reply:
        """The answer, or its error as a reply."""
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 (answered and logged in one place)
            return self._error_reply(error, scope, resolved, request_id)

    def _resolve(self, request: Request, headers: list[tuple[bytes, bytes]]) -> Resolved:
        names = dict(headers)
        return resolve(
            request.method,
            request.raw_path,
            request.raw_query,
            host=names.get(b"host", b""),
            headers=names,
            domains=self.edge.domains,
        )

    async def _answer(
        self,
        request: Request,
        headers: Mapping[str, str],
        receive: Receive,
        resolved: Resolved,
        request_id: str,
        scope: AsgiScope,
        seen: Seen,
    ) -> Reply:
        """The pipeline. `headers` are those that the request acts by."""
        principal, permissions, payload, signer = await self._authenticate(request, resolved)
        call = Call(
            operation=resolved.row.name,
            bucket_name=resolved.bucket,
            key=resolved.key,
            query=resolved.query,
            headers=headers,
            principal=principal,
            signed=principal is not ANONYMOUS,
            storage=self.edge.storage,
            settings=self.edge.settings,
            request_id=request_id,
            body=RequestBody(
                receive,
                headers,
                payload,
                signer.seed if signer is not None else None,
                sums_of_object=resolved.row.name in SUMS_OF_OBJECT,
            ),
            access=self._access,
            origin=origin_of(scope, request.now, signer),
            permissions=permissions,
            identify_again=_identify_again(self.edge.identities, signer),
        )
        if resolved.row.body is FORM:
            always = self.edge.explain_signatures
            call = await form_call(call, self.edge.identities, explain=always)
        seen.call = call
        await self._load(call, resolved)
        seen.bucket = call.bucket_record
        if resolved.row.asks is not Asks.NOBODY:
            await self._authorize(call, resolved)
        return await self._operate(call, resolved)

    async def _authenticate(
        self, request: Request, resolved: Resolved
    ) -> tuple[Principal, Permissions, sigv4.Payload, Signer | None]:
        """Who asks, with their policies, how the body is framed, and who signed. Raises the 400 and
        403 errors of signatures."""
        if resolved.row.asks is Asks.NOBODY:
            return ANONYMOUS, NO_PERMISSIONS, sigv4.UNSIGNED, None
        identities = self.edge.identities
        region = self.edge.settings.region
        hosted_bucket = self.edge.domains.bucket(request.header_values.get(b"host", b""))
        try:
            signer = authenticate(
                request,
                identities.signing_secret,
                regions=(region,),
                hosted_bucket=hosted_bucket,
                subresources=SUBRESOURCE_BYTES,
            )
        except errors.SignatureDoesNotMatch as error:
            await add_explanation(
                error,
                request,
                region,
                identities,
                always=self.edge.explain_signatures,
                hosted_bucket=hosted_bucket,
                subresources=SUBRESOURCE_BYTES,
            )
            raise
        if signer is None:
            return ANONYMOUS, NO_PERMISSIONS, sigv4.anonymous_payload(request), None
        principal, permissions = identities.identify(signer.access_key, signer.session_token)
        return principal, permissions, signer.payload, signer

    async def _load(self, call: Call, resolved: Resolved) -> None:
        """Read the bucket, and with it the object's record, in one round trip."""
        if resolved.row.scope is Scope.SERVICE or call.operation == "CreateBucket":
            return
        asks = resolved.row.asks
        about_key = call.key and asks is not Asks.NOBODY
        if about_key and "uploadId" not in call.query:
            # What cannot be an id is refused by the operation, behind authorization.
            call.object_target = await publish.read_target(
                call.storage,
                call.bucket_name,
                call.key,
                sequence_named(call.query.get("versionId")),
            )
            call.bucket_record = call.object_target.bucket
            call.bucket_revision = call.object_target.bucket_revision
            return
        reading = await call.storage.store.kv.get_many([keys.bucket(call.bucket_name)])
        bucket = versioned(BucketRecord, reading.items[0])
        if bucket.record is None:
            raise errors.NoSuchBucket(BucketName=call.bucket_name)
        call.bucket_record, call.bucket_revision = bucket.record, bucket.revision

    async def _authorize(self, call: Call, resolved: Resolved) -> None:
        """Ask the policies for the row's action; where the operation itself asks for what it finds,
        only refuse those who could not be allowed anything. Raises AccessDenied."""
        owner = call.bucket_record.owner if call.bucket_record else call.principal.id
        call.access.require_owner(call, "x-amz-expected-bucket-owner", owner)
        if resolved.row.asks is Asks.ROW:
            try:
                call.access.require_row(call, resolved.action)
            except errors.AccessDenied:
                if not await learn_upload(call):
                    raise
                call.access.require_row(call, resolved.action)
        elif call.access.is_hopeless(call):
            raise errors.AccessDenied()

    async def _operate(self, call: Call, resolved: Resolved) -> Reply:
        handler = self._handlers[call.operation]
        if call.operation in GROWING_OPERATIONS and self.edge.growth_refused():
            raise errors.InsufficientStorage("The metadata engine is nearly full.")
        if handler is not None:
            return await handler(call)
        if call.operation in FRESH:
            if call.object_target is not None:
                visible(call)  # or its error
            document = fresh_answer(call.operation, bucket=call.bucket_name)
            return xml_reply(document)
        raise errors.NotImplementedS3()

    def _error_reply(
        self, cause: Exception, scope: AsgiScope, resolved: Resolved | None, request_id: str
    ) -> Reply:
        """The one place where an error becomes an answer. What nobody foresaw is logged."""
        if not isinstance(cause, TROUBLE):
            log.error("request %s failed", request_id, exc_info=cause)
        error = translate(cause)
        body = error_body(
            error,
            method=scope["method"],
            resource=_resource(scope, resolved),
            request_id=request_id,
            host_id=HOST_ID,
        )
        headers = list(error.headers.items())
        headers += [("Content-Type", CONTENT_TYPE)] if body else explanation_header(error)
        return Reply(error.status, headers, body, error=error.code)


def _identify_again(
    identities: Identities, signer: Signer | None
) -> Callable[[], tuple[Principal, Permissions]] | None:
    if signer is None:
        return None
    return identities.identify_again(signer.access_key, signer.session_token)


def log_access(
    scope: AsgiScope, operation: str, status: int, seconds: float, request_id: str
) -> None:
    """The line of a request in the access log."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    access_log.info(
        "%s",
        operation,
        extra={
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["raw_path"].decode("latin-1"),
            "status": status,
            "ms": round(seconds * 1000, 2),
            "client": (scope.get("client") or ("",))[0],
        },
    )


def origin_of(scope: AsgiScope, now: float, signer: Signer | None = None) -> Origin:
    """Where a request came from, and how it was signed."""
    address = (scope.get("client") or ("",))[0]
    secure = scope.get("scheme") == "https"
    if signer is None:
        return Origin(now, address, secure)
    if signer.seed is None:
        return Origin(now, address, secure, "AWS", presigned=True)
    seed = signer.seed
    return Origin(now, address, secure, "AWS4-HMAC-SHA256", seed.presigned, seed.timestamp)


def _resource(scope: Mapping[str, Any], resolved: Resolved | None) -> str:
    """The decoded path that errors show."""
    if resolved is None:
        return str(scope["raw_path"].decode("latin-1"))
    if not resolved.bucket:
        return "/"
    return f"/{resolved.bucket}/{resolved.key}" if resolved.key else f"/{resolved.bucket}"
