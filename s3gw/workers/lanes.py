"""Doing a number of things at a time, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class Lanes:
    """Runs coroutines side by side, up to `width()` of them. As a context: what still runs when it
    is left by an exception is cancelled; what fails raises from the next call, or at the end."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._running: set[asyncio.Task[None]] = set()
        self._cancelled: set[asyncio.Task[None]] = set()

    async def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start `work` as soon as there is room."""
        try:
            await self.room()
        except BaseException:
            work.close()
            raise
        self._running.add(asyncio.create_task(work))

    @property
    def free(self) -> bool:
        """Whether there is room for one more."""
        return len(self._running) < max(1, self._width())

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    async def room(self) -> None:
        """Wait until there is room for one more."""
        while not self.free:
            await self.one()

    async def done(self) -> None:
        """Wait until all have ended."""
        while self._running:
            await self.one()

    def cancel(self) -> None:
        """Cancel what still runs. Leaving the context waits for it."""
        self._cancelled |= self._running
        self._running = set()
        for task in self._cancelled:
            task.cancel()

    async def one(self, seconds: float | None = None) -> None:
        """Wait until something has ended, for `seconds` at most. Something must run."""
        ended, self._running = await asyncio.wait(
            self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.done()
        finally:
            self.cancel()
            await asyncio.gather(*self._cancelled, return_exceptions=True)
