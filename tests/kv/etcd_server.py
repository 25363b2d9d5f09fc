"""Real etcd servers for tests: one process, or three that form a cluster.

Debian's `etcd` runs on loopback ports and a temporary folder. Ports come from 10000–32000, below
the range from which the kernel takes ports for outgoing connections: a client that reconnects to
a stopped server on a port of that range can end up connected to itself.

`stop` is a clean end, `kill` is SIGKILL, `pause` is SIGSTOP: the port still accepts, nothing
answers. All methods block, for at most `READY_SECONDS_MAX`; call those that start a server through
`asyncio.to_thread` where the loop must go on.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10
START_ATTEMPTS_MAX = 5
ETCD = shutil.which("etcd") or "/usr/bin/etcd"


class EtcdFailed(AssertionError):
    """etcd is not installed, or did not start; the message says which and shows its log."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class EtcdServer:
    """One etcd process. `extra` are further flags, such as `--quota-backend-bytes=…`."""

    def __init__(self, *, name: str = "one", extra: Sequence[str] = ()) -> None:
        if not Path(ETCD).exists():
            raise EtcdFailed(f"{ETCD} is missing: apt-get install etcd-server")
        self.name = name
        self.extra = tuple(extra)
        self.directory = Path(tempfile.mkdtemp(prefix=f"etcd-{name}-"))
        self.port = free_port()
        self.peer_port = free_port()
        self.initial_cluster: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._served = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def launch(self) -> None:
        """Start the process without waiting until it serves."""
        assert self._process is None, f"etcd {self.name} runs already"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    ETCD,
                    f"--name={self.name}",
                    f"--data-dir={self.directory / 'data'}",
                    f"--listen-client-urls={self.url}",
                    f"--advertise-client-urls={self.url}",
                    f"--listen-peer-urls={self.peer_url}",
                    f"--initial-advertise-peer-urls={self.peer_url}",
                    f"--initial-cluster={self.initial_cluster or f'{self.name}={self.peer_url}'}",
                    "--heartbeat-interval=50",
                    "--election-timeout=500",
                    "--logger=zap",
                    "--log-level=warn",
                    *self.extra,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self.kill)

    def wait_ready(self) -> None:
        """Return when the server has a leader and answers linearizable reads."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.healthy():
            if self._process is None or self._process.poll() is not None:
                raise EtcdFailed(f"etcd {self.name} ended:\n{self.log()}")
            if time.monotonic() > deadline:
                raise EtcdFailed(f"etcd {self.name} is not ready:\n{self.log()}")
            time.sleep(0.02)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                return bool(json.load(response)["health"] == "true")
        except (OSError, ValueError):
            return False

    def start(self) -> Self:
        """Start, and wait until it serves. A new server whose port was snatched takes others."""
        for attempt in itertools.count(1):
            self.launch()
            try:
                self.wait_ready()
            except EtcdFailed:
                self.kill()
                snatched = "already in use" in self.log() and not self._served
                if self.initial_cluster or not snatched or attempt == START_ATTEMPTS_MAX:
                    raise
                self.port, self.peer_port = free_port(), free_port()
                shutil.rmtree(self.directory / "data", ignore_errors=True)
            else:
                self._served = True
                return self
        raise AssertionError  # count() has no end

    def stop(self) -> None:
        """End cleanly (SIGTERM); data and ports stay for `restart`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill if it runs, and start on the same data and ports."""
        self.kill()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and are accepted, nothing answers. Returns when all
        threads have stopped."""
        process = self._signal(signal.SIGSTOP)
        threads = Path(f"/proc/{process.pid}/task")
        while not all(" T " in (thread / "stat").read_text() for thread in threads.iterdir()):
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill and remove all files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace")[-4_000:] if path.exists() else "(no log)"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call etcd's JSON gateway, for what the tests must ask past the engine."""
        request = urllib.request.Request(
            f"{self.url}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def is_leader(self) -> bool:
        status = self.post("maintenance/status", {})
        return bool(status.get("leader") == status["header"]["member_id"])

    def _signal(self, number: int) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"etcd {self.name} does not run"
        self._process.send_signal(number)
        return self._process

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        atexit.unregister(self.kill)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class EtcdCluster:
    """Three members; `urls` names all of them."""

    def __init__(self, *, size: int = 3, extra: Sequence[str] = ()) -> None:
        self.members = [EtcdServer(name=f"m{n}", extra=extra) for n in range(size)]
        cluster = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial_cluster = cluster

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def start(self) -> Self:
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_ready()
        return self

    def leader(self) -> EtcdServer:
        """The member that now leads, among those that answer."""
        for member in self.members:
            with contextlib.suppress(OSError):
                if member.is_leader():
                    return member
        raise EtcdFailed("the cluster has no leader")

    def close(self) -> None:
        for member in self.members:
            member.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except EtcdFailed:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
