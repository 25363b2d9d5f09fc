"""Blocking disk calls from the event loop, at less cost than `run_in_executor`.

One future and one queue entry per call, and one wake-up of the loop for all calls that ended
meanwhile (`run_in_executor` chains two futures and writes to the loop's self-pipe for each). Every
drive has threads of its own, so that a disk that hangs takes no other drive's threads with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from nodes.protocol import DriveError

Result = TypeVar("Result")


async def alone(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call that a disk may never let return, or its exception, in a thread of its
    own. Of the few that asyncio has, one that hangs would be lost to everything else."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def deliver(give: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            give(outcome)

    def work() -> None:
        try:
            ended: tuple[Callable[[Any], None], Any] = future.set_result, function(*arguments)
        except Exception as error:  # noqa: BLE001 (carried to the caller's future)
            ended = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(deliver, *ended)

    threading.Thread(target=work, name="disk", daemon=True).start()
    return await future


class DiskCall(Generic[Result]):
    """A call that a disk may never let return, for who has no event loop."""

    def __init__(self, function: Callable[..., Result], *arguments: Any) -> None:
        self._call = partial(function, *arguments)
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        # A daemon: the interpreter waits for no other kind to end.
        threading.Thread(target=self._run, name="disk", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001 (carried to who asked)
            self._error = error
        self._ended.set()

    def ended(self, seconds: float) -> bool:
        """Whether it returned within so many seconds."""
        return self._ended.wait(seconds)

    def result(self) -> Result:
        """What it returned, or what it raises, once it has ended."""
        if self._error is not None:
            raise self._error
        return self._result[0]


class DiskThreads:
    """Runs functions in an executor for one event loop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._running > 0

    def refuse(self) -> None:
        """Take no new calls."""
        self._closed = True

    async def close(self) -> None:
        """Refuse new calls and wait for those under way."""
        self.refuse()
        await self._idle.wait()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The function's result, or its exception. A cancelled caller does not stop it."""
        future = self.start(function, *arguments)
        return await future

    def start(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Begin at once; the future tells the outcome. Raises DriveError when closed."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._closed:
            raise DriveError("the drive is closed")
        future: asyncio.Future[Result] = loop.create_future()
        self._executor.submit(self._work, future, function, arguments)
        self._running += 1
        self._idle.clear()
        return future

    def _work(
        self, future: asyncio.Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        try:
            self._ended.append((future, function(*arguments), None))
        except Exception as error:  # noqa: BLE001 (carried to the caller's future)
            self._ended.append((future, None, error))
        # The flag is lowered before the queue is drained: what is appended after the drain finds
        # it low and wakes the loop again.
        if not self._waking:
            self._waking = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._ended:
            future, result, error = self._ended.popleft()
            self._running -= 1
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if not self._running:
            self._idle.set()
