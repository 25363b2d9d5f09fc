"""Websites: what browsers see of a bucket at `bucket.<website domain>`.

    RedirectAllRequestsTo, or a routing rule that fits the key     that redirect
    `/` and `dir/`                                                 their index document
    a key                                                          its object, or where that points
    a key without object, but with one at `key/` + index           302 to `key/`
    an error that a routing rule is for                            that redirect
    any other error of the client                                  the error document, as that error
    everything else                                                a page made here

Requests are anonymous whatever they carry: an object is shown if the bucket's policy or the access
control lists let everyone read it. Conditions, ranges and CORS are those of GetObject. Redirects of
everything and to `dir/` keep the query, the others say themselves what it is to be.

Sources: Amazon S3 User Guide, "Hosting a static website using Amazon S3" and below it "Website
endpoints", "Configuring an index document", "Configuring a custom error document", "Configuring a
webpage redirect".
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import unquote

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.auth import sigv4
from s3gw.buckets.cors import Headers
from s3gw.buckets.names import is_well_formed
from s3gw.buckets.website import WEBSITE, Redirect, RoutingRule, Website, website_of
from s3gw.errors import S3Error
from s3gw.identities.root import ACCOUNT_ID
from s3gw.metadata.records import BucketRecord
from s3gw.objects import publish
from s3gw.objects.buckets import find_bucket
from s3gw.operations.access import Access
from s3gw.operations.bucket_cors import preflight
from s3gw.operations.call import ANONYMOUS, Call, Reply
from s3gw.operations.get_object import get_object
from s3gw.operations.head_object import head_object
from s3gw.operations.present import visible
from s3gw.operations.trouble import TROUBLE, translate
from s3gw.server.access_log import Note, wanted
from s3gw.server.body import RequestBody
from s3gw.server.cross_origin import headers_of_bucket
from s3gw.server.error_body import HOST_ID, new_request_id
from s3gw.server.pipeline import AsgiScope, Edge, Receive, Send, log_access, origin_of
from s3gw.server.resolve import Domains, decode_key
from s3gw.server.respond import first_window, send_reply
from s3gw.wire.headers import by_name
from s3gw.wire.xml import url_encode

OPERATION = "Website"
HTML = ("Content-Type", "text/html; charset=utf-8")
READS = {"GET": get_object, "HEAD": head_object}
ALLOWED = "GET, HEAD, OPTIONS"
# Of the object that an error document is, not of the page that is missing.
OF_OTHER_CONTENT = frozenset({"ETag", "Last-Modified", "Accept-Ranges", "x-amz-version-id"})
# What an error document is read with: no condition and no range is about it.
KEPT_HEADERS = ("host", "user-agent", "referer")

App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]
log = logging.getLogger("s3gw.server")


@dataclass(slots=True)
class Visit:
    """One request. `bucket` is set once it was read."""

    scope: AsgiScope
    receive: Receive
    request_id: str
    bucket_name: str
    headers: Mapping[str, str]
    bucket: BucketRecord | None = None

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def query(self) -> str:
        """The query as sent, with its `?`."""
        raw = self.scope["query_string"].decode("latin-1")
        return f"?{raw}" if raw else ""


class WebsiteApp:
    """Answers requests to the website `domains` and hands all others to `s3`."""

    def __init__(self, edge: Edge, domains: Domains, s3: App) -> None:
        self._edge = edge
        self._domains = domains
        self._s3 = s3
        self._access = Access(ACCOUNT_ID)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        name = None
        if scope["type"] == "http":
            name = self._domains.bucket(dict(scope["headers"]).get(b"host", b""))
        if name is None:
            await self._s3(scope, receive, send)
            return
        started = time.perf_counter()
        headers = by_name(scope["headers"])
        visit = Visit(scope, receive, new_request_id(), name.decode("latin-1"), headers)
        reply, first = await self._reply(visit)
        if visit.method != "OPTIONS":
            reply.headers += headers_of_bucket(visit.bucket, headers.get("origin"), visit.method)
        note = self._note(visit, time.perf_counter() - started)
        if note is not None:
            send = note.counting(send)
        try:
            await send_reply(reply, first, visit.method, visit.request_id, HOST_ID, send)
        finally:
            seconds = time.perf_counter() - started
            if note is not None:
                note.add(reply, visit.request_id, seconds)
            self._edge.metrics.request(OPERATION, reply.status, seconds)
            log_access(scope, OPERATION, reply.status, seconds, visit.request_id)

    def _note(self, visit: Visit, ready: float) -> Note | None:
        """What the access log of the bucket is to be told; None where there is none."""
        access_log = self._edge.access_log
        bucket = wanted(access_log, visit.bucket_name, visit.bucket)
        if access_log is None or bucket is None:
            return None
        key = unquote(visit.scope["raw_path"][1:].decode("latin-1"), errors="replace")
        return Note(
            access_log,
            visit.scope,
            visit.headers,
            f"WEBSITE.{visit.method}.OBJECT",
            visit.bucket_name,
            key,
            bucket,
            call=None,
            ready=ready,
        )

    async def _reply(self, visit: Visit) -> tuple[Reply, list[Buffer]]:
        """The answer, and the first bytes of its body; any error as a page."""
        try:
            reply = await self._answer(visit)
            return reply, await first_window(reply)
        except Exception as error:  # noqa: BLE001 (answered and logged in one place)
            return error_page(_understood(visit, error), visit.request_id), []

    async def _answer(self, visit: Visit) -> Reply:
        """Raises S3Error and TROUBLE."""
        if visit.scope["raw_path"][:1] != b"/":
            raise errors.InvalidURI
        if not is_well_formed(visit.bucket_name.encode("latin-1")):
            raise errors.NoSuchBucket(BucketName=visit.bucket_name)
        visit.bucket = (await find_bucket(self._edge.storage, visit.bucket_name)).record
        assert visit.bucket is not None
        if visit.method == "OPTIONS":
            return await preflight(self._call(visit, visit.headers, OPERATION))
        if visit.method not in READS:
            raise errors.MethodNotAllowed(
                headers={"Allow": ALLOWED}, Method=visit.method, ResourceType="OBJECT"
            )
        stored = visit.bucket.documents.get(WEBSITE.name)
        if stored is None:
            raise errors.NoSuchWebsiteConfiguration(BucketName=visit.bucket_name)
        website = website_of(stored)
        key = decode_key(visit.scope["raw_path"][1:])
        if website.everything is not None:
            return _redirected(visit, website.everything, url_encode(key) + visit.query)
        rule = website.rule(key)
        if rule is not None:
            return _by_rule(visit, rule, key)
        return await self._page(visit, website, key)

    async def _page(self, visit: Visit, website: Website, key: str) -> Reply:
        """The object of a key, or what is shown instead."""
        shown = key if key and not key.endswith("/") else key + website.index
        try:
            return await self._object(visit, shown, visit.headers)
        except S3Error as error:
            if error.status == HTTPStatus.NOT_MODIFIED:
                raise
            failure = error
        except TROUBLE as error:
            failure = translate(error)
        if failure.status in (403, 404) and shown == key:
            folder = f"{key}/"
            if await self._is_shown(visit, folder + website.index):
                return _moved(302, _path(folder) + visit.query)
        rule = website.rule(key, failure.status)
        if rule is not None:
            return _by_rule(visit, rule, key)
        if not website.error_key or failure.status >= 500:
            raise failure
        return await self._error_document(visit, website.error_key, failure)

    async def _error_document(self, visit: Visit, key: str, failure: S3Error) -> Reply:
        plain = {name: visit.headers[name] for name in KEPT_HEADERS if name in visit.headers}
        try:
            reply = await self._object(visit, key, plain)
        except TROUBLE as error:
            return error_page(failure, visit.request_id, also=(translate(error), key))
        if reply.status != HTTPStatus.OK:
            return reply  # it points elsewhere
        kept = [pair for pair in reply.headers if pair[0] not in OF_OTHER_CONTENT]
        reply.headers = [*kept, ("x-amz-error-code", failure.code), *failure.headers.items()]
        reply.status = failure.status
        return reply

    async def _object(self, visit: Visit, key: str, headers: Mapping[str, str]) -> Reply:
        """What GetObject or HeadObject would answer to nobody known."""
        call = await self._read_call(visit, key, headers)
        location = visible(call).description.redirect
        if location:
            return _moved(301, location)
        return await READS[visit.method](call)

    async def _is_shown(self, visit: Visit, key: str) -> bool:
        try:
            visible(await self._read_call(visit, key, {}))
        except (errors.AccessDenied, errors.NoSuchKey, errors.KeyTooLongError):
            return False
        return True

    async def _read_call(self, visit: Visit, key: str, headers: Mapping[str, str]) -> Call:
        """The call of a read, authorized. Raises AccessDenied."""
        call = replace(self._call(visit, headers, "GetObject"), key=key)
        call.object_target = await publish.read_target(call.storage, call.bucket_name, key)
        call.bucket_record = call.object_target.bucket
        self._access.require_row(call, "s3:GetObject")
        return call

    def _call(self, visit: Visit, headers: Mapping[str, str], operation: str) -> Call:
        return Call(
            operation=operation,
            bucket_name=visit.bucket_name,
            key=visit.scope["raw_path"][1:].decode("latin-1"),
            query={},
            headers=headers,
            principal=ANONYMOUS,
            signed=False,
            storage=self._edge.storage,
            settings=self._edge.settings,
            request_id=visit.request_id,
            body=RequestBody(visit.receive, {}, sigv4.UNSIGNED, None),
            access=self._access,
            origin=origin_of(visit.scope, time.time()),
            bucket_record=visit.bucket,
        )


def _understood(visit: Visit, cause: Exception) -> S3Error:
    """The error as an S3 error. What nobody foresaw is logged."""
    if not isinstance(cause, TROUBLE):
        log.error("request %s failed", visit.request_id, exc_info=cause)
    return translate(cause)


def _by_rule(visit: Visit, rule: RoutingRule, key: str) -> Reply:
    return _redirected(visit, rule.redirect, rule.path(key))


def _redirected(visit: Visit, redirect: Redirect, path: str) -> Reply:
    """An answer that sends the client elsewhere; `path` is percent-encoded."""
    protocol = redirect.protocol or str(visit.scope.get("scheme", "http"))
    host = redirect.host or visit.headers.get("host", "")
    return _moved(redirect.status, f"{protocol}://{host}/{path}")


def _path(key: str) -> str:
    """The path of a key; one that begins with a slash must not read like the name of a host."""
    encoded = url_encode(key)
    return f"/%2F{encoded[1:]}" if encoded.startswith("/") else f"/{encoded}"


def _moved(status: int, location: str) -> Reply:
    return Reply(status, [("Location", location)])


def error_page(error: S3Error, request_id: str, also: tuple[S3Error, str] | None = None) -> Reply:
    """An error as a page; `also` is that of the error document, and its key."""
    if error.status == HTTPStatus.NOT_MODIFIED:
        return Reply(error.status, list(error.headers.items()))
    title = f"{error.status} {_reason(error.status)}"
    lines = [f"<html><head><title>{title}</title></head><body><h1>{title}</h1>"]
    lines += _listed(error, {**error.fields, "RequestId": request_id, "HostId": HOST_ID})
    if also is not None:
        failure, key = also
        lines.append(
            "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>"
        )
        lines += _listed(failure, {"Key": key})
    lines.append("<hr/></body></html>\n")
    body = "\n".join(lines).encode()
    headers: Headers = [HTML, ("x-amz-error-code", error.code), *error.headers.items()]
    return Reply(error.status, headers, body, length=len(body), error=error.code)


def _listed(error: S3Error, fields: Mapping[str, str]) -> list[str]:
    items = {"Code": error.code, "Message": error.message, **fields}
    return [
        "<ul>",
        *(f"<li>{html.escape(name)}: {html.escape(value)}</li>" for name, value in items.items()),
        "</ul>",
    ]


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase
