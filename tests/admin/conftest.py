"""The admin port over a store in memory, called through ASGI, signed as the command line does."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from s3gw.admin import models
from s3gw.admin.app import SERVICE, build_app
from s3gw.admin.port import AdminPort
from s3gw.admin.survey import Signals, Surveyor
from s3gw.auth.signer import sign
from s3gw.cluster.membership import Membership
from s3gw.cluster.tunables import LiveTunables
from s3gw.identities.root import Root
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.kv.interface import KV
from s3gw.metrics import Metrics, SharedMetrics
from s3gw.operator_jobs import OperatorJobs
from tests.stores.memory_store import MemoryCluster, Process

REGION = "eu-west-3"
ROOT = Root("ROOTACCESSKEY", "root-secret-key")
HOST = "admin:1"


@dataclass
class Admin:
    """The admin port of one process."""

    cluster: MemoryCluster
    process: Process
    port: AdminPort
    http: httpx.AsyncClient
    membership: Membership
    app: Starlette
    ready_reason: str = ""
    rebalance: models.Rebalance = field(default_factory=models.Rebalance)

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        access_key: str = ROOT.access_key,
        secret_key: str = ROOT.secret_key,
        headers: Mapping[str, str] | None = None,
        signed_body: bytes | None = None,
        now: float | None = None,
        service: bytes = SERVICE,
    ) -> httpx.Response:
        """A signed request; `signed_body` is what the signature is over, if not `body`."""
        signed = sign(
            method,
            target.encode(),
            {"host": HOST, "x-s3gw-nonce": secrets.token_hex(8), **(headers or {})},
            body if signed_body is None else signed_body,
            access_key=access_key,
            secret_key=secret_key,
            region=REGION,
            now=time.time() if now is None else now,
            service=service,
        )
        return await self.http.request(method, target, content=body, headers=signed)

    async def get(self, target: str) -> Any:
        """The answer to a GET, which must succeed."""
        reply = await self.send("GET", target)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def call(self, method: str, target: str, body: Any = None) -> Any:
        """The answer to a call, which must succeed."""
        reply = await self.send(method, target, b"" if body is None else json.dumps(body).encode())
        assert reply.status_code == 200, reply.text
        return reply.json()

    def forget_survey(self) -> None:
        """Let the next question be answered anew."""
        self.port.surveyor.survey.forget()
        self.port.surveyor.ledger.forget()
        self.port.surveyor.totals.forget()


async def make_admin(cluster: MemoryCluster, kv: KV | None = None) -> Admin:
    process = await cluster.process(kv)
    storage = process.storage
    membership = Membership(process.kv, process.directory, process.topology, None)
    identities = Identities(process.kv, ROOT, storage.store.identity)
    await identities.load()
    admin: Admin

    async def ready() -> str:
        return admin.ready_reason

    async def rebalance() -> models.Rebalance:
        return admin.rebalance

    port = AdminPort(
        storage=storage,
        surveyor=Surveyor(storage, 3, Signals(rebalance=rebalance)),
        tunables=LiveTunables(process.kv),
        metrics=SharedMetrics(Metrics()),
        identities=identities,
        identity_store=IdentityStore(storage.store, storage.clock_ms, identities.catch_up),
        region=REGION,
        version="1.2.3",
        ready=ready,
        jobs=OperatorJobs(storage, orphan_after_seconds=3600.0),
        nodes_needed=3,
    )
    app = build_app(port)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    http = httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}")
    admin = Admin(cluster, process, port, http, membership, app)
    return admin


@pytest.fixture
async def admin(memory_cluster: MemoryCluster) -> AsyncIterator[Admin]:
    """The admin port of a store of eight drives, profile 4+2."""
    made = await make_admin(memory_cluster)
    yield made
    await made.http.aclose()
