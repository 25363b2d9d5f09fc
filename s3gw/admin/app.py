"""The admin port: health, metrics, and background work on demand.

`/health/live` answers as long as the process serves; `/health/ready` says whether requests can be
served now: the metadata engine answers and enough nodes are usable. `POST /admin/run/<worker>`
runs a worker to its end and answers its report; it wants a Signature Version 4 of root, as the S3
port does (`curl --aws-sigv4`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from s3gw.auth import sigv4
from s3gw.auth.canonical import Request as SignedParts
from s3gw.errors import AccessDenied, S3Error
from s3gw.identities.root import Root
from s3gw.metrics import Metrics

Readiness = Callable[[], Awaitable[str]]
"""Returns "" when requests can be served, else the reason why not."""

Run = Callable[[], Awaitable[Any]]
"""Runs a worker once; returns its report, a dataclass."""


@dataclass(frozen=True, slots=True)
class AdminPort:
    """What the admin port needs."""

    ready: Readiness
    metrics: Metrics
    root: Root
    region: str
    runs: Mapping[str, Run]


def build_app(port: AdminPort) -> Starlette:
    """The admin API of one process."""

    async def health_live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def health_ready(request: Request) -> Response:
        reason = await port.ready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(port.metrics.render(), media_type="text/plain; version=0.0.4")

    async def run(request: Request) -> Response:
        try:
            require_root(request, port)
        except S3Error as error:
            return JSONResponse({"error": error.code, "message": error.message}, error.status)
        worker = port.runs.get(request.path_params["worker"])
        if worker is None:
            return JSONResponse({"error": "NoSuchWorker", "workers": sorted(port.runs)}, 404)
        report = msgspec.json.encode(await worker())
        return Response(report, media_type="application/json")

    return Starlette(
        routes=[
            Route("/health/live", health_live, methods=["GET"]),
            Route("/health/ready", health_ready, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/admin/run/{worker}", run, methods=["POST"]),
        ]
    )


def require_root(request: Request, port: AdminPort) -> None:
    """Raises S3Error unless root has signed the request."""
    scope = request.scope
    parts = SignedParts(
        scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], time.time()
    )
    credentials = sigv4.parse_credentials(parts, (port.region,))
    if credentials is None or credentials.presigned:
        raise AccessDenied()
    sigv4.verify(parts, credentials, port.root.secret_of(credentials.access_key))
