"""A TCP proxy before an etcd server, whose faults are chosen by the test."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from tests.kv.etcd_server import free_port

READ_BYTES = 64 * 1024


class CuttingProxy:
    """Forwards bytes both ways. `deaf` keeps what the server answers from the client; `cut` ends
    all connections; `refuse` also stops listening, until `accept`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deaf = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def accept(self) -> None:
        self._deaf = False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def deaf(self) -> None:
        """From now on the client hears nothing of what the server answers."""
        self._deaf = True

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream[1]}
        for source, sink, answers in ((reader, upstream[1], False), (upstream[0], writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(READ_BYTES):
                if not (answers and self._deaf):
                    sink.write(data)
                    await sink.drain()
        sink.transport.abort()
        self._writers.discard(sink)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
