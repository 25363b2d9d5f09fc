"""The admin port: health, metrics and the admin API, on a port of its own.

The routes are a table (s3gw.admin.routes). One path leads through all of them:

    body read and bounded → signed → allowed → converted and checked → handler → JSON

Everything under /admin wants a Signature Version 4 over all of the request, its body included, for
the service `s3gw`: one for S3 does nothing here, and one for here nothing there. Root may do
everything, a user what its policies allow: each row is an action (`s3gw:ListNodes`, …). What
asks for a change is done once per signature, at whatever gateway (s3gw.admin.replays). Health and
metrics are open, so that monitors need no key. Every error is JSON: `{"error": code, "message":
line}`. Whatever is asked for beside reading is a line of the log `s3gw.audit`, whatever the log
level.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from s3gw.admin.openapi import document
from s3gw.admin.port import AdminPort, Refusal, bad_request
from s3gw.admin.replays import UsedSignatures
from s3gw.admin.routes import DOCUMENT, METRICS, READY, ROWS
from s3gw.admin.row import Row, StructType
from s3gw.auth import sigv4
from s3gw.auth.canonical import Request as SignedParts
from s3gw.auth.policy import RequestContext, principal_values
from s3gw.auth.policy_evaluate import decide
from s3gw.cluster.layouts import NoLayout
from s3gw.cluster.topology import UnknownProfile
from s3gw.errors import AccessDenied, InvalidRequest, S3Error
from s3gw.identities.sessions import ROLE
from s3gw.kv.interface import EngineError, NoSpace
from s3gw.logs import AUDIT
from s3gw.metadata.store import OutcomeUnknown

log = logging.getLogger(__name__)
audit = logging.getLogger(AUDIT)

BODY_BYTES_MAX = 64 * 1024
AUDITED_BYTES_MAX = 1000
SERVICE = b"s3gw"
# What admin actions are done to: policies name it, or "*".
RESOURCE = "arn:aws:s3gw:::*"
RETRY_SOON = {"Retry-After": "1"}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def build_app(port: AdminPort) -> Starlette:
    """The admin port of one process."""
    used = UsedSignatures(port.storage.store.kv, port.storage.clock_ms)

    async def ready(request: Request) -> Response:
        reason = await port.ready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready", "reason": ""})

    async def metrics(request: Request) -> Response:
        text = port.metrics.render(await port.surveyor.samples())
        return PlainTextResponse(text, media_type=METRICS_TYPE)

    async def openapi(request: Request) -> Response:
        return Response(_described(port.version), media_type="application/json")

    async def unknown(request: Request) -> Response:
        return await _answered(port, used, None, request)

    app = Starlette(
        routes=[
            Route(READY, ready, methods=["GET"]),
            Route(METRICS, metrics, methods=["GET"]),
            Route(DOCUMENT, openapi, methods=["GET"]),
            *(_route(port, used, path) for path in dict.fromkeys(row.path for row in ROWS)),
            _any_method("/admin/{rest:path}", unknown),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return app


@lru_cache(maxsize=1)
def _described(version: str) -> bytes:
    """The OpenAPI document. Made when it is first asked for: it takes a while."""
    return msgspec.json.encode(document(version))


def _route(port: AdminPort, used: UsedSignatures, path: str) -> Route:
    """All operations of one path."""
    rows = {row.method: row for row in ROWS if row.path == path}

    async def serve(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        row = rows.get(method)
        if row is None and not path.startswith("/admin/"):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(rows))})
        return await _answered(port, used, row, request, allowed=", ".join(sorted(rows)))

    return _any_method(path, serve)


def _any_method(path: str, serve: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route that takes every method, so that a wrong one must be signed, too."""
    route = Route(path, serve)
    route.methods = set()
    return route


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method)."""
    assert isinstance(error, HTTPException)
    code = {404: "NoSuchPath", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
    message = {404: "there is no such path", 405: "this path does not know the method"}.get(
        error.status_code, error.detail
    )
    return _problem(error.status_code, code, message, dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    return _problem(500, "InternalError", "an internal error; the log has more")


def _problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": code, "message": message}, status, headers)


async def _answered(
    port: AdminPort, used: UsedSignatures, row: Row | None, request: Request, allowed: str = ""
) -> Response:
    """Answer a request; every refusal and every trouble is translated here."""
    try:
        body = await _body(request)
        signed = None
        if row is None or not row.open_to_all:
            signed = require_signed(port, request, body)
            if row is not None:
                require_allowed(port, row, request, signed)
        if row is None:
            if allowed:
                raise HTTPException(405, headers={"Allow": allowed})
            raise HTTPException(404)
        arguments = _arguments(row, request, body)
        if signed and row.method != "GET":
            if not row.repeatable:
                await used.use(signed.signature)
            _note(signed.access_key, request, body)
        answer = await row.handler(port, **arguments)
        return Response(msgspec.json.encode(answer), media_type="application/json")
    except Refusal as refusal:
        headers = RETRY_SOON if refusal.status == 503 else None
        return _problem(refusal.status, refusal.code, refusal.message, headers)
    except S3Error as error:
        return _problem(error.status, error.code, error.message, dict(error.headers))
    except NoSpace:
        return _problem(507, "InsufficientStorage", "the metadata engine is full")
    except OutcomeUnknown:
        message = "the outcome is not known: look before you repeat it"
        return _problem(503, "OutcomeUnknown", message, RETRY_SOON)
    except EngineError as error:
        log.info("%s %s: %s", request.method, request.url.path, error)
        message = f"the metadata engine does not answer: {error}"
        return _problem(503, "ServiceUnavailable", message, RETRY_SOON)
    except (NoLayout, UnknownProfile) as error:
        return _problem(503, "ServiceUnavailable", str(error), RETRY_SOON)
    except ClientDisconnect:
        return _problem(400, "IncompleteBody", "the client left before its body was here")


def _note(signer: str, request: Request, body: bytes) -> None:
    """Put on record, before it is done, who wants what from where."""
    audit.info(
        "%s asks for %s %s %s",
        signer,
        request.method,
        request.scope["raw_path"].decode("latin-1"),
        body[:AUDITED_BYTES_MAX].decode(errors="replace"),
        extra={"client": request.client.host if request.client else ""},
    )


async def _body(request: Request) -> bytes:
    """The body. Raises Refusal when it is too long; what is left of it the server discards."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise Refusal(413, "BodyTooLarge", f"at most {BODY_BYTES_MAX} bytes")
    return bytes(body)


def require_signed(port: AdminPort, request: Request, body: bytes) -> sigv4.SignedRequest:
    """What was signed. Raises S3Error unless somebody known has signed the request and its
    body."""
    scope = request.scope
    parts = SignedParts(
        scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], port.clock()
    )
    credentials = sigv4.parse_credentials(parts, (port.region,), service=SERVICE)
    if credentials is None or credentials.presigned:
        raise AccessDenied()
    secret = port.identities.signing_secret(credentials.access_key, credentials.session_token)
    signed = sigv4.verify(parts, credentials, secret)
    if signed.session_token is not None:
        _require_role(port, signed.session_token)
    payload = signed.payload
    if payload.mode.chunked or (payload.mode is sigv4.PayloadMode.UNSIGNED and body):
        raise InvalidRequest("The admin API wants the SHA-256 of the body in x-amz-content-sha256.")
    if payload.sha256 is not None:
        found = hashlib.sha256(body).hexdigest()
        if not hmac.compare_digest(found, payload.sha256):
            raise AccessDenied("The body is not the one that was signed.")
    return signed


def _require_role(port: AdminPort, session_token: str) -> None:
    """Temporary credentials are good here as they are for IAM: those of roles alone, so that none
    of GetSessionToken makes itself a key that lasts. Raises AccessDenied."""
    session = port.identities.sealer.open(session_token, int(port.clock() * 1000))
    if session.kind != ROLE:
        raise AccessDenied("Cannot call the admin API with these session credentials")


def require_allowed(
    port: AdminPort, row: Row, request: Request, signed: sigv4.SignedRequest
) -> None:
    """Raises AccessDenied unless the signer is root, or its policies allow the row's action."""
    principal, permissions = port.identities.identify(signed.access_key, signed.session_token)
    now = datetime.fromtimestamp(port.clock(), UTC)
    values = {
        "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:epochtime": (str(int(port.clock())),),
        "aws:securetransport": ("true" if request.url.scheme == "https" else "false",),
        "aws:requestedregion": (port.region,),
        **principal_values(principal),
    }
    if request.client is not None:
        values["aws:sourceip"] = (request.client.host,)
    context = RequestContext(principal, row.action, RESOURCE, values)
    if not decide(context, permissions).allowed:
        raise AccessDenied(f"{principal.arn} is not allowed to perform {row.action}")


def _arguments(row: Row, request: Request, body: bytes) -> dict[str, Any]:
    """Path, query and body of a request as its row describes them. Raises Refusal."""
    arguments: dict[str, Any] = {}
    if row.path_type is not None:
        arguments["path"] = _converted(request.path_params, row.path_type, "path")
    query = _query(request.scope["query_string"])
    if row.query_type is not None:
        arguments["query"] = _converted(query, row.query_type, "query")
    elif query:
        raise bad_request(f"query: unknown parameter {next(iter(query))!r}")
    if row.body_type is not None:
        try:
            arguments["body"] = msgspec.json.decode(body or b"{}", type=row.body_type)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise bad_request(f"body: {error}") from error
    elif body:
        raise bad_request("body: this operation has none")
    return arguments


def _converted(values: Any, kind: StructType, where: str) -> msgspec.Struct:
    try:
        return msgspec.convert(dict(values), kind, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(f"{where}: {error}") from error


def _query(raw: bytes) -> dict[str, str]:
    """The query's parameters. Raises Refusal for one that is there twice or is not UTF-8."""
    values: dict[str, str] = {}
    for piece in raw.split(b"&") if raw else ():
        name, _, value = piece.partition(b"=")
        try:
            key, text = (
                unquote_to_bytes(part.replace(b"+", b" ")).decode() for part in (name, value)
            )
        except UnicodeDecodeError as error:
            raise bad_request("query: it is not UTF-8") from error
        if key in values:
            raise bad_request(f"query: {key!r} is there twice")
        values[key] = text
    return values
