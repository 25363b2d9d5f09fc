"""What the storage operations need from the process around them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from s3gw.buckets.lifecycle import DAY_MS
from s3gw.cluster.blobs import BlobStore
from s3gw.metadata import sequences
from s3gw.metadata.store import Store
from s3gw.objects.keyring.ring import Ring, Sources
from s3gw.objects.turns import Turns


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


async def no_refresh() -> None:
    """For a process whose layout cannot change."""


@dataclass(slots=True)
class Storage:
    """The stores and settings of one process. `lease` is the process's own lease; `refresh_layout`
    reads the layout again (`layout_epoch` and the nodes' states) and may raise EngineError;
    `lifecycle_day_ms` is how long a day of lifecycle rules lasts;
    `readings` counts its announced reads by their keys, `to_withdraw` has the announcements whose
    removal failed, `completing` has its attempts to complete
    an upload that are under way, and what each sets at its end. `draws` tells its versions from
    those of other processes. `sources` are where encryption keys come from, `ring` the keys.
    `turns` are those of its writers of one key."""

    store: Store
    blobs: BlobStore
    executor: Executor
    garbage_after_ms: int
    layout_epoch: Callable[[], int]
    lease: Callable[[], int]
    refresh_layout: Callable[[], Awaitable[None]] = no_refresh
    clock_ms: Callable[[], int] = wall_clock_ms
    monotonic: Callable[[], float] = time.monotonic
    lifecycle_day_ms: int = DAY_MS
    readings: Counter[bytes] = field(default_factory=Counter)
    to_withdraw: set[bytes] = field(default_factory=set)
    completing: dict[bytes, asyncio.Event] = field(default_factory=dict)
    draws: Iterator[int] = field(default_factory=sequences.draws)
    sources: Sources = field(default_factory=Sources)
    turns: Turns = field(default_factory=Turns)
    ring: Ring = field(init=False)

    def __post_init__(self) -> None:
        self.ring = Ring(
            self.store.kv, self.sources, lambda: self.clock_ms(), lambda: self.monotonic()
        )
