"""The admin port: health and metrics.

`/health/live` answers as long as the process serves; `/health/ready` says whether requests can be
served now: the metadata engine answers and enough nodes are usable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from s3gw.metrics import Metrics

Readiness = Callable[[], Awaitable[str]]
"""Returns "" when requests can be served, else the reason why not."""


def build_app(ready: Readiness, metrics: Metrics) -> Starlette:
    """The admin API of one process."""

    async def health_live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def health_ready(request: Request) -> Response:
        reason = await ready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def show_metrics(request: Request) -> Response:
        tasks = f"# TYPE s3gw_tasks gauge\ns3gw_tasks {len(asyncio.all_tasks())}\n"
        return PlainTextResponse(metrics.render() + tasks, media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/health/live", health_live, methods=["GET"]),
            Route("/health/ready", health_ready, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
        ]
    )
