"""What the handlers of the admin API are given, and how they refuse."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from s3gw.admin import encryption_models, models, undo_models
from s3gw.admin.survey import Surveyor
from s3gw.cluster.tunables import LiveTunables
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.metrics import SharedMetrics
from s3gw.objects.storage import Storage

Readiness = Callable[[], Awaitable[str]]
"""Returns "" when requests can be served, else the reason why not."""

Run = Callable[[], Awaitable[Any]]
"""Runs a worker once; returns its report, a dataclass."""


class Jobs(Protocol):
    """Long work that other packages do. `runs` are workers by name. What does not fit the state of
    the store raises Refusal."""

    @property
    def runs(self) -> Mapping[str, Run]: ...

    async def rebalance(self) -> models.Rebalance: ...

    async def snapshots(self) -> list[models.Snapshot]: ...

    async def take_snapshot(self) -> models.Snapshot: ...

    async def change_profile(self, bucket: str, profile: str) -> models.ProfileJob: ...

    async def profile_job(self, bucket: str) -> models.ProfileJob | None: ...

    async def cancel_profile_job(self, bucket: str) -> models.ProfileJob: ...

    async def plan_undo(
        self, bucket: str, prefix: str, at_ms: int, *, after: str, most: int
    ) -> undo_models.UndoPlan: ...

    async def start_undo(self, bucket: str, prefix: str, at_ms: int) -> undo_models.UndoView: ...

    async def undo(self, bucket: str) -> undo_models.UndoView | None: ...

    async def cancel_undo(self, bucket: str) -> undo_models.UndoView: ...

    async def rewrap(self) -> encryption_models.Rewrap | None: ...

    async def start_rewrap(self) -> encryption_models.Rewrap: ...


@dataclass(frozen=True, slots=True)
class AdminPort:
    """What the admin port needs of its process."""

    storage: Storage
    surveyor: Surveyor
    tunables: LiveTunables
    metrics: SharedMetrics
    identities: Identities
    identity_store: IdentityStore
    region: str
    version: str
    ready: Readiness
    jobs: Jobs
    nodes_needed: int
    clock: Callable[[], float] = field(default=time.time)


class Refusal(Exception):
    """An answer that is not a success: status, a code for programs, a line for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def not_found(code: str, message: str) -> Refusal:
    return Refusal(404, code, message)


def conflict(message: str) -> Refusal:
    """What was asked for does not fit the state that the store is in."""
    return Refusal(409, "Conflict", message)


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)
