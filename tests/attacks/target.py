"""The store under attack, as its operating system sees it, and raw connections to it."""

import os
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from compose.local import Process, wait_until

SOAK = os.environ.get("SOAK") == "1"
HANG_SECONDS = 5.0
BASELINE_SECONDS = 10.0
BACKGROUND_MAX = 8
"""By how much tasks and descriptors differ from moment to moment, because background work runs."""


def workers(process: Process) -> list[int]:
    """The process ids of the workers of a supervised process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def resident_bytes(process: Process) -> int:
    """Resident memory of the workers."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in workers(process)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors(process: Process) -> int:
    """Open descriptors of the workers."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers(process))


def tasks(admin: str) -> int:
    """Tasks of the event loop, of the worker that answers (a store under attack has one)."""
    with urllib.request.urlopen(admin + "/metrics", timeout=HANG_SECONDS) as reply:
        text = reply.read().decode()
    return int(text.partition("\ns3gw_tasks ")[2].split()[0])


@dataclass(frozen=True)
class Baseline:
    """What a store holds at rest. Its workers must stay the same processes, too."""

    process: Process
    admin: str
    pids: list[int]
    descriptors: int
    tasks: int
    resident_bytes: int

    @classmethod
    def of(cls, process: Process, admin: str) -> Self:
        counted = (descriptors(process), tasks(admin), resident_bytes(process))
        return cls(process, admin, workers(process), *counted)

    @staticmethod
    def _names(pid: int) -> list[str]:
        folder = Path(f"/proc/{pid}/fd")
        return sorted(str(entry.readlink()) for entry in folder.iterdir() if entry.is_symlink())

    def require_return(self, *, memory_growth_max: int, seconds: float = BASELINE_SECONDS) -> None:
        """Descriptors and tasks come back to where they were, memory about so, nobody died."""

        def returned() -> bool:
            # The connection that asks for the tasks is gone before descriptors are counted.
            seen[:] = tasks(self.admin), descriptors(self.process)
            return (
                seen[0] <= self.tasks + BACKGROUND_MAX
                and seen[1] <= self.descriptors + BACKGROUND_MAX
            )

        seen = [0, 0]
        try:
            wait_until(returned, what="tasks and descriptors at rest", seconds_max=seconds)
        except TimeoutError as error:
            raise AssertionError(
                f"tasks {self.tasks} -> {seen[0]}, descriptors {self.descriptors} -> {seen[1]}: "
                f"{[self._names(pid) for pid in self.pids]}"
            ) from error
        assert workers(self.process) == self.pids
        growth = resident_bytes(self.process) - self.resident_bytes
        assert growth <= memory_growth_max, f"memory grew by {growth >> 20} MiB"


@dataclass(frozen=True)
class Answer:
    """What came back on a connection: the status of the first response, or 0, and all bytes."""

    status: int
    data: bytes
    seconds: float


class Raw:
    """One client connection, in bytes."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(HANG_SECONDS)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send everything; False when the server closed meanwhile, which it may."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def rest(self) -> bytes:
        """Everything until the server closes. TimeoutError when nothing comes for 5 s."""
        data = bytearray()
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionResetError:
            return bytes(data)
        return bytes(data)


def ask(port: int, request: bytes) -> Answer:
    """Send `request` and nothing more, and read until the server closes. TimeoutError = a hang."""
    started = time.monotonic()
    with Raw(port) as raw:
        if raw.send(request):
            try:
                raw.socket.shutdown(socket.SHUT_WR)
            except OSError:
                started = min(started, time.monotonic())  # Closed by the server already.
        data = raw.rest()
    status = int(data[9:12]) if data[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ") else 0
    return Answer(status, data, time.monotonic() - started)


def request_bytes(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request as it goes over the wire; Content-Length is added unless something frames it."""
    framed = {name.lower() for name in headers} & {"content-length", "transfer-encoding"}
    if not framed and (body or method in ("PUT", "POST")):
        headers = {**headers, "content-length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body
