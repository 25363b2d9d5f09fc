"""Stores as processes on this machine: `Up` (one command) and `Cluster` (etcd, nodes, gateways).

Tests, the benchmark and `make cluster` start stores only through this module, with the commands
an operator would type. Three rules make it safe to use from a test that fails half-way:

* every process runs under `setpriv --pdeathsig`, so nothing outlives the program that started it,
  not even one that is killed;
* every process is in a session of its own, so a Ctrl-C reaches us alone and we stop the store in
  order: gateways, nodes, etcd;
* ports come from 10000–32000, below the range from which the kernel takes outgoing ports, so a
  port that was free a moment ago is not taken by a client connection.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compose.certificates import Certificates
from s3gw.objects.keyring.master import new_text

PORT_MIN = 10_000
PORT_MAX = 32_000
START_SECONDS_MAX = 60.0
# Longer than the supervisor gives its workers (40 s), so that what hangs is named in its log.
STOP_SECONDS_MAX = 50.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 40
ETCD_QUOTA_BYTES = 8 * 1024**3
MASTER_KEY_SETTINGS = {"S3GW_MASTER_KEY", "S3GW_MASTER_KEY_FILE"}

_REPOSITORY = Path(__file__).resolve().parent.parent
_ports_given: set[int] = set()

LineSink = Callable[[str, str], None]
"""Receives (tag, line) for every line that a process of the store prints."""


class StartError(RuntimeError):
    """A process ended, or was not ready in time; the message carries the tail of its log."""


@dataclass(frozen=True)
class Credentials:
    access_key: str
    secret_key: str

    @classmethod
    def generate(cls) -> "Credentials":
        """Keys of AWS's shape: 20 upper-case characters and 40 characters."""
        return cls("S3GW" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30))


def free_port() -> int:
    """A port on loopback that nothing listens on and that this process has not given out."""
    while True:
        port = random.randint(PORT_MIN, PORT_MAX)
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port


def wait_until(
    ready: Callable[[], bool], *, what: str, seconds_max: float = START_SECONDS_MAX
) -> None:
    """Poll `ready` until it is true; TimeoutError naming `what` after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(POLL_SECONDS)


def answers(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=tls) as reply:
            return int(reply.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _outside() -> dict[str, str]:
    """Our environment without settings of the store: a developer's own must not change a test."""
    return {name: text for name, text in os.environ.items() if not name.startswith("S3GW_")}


@dataclass
class Process:
    """One process of a store, with its log in a file or handed line by line to a sink."""

    tag: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    sink: LineSink | None = None
    _popen: subprocess.Popen[bytes] | None = None
    _asked_to_end: bool = False
    _log_begin: int = 0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._asked_to_end = False
        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log if self.sink is None else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**_outside(), "PYTHONUNBUFFERED": "1", **self.environment},
                cwd=_REPOSITORY,
                start_new_session=True,
            )
        if self.sink is not None:
            threading.Thread(target=self._forward, args=(self.sink,), daemon=True).start()

    def _forward(self, sink: LineSink) -> None:
        assert self._popen is not None
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            sink(self.tag, line.decode(errors="replace").rstrip())

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.tag} was not started"
        return self._popen.pid

    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`; StartError as soon as the process ends without it."""

        def decided() -> bool:
            return not self.running() or ready()

        try:
            wait_until(decided, what=self.tag)
        except TimeoutError as error:
            raise StartError(f"{error}\n{self.log_tail()}") from error
        if not self.running():
            raise StartError(f"{self.tag} ended\n{self.log_tail()}")

    def said(self, text: str) -> bool:
        """Whether the process has printed this since it was started (without a sink)."""
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            return text.encode() in log.read()

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"{self.tag} | {line}" for line in lines[-LOG_TAIL_LINES:])

    def terminate(self) -> None:
        """Ask the process to end, once: a second signal would have it kill its workers."""
        if self.running() and not self._asked_to_end:
            self._asked_to_end = True
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """The exit status of a process that is about to end; TimeoutExpired when it does not."""
        assert self._popen is not None
        return self._popen.wait(STOP_SECONDS_MAX)

    def stop(self) -> int:
        """Ask the process to end, wait, and return its exit status; kill what does not end."""
        self.terminate()
        assert self._popen is not None
        try:
            return self._popen.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._popen.wait()

    def kill(self) -> None:
        """SIGKILL the process and everything in its session, as a crash or the OOM killer would."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        assert self._popen is not None
        self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP everything in the process's session: it answers nothing, its sockets stay."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


def s3gw(*arguments: str) -> list[str]:
    """The command line of the store, run with the interpreter that runs us."""
    return [sys.executable, "-m", "s3gw", *arguments]


def kept_master_key(path: Path) -> Path:
    """The file of a master key, made with mode 0600 when it does not exist, whole or not at all."""
    if not path.exists():
        temporary = path.with_name(path.name + ".tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(new_text())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    return path


def _root_environment(credentials: Credentials) -> dict[str, str]:
    return {
        "S3GW_ROOT_ACCESS_KEY": credentials.access_key,
        "S3GW_ROOT_SECRET_KEY": credentials.secret_key,
    }


class Up:
    """`s3gw up`: one machine, `drives` drive directories under `directory`, embedded SQLite.

    `tls`: a directory as `s3gw ca issue --role server` makes it; both ports speak TLS with it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        drives: int = 6,
        credentials: Credentials | None = None,
        environment: Mapping[str, str] | None = None,
        sink: LineSink | None = None,
        tls: Path | None = None,
    ) -> None:
        self.directory = directory
        self.credentials = credentials or Credentials.generate()
        self.s3_port, self.admin_port = free_port(), free_port()
        scheme = "http" if tls is None else "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self.s3_port}"
        self.admin = f"{scheme}://127.0.0.1:{self.admin_port}"
        self.tls: ssl.SSLContext | None = None
        files: list[str] = []
        if tls is not None:
            self.tls = ssl.create_default_context(cafile=str(tls / "ca.pem"))
            files = ["--s3-tls-cert", str(tls / "cert.pem"), "--s3-tls-key", str(tls / "key.pem")]
        self.process = Process(
            "up",
            s3gw(
                *("up", "--data", str(directory), "--drives", str(drives)),
                *("--s3", f"127.0.0.1:{self.s3_port}", "--admin", f"127.0.0.1:{self.admin_port}"),
                *files,
            ),
            # Beside the data, not in it: `up` may refuse a directory that holds foreign files.
            directory.with_name(directory.name + ".log"),
            {**_root_environment(self.credentials), **(environment or {})},
            sink,
        )

    def start(self) -> "Up":
        self.process.start()
        self.process.wait_ready(lambda: answers(self.admin + "/health/ready", self.tls))
        return self

    def stop(self) -> int:
        return self.process.stop()

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint]

    @property
    def processes(self) -> list[Process]:
        return [self.process]


class Etcd:
    """One etcd member with its data in `directory`; `start` after `stop` or `kill` resumes it."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "local",
        quota_bytes: int = ETCD_QUOTA_BYTES,
        sink: LineSink | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        client, peer = free_port(), free_port()
        self.name = name
        scheme = "http" if certificates is None else "https"
        self.url = f"{scheme}://127.0.0.1:{client}"
        self.peer_url = f"{scheme}://127.0.0.1:{peer}"
        self._tls = None if certificates is None else certificates.context("client")
        binary = shutil.which("etcd")
        if binary is None:
            raise StartError("etcd is missing: apt-get install etcd-server")
        self._command = [
            *(binary, "--name", name, "--data-dir", str(directory)),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", self.peer_url),
            *("--initial-advertise-peer-urls", self.peer_url),
            *("--quota-backend-bytes", str(quota_bytes)),
            *("--logger", "zap", "--log-level", "warn"),
            *([] if certificates is None else certificates.etcd_flags()),
        ]
        self.process = Process(
            directory.name,
            [*self._command, "--initial-cluster", f"{name}={self.peer_url}"],
            directory.with_name(directory.name + ".log"),
            # Idle threads of Go's scheduler spin for work: with one per core, on a machine that
            # the gateways and nodes share, a single read cost etcd a third more CPU.
            {"GOMAXPROCS": str(max(1, (os.cpu_count() or 1) // 2))},
            sink=sink,
        )

    def join(self, members: Sequence["Etcd"]) -> None:
        """Make this one of `members`, all of which are new."""
        peers = ",".join(f"{member.name}={member.peer_url}" for member in members)
        self.process.argv = [*self._command, "--initial-cluster", peers]

    def start(self) -> "Etcd":
        self.process.start()
        self.wait()
        return self

    def wait(self) -> None:
        """Until the member answers, which takes a majority of all."""
        self.process.wait_ready(lambda: answers(self.url + "/health", self._tls))

    def stop(self) -> int:
        return self.process.stop()


@dataclass(frozen=True)
class Node:
    process: Process
    host: str
    port: int
    zone: str
    directory: Path


@dataclass(frozen=True)
class Gateway:
    process: Process
    endpoint: str
    admin: str


class Cluster:
    """etcd, `nodes` storage nodes spread over `zones` zones, and `gateways` gateways.

    `directory` gets etcd/, node-1/ … and the logs; a second Cluster over the same directory finds
    its data again, on other ports (with one etcd member: several find each other by their ports).

    `advertise` are addresses HOST:PORT at which gateways reach the nodes, and `node_etcd` the URLs
    at which the nodes reach etcd, one for each node: those of proxies, for tests. `secure`: mutual
    TLS between gateways, nodes and etcd, with an authority of its own in certificates/. Gateways
    have the master key in master.key, which is made as `s3gw up` makes one, unless `environment`
    has one (`S3GW_MASTER_KEY`).
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 6,
        zones: int = 3,
        gateways: int = 2,
        etcd_members: int = 1,
        etcd_quota_bytes: int = ETCD_QUOTA_BYTES,
        advertise: Sequence[str] = (),
        node_etcd: Sequence[str] = (),
        credentials: Credentials | None = None,
        environment: Mapping[str, str] | None = None,
        sink: LineSink | None = None,
        secure: bool = False,
    ) -> None:
        self.directory = directory
        self.credentials = credentials or Credentials.generate()
        self._advertise, self._node_etcd = advertise, node_etcd
        self._environment = {
            **_root_environment(self.credentials),
            # All nodes listen before a gateway starts: no more of them come.
            "S3GW_SETTLE_SECONDS": "0.5",
            **(environment or {}),
        }
        self._sink = sink
        directory.mkdir(parents=True, exist_ok=True)
        self._gateway_environment = dict(self._environment)
        self.master_key: Path | None = None
        if not MASTER_KEY_SETTINGS & self._environment.keys():
            self.master_key = kept_master_key(directory / "master.key")
            self._gateway_environment["S3GW_MASTER_KEY_FILE"] = str(self.master_key)
        self.certificates = Certificates(directory / "certificates") if secure else None
        names = ["etcd", *(f"etcd-{number}" for number in range(2, etcd_members + 1))]
        self.members = [
            Etcd(
                directory / name,
                name=name,
                quota_bytes=etcd_quota_bytes,
                sink=sink,
                certificates=self.certificates,
            )
            for name in names
        ]
        for member in self.members:
            member.join(self.members)
        self.etcd = self.members[0]
        self.etcd_urls = ",".join(member.url for member in self.members)
        self.nodes = [
            self._node(number, f"zone-{(number - 1) % zones + 1}") for number in range(1, nodes + 1)
        ]
        self.gateways = [self._gateway(number) for number in range(1, gateways + 1)]

    def _node(self, number: int, zone: str) -> Node:
        tag, port = f"node-{number}", free_port()
        directory = self.directory / tag
        advertise = self._advertise[number - 1 : number]
        etcd = self._node_etcd[number - 1] if self._node_etcd else self.etcd_urls
        process = Process(
            tag,
            s3gw(
                *("node", "--data", str(directory), "--listen", f"127.0.0.1:{port}"),
                *("--zone", zone, "--etcd", etcd, *self._tls_flags("node")),
                *(flag for address in advertise for flag in ("--advertise", address)),
            ),
            self.directory / f"{tag}.log",
            self._environment,
            self._sink,
        )
        return Node(process, "127.0.0.1", port, zone, directory)

    def _gateway(self, number: int) -> Gateway:
        tag, s3_port, admin_port = f"gateway-{number}", free_port(), free_port()
        process = Process(
            tag,
            s3gw(
                *("gateway", "--s3", f"127.0.0.1:{s3_port}"),
                *("--admin", f"127.0.0.1:{admin_port}", "--etcd", self.etcd_urls),
                *self._tls_flags("gateway"),
            ),
            self.directory / f"{tag}.log",
            self._gateway_environment,
            self._sink,
        )
        return Gateway(process, f"http://127.0.0.1:{s3_port}", f"http://127.0.0.1:{admin_port}")

    def _tls_flags(self, role: str) -> list[str]:
        return [] if self.certificates is None else ["--tls-dir", str(self.certificates.of(role))]

    def start(self) -> "Cluster":
        """Start everything; a failure stops what had started before it is raised."""
        try:
            for member in self.members:
                member.process.start()
            for member in self.members:
                member.wait()
            for node in self.nodes:
                node.process.start()
            for node in self.nodes:
                self.wait_node(node)
            for gateway in self.gateways:
                gateway.process.start()
            for gateway in self.gateways:
                self.wait_gateway(gateway)
        except BaseException:
            self.stop()
            raise
        return self

    def add_node(self, zone: str) -> Node:
        """Start one more node. It is registered; the layout does not name it yet."""
        added = self._node(len(self.nodes) + 1, zone)
        added.process.start()
        self.nodes.append(added)
        self.wait_node(added)
        return added

    def wait_node(self, node: Node) -> None:
        node.process.wait_ready(lambda: listens(node.host, node.port))

    def wait_gateway(self, gateway: Gateway) -> None:
        gateway.process.wait_ready(lambda: answers(gateway.admin + "/health/ready"))

    def stop(self) -> None:
        """Gateways first, then nodes, then etcd: each layer ends while what it needs lives."""
        gateways = [gateway.process for gateway in self.gateways]
        nodes = [node.process for node in self.nodes]
        for layer in (gateways, nodes, [member.process for member in self.members]):
            started = [process for process in layer if process.running()]
            for process in started:
                process.terminate()
            for process in started:
                process.stop()

    @property
    def endpoint(self) -> str:
        return self.gateways[0].endpoint

    @property
    def endpoints(self) -> list[str]:
        return [gateway.endpoint for gateway in self.gateways]

    @property
    def processes(self) -> list[Process]:
        nodes = [node.process for node in self.nodes]
        members = [member.process for member in self.members]
        return [*members, *nodes, *(gateway.process for gateway in self.gateways)]


Store = Up | Cluster


@contextmanager
def running(store: Store) -> Iterator[Store]:
    """`with running(Up(path)) as store:` — started on entry, stopped on exit."""
    store.start()
    try:
        yield store
    finally:
        store.stop()
