"""A thread that serves queued requests in batches: reader, writer and watcher of the SQLite engine.

Crossing between the event loop and a thread costs more than most requests do, so it is paid once
per batch: whatever was queued while the thread was busy is served together, and all answers go
back in one call to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from s3gw.kv.interface import Unavailable

log = logging.getLogger(__name__)

BATCH_REQUESTS_MAX = 256


class Request:
    """Something asked of a thread. `future` gets the answer; the asker may have gone."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()


R = TypeVar("R", bound=Request)

Answer = tuple[Request, Any]
"""A request and its answer; an exception is raised to the asker."""


class Worker(ABC, Generic[R]):
    """One thread. Subclasses serve batches in `serve`, which runs in the thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._queue: SimpleQueue[R | None] = SimpleQueue()
        self._closing = False
        self.serving = False
        """Whether it is at work now."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: R) -> asyncio.Future[Any]:
        """Queue a request, from the event loop."""
        if self._closing:
            raise Unavailable("the engine is closed")
        self._queue.put(request)
        return request.future

    def wake(self) -> None:
        """Make the thread look around, from any thread."""
        self._queue.put(None)

    def stop(self) -> None:
        """Take no more requests, serve what is queued, then end the thread. From the event loop,
        as `submit` is, so that nothing is queued behind the end."""
        self._closing = True
        self._queue.put(None)

    def join(self, seconds: float | None) -> bool:
        """Wait, blocking, until the thread has ended after `stop`; whether it has in time (None: it
        has all the time)."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    @abstractmethod
    def serve(self, batch: list[R]) -> Sequence[Answer]:
        """Serve requests, none when woken or idle for `idle_seconds`; return what answers exist."""

    def idle_seconds(self) -> float | None:
        """How long to wait for requests before `serve` is called without any; None: for ever."""
        return None

    def ended(self) -> Sequence[Answer]:
        """The thread ends: release what it holds, answer what is left."""
        return ()

    def _run(self) -> None:
        while True:
            batch, ending = self._take()
            self.serving = True
            try:
                answers = self.serve(batch)
            except Exception as error:  # a bug must not leave its askers waiting
                log.exception("%s failed", self._thread.name)
                answers = [(request, error) for request in batch]
            self.serving = False
            self._answer(answers)
            if ending and self._queue.empty():
                self._answer(self.ended())
                return

    def _take(self) -> tuple[list[R], bool]:
        queue = self._queue
        batch: list[R] = []
        try:
            first = queue.get(timeout=self.idle_seconds())
            if first is not None:
                batch.append(first)
            for _ in range(min(queue.qsize(), BATCH_REQUESTS_MAX)):
                request = queue.get_nowait()
                if request is not None:
                    batch.append(request)
        except Empty:
            pass
        return batch, self._closing

    def _answer(self, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        try:
            self._loop.call_soon_threadsafe(_deliver, answers)
        except RuntimeError:
            log.warning(
                "%s: the event loop ended before %d answers", self._thread.name, len(answers)
            )


def _deliver(answers: Sequence[Answer]) -> None:
    for request, answer in answers:
        future = request.future
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
