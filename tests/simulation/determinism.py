"""The one place where a simulation takes clocks, randomness, threads and names away from the
process.

`install` is called before anything of the product is imported, because defaults such as
`clock=time.monotonic` are bound at import. From then on all of them ask the run that is under way:
its loop's virtual time, its random numbers. Outside a run a clock stands at 0 and a thread, as
inside, cannot be started. What hashes by address (`PYTHONHASHSEED`) is settled by the caller, who
starts the process (tests.simulation.__main__).
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from typing import Any, Protocol

EPOCH_SECONDS = 1_700_000_000
CPU_SECONDS = time.process_time


class Run(Protocol):
    """Where a run's time and randomness come from."""

    def now(self) -> float:
        """Virtual seconds since the run began."""
        ...

    def wall_offset(self) -> float:
        """By how many seconds the wall clock of who asks is wrong."""
        ...

    def entropy(self, count: int) -> bytes: ...


class NotSimulated(RuntimeError):
    """Something reached for the real world."""


class _Nothing:
    """Between runs: time stands still, and randomness is the same each time."""

    def __init__(self) -> None:
        self._chance = random.Random(0)

    def now(self) -> float:
        return 0.0

    def wall_offset(self) -> float:
        return 0.0

    def entropy(self, count: int) -> bytes:
        return self._chance.randbytes(count)


_run: Run = _Nothing()


def use(run: Run) -> None:
    """Let a run be the one that clocks and randomness ask."""
    global _run
    _run = run


def _seconds(*_: object) -> float:
    return _run.now()


def _nanoseconds(*_: object) -> int:
    return int(_run.now() * 1e9)


def _wall() -> float:
    return EPOCH_SECONDS + _run.now() + _run.wall_offset()


def _wall_nanoseconds() -> int:
    return int(_wall() * 1e9)


def _entropy(count: int, *_: object) -> bytes:
    return _run.entropy(count)


def _refuse(*_: object, **__: object) -> Any:
    raise NotSimulated("a simulation has no threads and waits for nothing")


def _seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    """`random.Random.seed`, which without a seed would ask the operating system."""
    _seed_with(self, _run.entropy(16) if a is None else a, version)


_seed_with = random.Random.seed


def install() -> None:
    """Replace them, for as long as the process lives."""
    time.time, time.time_ns = _wall, _wall_nanoseconds
    time.monotonic, time.monotonic_ns = _seconds, _nanoseconds
    time.perf_counter, time.perf_counter_ns = _seconds, _nanoseconds
    time.clock_gettime, time.clock_gettime_ns = _seconds, _nanoseconds
    time.sleep = _refuse
    os.urandom = os.getrandom = _entropy
    os.getpid = lambda: 1
    socket.gethostname = lambda: "simulated"
    random._urandom = _entropy  # type: ignore[attr-defined]
    random.Random.seed = _seed  # type: ignore[method-assign]
    secrets.token_bytes = lambda count=None: _run.entropy(32 if count is None else count)
    threading.Thread.start = _refuse  # type: ignore[method-assign]
