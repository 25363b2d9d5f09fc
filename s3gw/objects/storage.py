"""What the storage operations need from the process around them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from s3gw.cluster.blobs import BlobStore
from s3gw.metadata.store import Store


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Storage:
    """The stores and settings of one process. `lease` is the process's own lease; `readings`
    counts its announced reads by their keys, `completing` has its attempts to complete an upload
    that are under way."""

    store: Store
    blobs: BlobStore
    executor: Executor
    garbage_after_ms: int
    layout_epoch: Callable[[], int]
    lease: Callable[[], int]
    clock_ms: Callable[[], int] = wall_clock_ms
    monotonic: Callable[[], float] = time.monotonic
    readings: Counter[bytes] = field(default_factory=Counter)
    completing: set[bytes] = field(default_factory=set)
