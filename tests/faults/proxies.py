"""TCP proxies whose faults are chosen by the test, in a process of their own.

A proxy forwards to its target in both directions. Each direction may be late (`delay_seconds`),
stand still (`hang`: what is sent waits, as on a network that loses every packet), or lose what is
sent (`drop`; its connections are aborted when it heals). `cut` aborts all connections and accepts
none. With several targets each connection goes to the next that accepts, as behind a load
balancer; without one it is closed.

The process reads commands as lines of JSON and answers each with a line; it ends with its input.
"""

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compose.local import free_port

READ_BYTES = 64 * 1024
PIECES_IN_FLIGHT = 64
_REPOSITORY = Path(__file__).resolve().parents[2]

TO_TARGET, TO_CLIENT = "to_target", "to_client"
BOTH = (TO_TARGET, TO_CLIENT)


@dataclass
class Way:
    """One direction. `open` is clear while it stands still."""

    delay_seconds: float = 0.0
    drop: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()


class Forwarder:
    """One proxy, in the proxies' process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._targets: list[int] = []
        self._turns = itertools.count()
        self._server: asyncio.Server | None = None
        self._ways = {name: Way() for name in BOTH}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def set(self, command: dict[str, Any]) -> None:
        """Carry out one command: targets, cut, or faults of directions."""
        self._targets = command.get("targets", self._targets)
        for name in command.get("ways", ()):
            way = self._ways[name]
            lost = way.drop
            way.delay_seconds, way.drop = command["delay_seconds"], command["drop"]
            (way.open.clear if command["hang"] else way.open.set)()
            if lost and not way.drop:
                self._abort()
        if "cut" in command:
            await (self._refuse() if command["cut"] else self._accept())

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._abort()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._ways[TO_TARGET].open.wait()
        upstream = await self._connect()
        if upstream is None:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(upstream[1])
        pairs = ((reader, upstream[1], TO_TARGET), (upstream[0], writer, TO_CLIENT))
        for source, sink, name in pairs:
            task = asyncio.create_task(self._pump(source, sink, self._ways[name]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = next(self._turns)
        for number in range(len(self._targets)):
            port = self._targets[(turn + number) % len(self._targets)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way
    ) -> None:
        """Forward from source to sink; what is late does not hold back what follows."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_IN_FLIGHT)
        loop = asyncio.get_running_loop()

        async def receive() -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(READ_BYTES):
                    await pieces.put((loop.time() + way.delay_seconds, data))
            await pieces.put((loop.time() + way.delay_seconds, b""))

        receiving = asyncio.create_task(receive())
        try:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await way.open.wait()
                if not data:
                    break
                if not way.drop:
                    sink.write(data)
                    await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            sink.transport.abort()
        finally:
            receiving.cancel()
            self._ended(sink)

    def _ended(self, sink: asyncio.StreamWriter) -> None:
        """Both ends of a connection that is over in one direction are closed soon after: HTTP and
        gRPC know no half-closed connections."""
        sink.close()
        self._writers.discard(sink)


async def serve(ports: list[int]) -> None:
    """Carry out commands until standard input ends."""
    forwarders = [Forwarder(port) for port in ports]
    for forwarder in forwarders:
        await forwarder.set({"cut": False})
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        await forwarders[command["proxy"]].set(command)
        print("done", flush=True)


class Proxies:
    """`count` proxies as the tests command them."""

    def __init__(self, count: int) -> None:
        self.ports = [free_port() for _ in range(count)]
        self._process: subprocess.Popen[str] | None = None

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    @property
    def urls(self) -> list[str]:
        return [f"http://{address}" for address in self.addresses]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.proxies", *map(str, self.ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_REPOSITORY,
        )
        self._expect("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _expect(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == word, f"the proxies said {line!r}"

    def _command(self, proxy: int, **command: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        print(json.dumps({"proxy": proxy, **command}), file=self._process.stdin, flush=True)
        self._expect("done")

    def point(self, proxy: int, *ports: int) -> None:
        """Forward to these ports of loopback."""
        self._command(proxy, targets=ports)

    def fault(
        self,
        proxy: int,
        *,
        ways: tuple[str, ...] = BOTH,
        delay_seconds: float = 0.0,
        hang: bool = False,
        drop: bool = False,
    ) -> None:
        self._command(proxy, ways=ways, delay_seconds=delay_seconds, hang=hang, drop=drop)

    def cut(self, proxy: int) -> None:
        self._command(proxy, cut=True)

    def heal(self, proxy: int) -> None:
        self.fault(proxy)
        self._command(proxy, cut=False)


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
