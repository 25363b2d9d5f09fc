"""The AWS query protocol on the S3 port: IAM and STS, as their clients speak it.

    POST /  with application/x-www-form-urlencoded     Action=CreateUser&Version=2010-05-08&…
    GET /?Action=…&Version=…                           the same in a URL, as presigned requests are

Neither is a request of S3: it has no POST on `/`, and no parameters of these names. The path of a
request: read the form → find the action → authenticate → validate → authorize → act → answer.
Signatures are those of S3 but for the service in their scope (so that a URL made for one is none
for the other) and the hash of the body, which these clients sign without sending it.

Whoever has credentials from GetSessionToken may use them for S3 and to assume roles, and not for
IAM; from GetFederationToken, for S3 alone. Source: IAM User Guide, "Compare AWS STS credentials".
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from s3gw import errors, limits
from s3gw.auth import sigv4
from s3gw.auth.canonical import Request
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import ANONYMOUS
from s3gw.iam import errors as query_errors
from s3gw.iam.actions import ACTIONS, BY_NAME, IAM, REASONS, SERVICES, Action, load_handler
from s3gw.iam.call import Asker, QueryCall, Services
from s3gw.iam.documents import CONTENT_TYPE, error_document, result_document
from s3gw.iam.errors import QueryError
from s3gw.iam.parameters import parse_form, validated
from s3gw.iam.resources import RESOURCES, values, with_stored_names
from s3gw.identities.errors import IdentityError
from s3gw.identities.sessions import FEDERATED, ROLE, Session
from s3gw.identities.web_identity import (
    ExpiredIdentityToken,
    ProviderUnreachable,
    WebIdentityError,
)
from s3gw.metrics import Metrics
from s3gw.operations.trouble import TROUBLE, translate
from s3gw.server.pipeline import AsgiScope, Receive, Send
from s3gw.server.resolve import Domains

App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

FORM_TYPE = b"application/x-www-form-urlencoded"
SIGNATURE_PREFIX = "X-Amz-"
# What global services are signed for, whatever the region of the store.
GLOBAL_REGION = "us-east-1"
OPEN_TO_USER_SESSIONS = frozenset({"AssumeRole", "GetCallerIdentity"})
OPEN_TO_FEDERATED = frozenset({"GetCallerIdentity"})
UNRESOLVED = "Unresolved"

access_log = logging.getLogger("s3gw.access")
log = logging.getLogger("s3gw.server")

# Errors that the protocol has another name for; those not named here keep theirs.
RENAMED: Mapping[type[errors.S3Error], type[QueryError]] = {
    errors.AccessDenied: query_errors.AccessDenied,
    errors.AuthorizationHeaderMalformed: query_errors.IncompleteSignature,
    errors.AuthorizationQueryParametersError: query_errors.IncompleteSignature,
    errors.ExpiredToken: query_errors.ExpiredToken,
    errors.InternalError: QueryError,
    errors.InvalidAccessKeyId: query_errors.InvalidClientTokenId,
    errors.InvalidArgument: query_errors.IncompleteSignature,
    errors.InvalidRequest: query_errors.IncompleteSignature,
    errors.InvalidToken: query_errors.InvalidClientTokenId,
    errors.InvalidURI: query_errors.MalformedQueryString,
    errors.MaxMessageLengthExceeded: query_errors.RequestEntityTooLarge,
    errors.RequestTimeTooSkewed: query_errors.RequestExpired,
    errors.ServiceUnavailable: query_errors.ServiceUnavailable,
    errors.SignatureDoesNotMatch: query_errors.SignatureDoesNotMatch,
    errors.SlowDown: query_errors.ServiceUnavailable,
}
# Their own messages speak of S3, or quote what is not for others.
OWN_MESSAGE = frozenset(
    {errors.ExpiredToken, errors.InvalidAccessKeyId, errors.InvalidToken, errors.InternalError}
)


@dataclass(frozen=True, slots=True)
class QueryEdge:
    """What the query API needs to answer requests."""

    services: Services
    domains: Domains
    metrics: Metrics
    growth_refused: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time


class QueryApi:
    """The query protocol in front of the S3 application, which gets everything else."""

    def __init__(self, edge: QueryEdge, s3: App) -> None:
        self._edge = edge
        self._s3 = s3
        self._handlers = {action.name: load_handler(action) for action in ACTIONS}

    def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["raw_path"] == b"/" and self._is_query(scope):
            return self._serve(scope, receive, send)
        return self._s3(scope, receive, send)

    def _is_query(self, scope: AsgiScope) -> bool:
        headers = dict(scope["headers"])
        if self._edge.domains.bucket(headers.get(b"host", b"")) is not None:
            return False
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            return bool(kind == FORM_TYPE)
        names = {term.partition(b"=")[0] for term in scope["query_string"].split(b"&")}
        return scope["method"] == "GET" and {b"Action", b"Version"} <= names

    async def _serve(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = str(uuid.uuid4())
        operation, namespace, status = UNRESOLVED, IAM.namespace, 200
        try:
            body = await _body(scope, receive)
            form = await _form(scope, body)
            action = _action(form)
            operation, namespace = action.iam_name, action.service.namespace
            call = self._authenticated(scope, body, action, form)
            result = await self._act(call)
            document = result_document(action.name, namespace, result, request_id)
        except Exception as error:  # noqa: BLE001 (answered and logged in one place)
            answer = query_error(error, request_id)
            status, document = answer.status, error_document(answer, namespace, request_id)
        try:
            await _answer(send, status, document, request_id)
        finally:
            seconds = time.perf_counter() - started
            self._edge.metrics.request(operation, status, seconds)
            if access_log.isEnabledFor(logging.INFO):
                details = {
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": "/",
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                    "client": (scope.get("client") or ("",))[0],
                }
                access_log.info("%s", operation, extra=details)

    def _authenticated(
        self, scope: AsgiScope, body: bytes, action: Action, form: Mapping[str, str]
    ) -> QueryCall:
        """The call, of somebody proven. Raises the errors of signatures and ValidationError."""
        # The hash of the body as it came: what a client says it is does not count.
        digest = sha256(body).hexdigest().encode()
        kept = [pair for pair in scope["headers"] if pair[0] != b"x-amz-content-sha256"]
        request = Request(
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            [*kept, (b"x-amz-content-sha256", digest)],
            self._edge.clock(),
        )
        asker = self._asker(request, action) if action.signed else Asker(ANONYMOUS)
        if action.name in REASONS:
            raise query_errors.NotImplementedAction(
                f"{action.name} is not implemented: {REASONS[action.name]}."
            )
        return QueryCall(
            action,
            validated(form, action.names, action.required),
            asker,
            self._edge.services,
            request.now,
            (scope.get("client") or ("",))[0],
            scope.get("scheme") == "https",
            request.header_values.get(b"user-agent", b"").decode("latin-1"),
        )

    def _asker(self, request: Request, action: Action) -> Asker:
        services = self._edge.services
        credentials = sigv4.parse_credentials(
            request, (services.region, GLOBAL_REGION), service=action.service.name.encode()
        )
        if credentials is None:
            raise query_errors.MissingAuthenticationToken
        key, token = credentials.access_key, credentials.session_token
        sigv4.verify(request, credentials, services.view.signing_secret(key, token))
        principal, permissions = services.view.identify(key, token)
        session = None
        if token is not None:
            session = services.view.sealer.open(token, int(request.now * 1000))
            _require_open(action, session)
        return Asker(principal, permissions, key, session)

    async def _act(self, call: QueryCall) -> dict[str, object] | None:
        call.parameters = await with_stored_names(call)
        call.values = values(call)
        if call.action.on:
            call.resource = await RESOURCES[call.action.on](call)
            call.require(call.resource)
        if call.action.grows and self._edge.growth_refused():
            raise errors.InsufficientStorage("The metadata engine is nearly full.")
        result: dict[str, object] | None = await self._handlers[call.action.name](call)
        return result


def _require_open(action: Action, session: Session) -> None:
    """Whether the credentials of a session are good for this action at all."""
    allowed = OPEN_TO_FEDERATED if session.kind == FEDERATED else OPEN_TO_USER_SESSIONS
    if session.kind != ROLE and action.name not in allowed:
        raise query_errors.AccessDenied(f"Cannot call {action.name} with session credentials")


async def _body(scope: AsgiScope, receive: Receive) -> bytes:
    """The whole body. Raises RequestEntityTooLarge, IncompleteBody."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limits.QUERY_BODY_BYTES_MAX:
        raise query_errors.RequestEntityTooLarge
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise errors.IncompleteBody
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limits.QUERY_BODY_BYTES_MAX:
            raise query_errors.RequestEntityTooLarge
    return bytes(body)


async def _form(scope: AsgiScope, body: bytes) -> dict[str, str]:
    """The parameters: of a POST in its body, of a GET in its URL beside those of the signature. A
    long form is read in a thread, so that other requests do not feel it."""
    if scope["method"] == "POST":
        if len(body) > limits.QUERY_ON_LOOP_BYTES_MAX:
            return await asyncio.to_thread(parse_form, body)
        return parse_form(body)
    query = parse_form(scope["query_string"])
    return {name: text for name, text in query.items() if not name.startswith(SIGNATURE_PREFIX)}


def _action(form: Mapping[str, str]) -> Action:
    """The row of the action. Raises MissingAction, InvalidAction."""
    name, version = form.get("Action"), form.get("Version")
    if name is None:
        raise query_errors.MissingAction
    action = BY_NAME.get(name)
    if action is None and name in REASONS:
        service = next((each for each in SERVICES if each.version == version), IAM)
        action = Action(name, service, "", "", "")
    if action is None or version not in (None, action.service.version):
        raise query_errors.InvalidAction(
            f"Could not find operation {name[:100]} for version {(version or '')[:100]}"
        )
    return action


def query_error(cause: Exception, request_id: str) -> QueryError:
    """The error that the client is told. What nobody foresaw is logged."""
    match cause:
        case QueryError():
            return cause
        case IdentityError():
            return QueryError.named(cause.code, cause.status, cause.message)
        case ExpiredIdentityToken():
            return query_errors.ExpiredTokenException(str(cause))
        case ProviderUnreachable():
            return query_errors.IDPCommunicationError(str(cause))
        case WebIdentityError():
            return query_errors.InvalidIdentityToken(str(cause))
        case PolicyError():
            return query_errors.MalformedPolicyDocument(str(cause))
    if not isinstance(cause, TROUBLE):
        log.error("request %s failed", request_id, exc_info=cause)
    error = translate(cause)
    renamed = RENAMED.get(type(error))
    if renamed is None:
        return QueryError.named(error.code, error.status, error.message)
    return renamed() if type(error) in OWN_MESSAGE else renamed(error.message)


async def _answer(send: Send, status: int, document: bytes, request_id: str) -> None:
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(document)).encode()),
        (b"x-amzn-requestid", request_id.encode()),
        (b"server", b"s3gw"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": document})
