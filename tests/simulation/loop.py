"""An event loop without a selector: when nothing is ready, time jumps to the next timer.

What is ready together runs in an order drawn from the seed. asyncio promises an order only to
callbacks of `call_soon`; the steps of different tasks, which on a real machine come in the order
in which sockets and threads happen to wake them, are shuffled among each other, callbacks stay
where they are. `run_in_executor` runs the function later, inline, whatever the executor.

A handle belongs to the machine in whose context it was made. When that machine is dead the handle
is never run: no `finally` of a crashed process does anything.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import tasks
from collections.abc import Callable
from contextvars import Context
from itertools import count
from random import Random
from typing import Any

STEP_SECONDS = 1e-6
EXECUTOR_SECONDS_MAX = 0.003


class NothingLeft(RuntimeError):
    """Nothing is ready and no timer is set: whatever is waited for will never come."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """`is_dead` says of a context that its machine is dead."""

    def __init__(self, chance: Random, is_dead: Callable[[Context], bool]) -> None:
        super().__init__()
        self._chance = chance
        self._is_dead = is_dead
        self.seconds = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = count()
        # What will never run is kept: freeing it would run its `finally` blocks.
        self._graveyard: list[asyncio.Handle] = []

    def time(self) -> float:
        return self.seconds

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *arguments: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As the base class, with timers that are cheap to compare."""
        handle = asyncio.TimerHandle(when, callback, arguments, self, context)
        heapq.heappush(self._timers, (when, next(self._serial), handle))
        return handle

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready  # type: ignore[attr-defined]
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise NothingLeft
            self.seconds = max(self.seconds, timers[0][0])
        while timers and timers[0][0] <= self.seconds:
            ready.append(heapq.heappop(timers)[2])
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            self._shuffle(batch)
        for handle in batch:
            if handle._cancelled:
                continue
            if self._is_dead(handle._context):
                self._graveyard.append(handle)
            else:
                handle._run()
        self.seconds += STEP_SECONDS

    def _shuffle(self, batch: list[Any]) -> None:
        places = [place for place, handle in enumerate(batch) if _is_step(handle)]
        steps = [batch[place] for place in places]
        self._chance.shuffle(steps)
        for place, handle in zip(places, steps, strict=True):
            batch[place] = handle

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = function(*arguments)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._chance.uniform(0, EXECUTOR_SECONDS_MAX), work)
        return future

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

    def _process_events(self, events: object) -> None:
        """There are none."""


def _is_step(handle: Any) -> bool:
    """Whether a handle is a task's step, and not a callback."""
    return isinstance(getattr(handle._callback, "__self__", None), tasks.Task)
