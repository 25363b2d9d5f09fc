"""Faults of processes, networks and disks, and how to know that a store has recovered from them.

Each fault is a context manager that heals what it broke when it is left.
"""

import dataclasses
import errno
import http.client
import json
import os
import random
import re
import secrets
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from compose.local import Cluster, Etcd, Gateway, Node, Process, wait_until
from compose.s3_http import S3Http, Signer
from tests.attacks.target import SOAK as SOAK
from tests.attacks.target import workers
from tests.faults.proxies import Proxies

TOLERANCE = 2
CLEAN_SECONDS_MAX = 120.0
_SHARD = re.compile(r"[0-9a-f]{32}\.[0-9]+")
SETTINGS = {
    "S3GW_PROCESSES": "1",
    "S3GW_LEASE_SECONDS": "3",
    "S3GW_HEARTBEAT_SECONDS": "0.5",
    "S3GW_SETTLE_SECONDS": "0.5",
    "S3GW_PG_COUNT": "8",
    # The repair of a blob whose last holder is gone waits until the blob is collected.
    "S3GW_GARBAGE_AFTER_SECONDS": "1",
    "S3GW_WORKER_INTERVAL_SECONDS": "1",
}


def s3_of(cluster: Cluster, gateway: int = 0) -> S3Http:
    credentials = cluster.credentials
    signer = Signer(credentials.access_key, credentials.secret_key)
    return S3Http(cluster.gateways[gateway].endpoint, signer)


# Processes


def start_all(cluster: Cluster, processes: Sequence[Process]) -> None:
    """Start what does not run, all at once, and wait until it serves."""
    stopped = [each for each in processes if not each.running()]
    for process in stopped:
        process.start()
    for process in stopped:
        wait_ready(cluster, process)


def wait_ready(cluster: Cluster, process: Process) -> None:
    for node in cluster.nodes:
        if node.process is process:
            cluster.wait_node(node)
    for gateway in cluster.gateways:
        if gateway.process is process:
            cluster.wait_gateway(gateway)
    for member in cluster.members:
        if member.process is process:
            member.wait()


@contextmanager
def killed(cluster: Cluster, *processes: Process) -> Iterator[None]:
    """SIGKILL them all, at once; on leaving they are started again."""
    for process in processes:
        process.kill()
    try:
        yield
    finally:
        start_all(cluster, processes)


@contextmanager
def paused(*processes: Process) -> Iterator[None]:
    for process in processes:
        process.pause()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def kill_worker(process: Process, chance: random.Random) -> None:
    """SIGKILL one worker of a supervisor, which starts another. Before all have served for the
    first time it would give up instead, as over settings that cannot work."""
    role = process.tag.partition("-")[0]
    wait_until(lambda: process.said(f"{role}: "), what=f"{process.tag} serving")
    alive = workers(process)
    if alive:
        os.kill(chance.choice(alive), signal.SIGKILL)


def _post(url: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.load(reply)


def leader(cluster: Cluster) -> Etcd:
    """The etcd member that leads; waits until one does."""
    found: list[Etcd] = []

    def known() -> bool:
        for member in cluster.members:
            try:
                status = _post(member.url + "/v3/maintenance/status", {})
            except OSError:
                continue
            if status.get("leader", "0") == status["header"]["member_id"]:
                found[:] = [member]
        return bool(found)

    wait_until(known, what="a leader of etcd")
    return found[0]


def etcd_call(cluster: Cluster, path: str, document: dict[str, Any]) -> Any:
    """One call of etcd's JSON gateway, such as /v3/kv/put."""
    return _post(cluster.etcd.url + path, document)


# Networks


class Fronts:
    """A proxy before each node's port, and one between each node and etcd."""

    def __init__(self, nodes: int) -> None:
        self._count = nodes
        self.proxies = Proxies(2 * nodes)

    @property
    def advertise(self) -> list[str]:
        return self.proxies.addresses[: self._count]

    @property
    def node_etcd(self) -> list[str]:
        return self.proxies.urls[self._count :]

    def point(self, cluster: Cluster) -> None:
        """Before the cluster starts."""
        etcd = int(cluster.etcd.url.rpartition(":")[2])
        for number, node in enumerate(cluster.nodes):
            self.proxies.point(number, node.port)
            self.proxies.point(self._count + number, etcd)

    @contextmanager
    def fault(self, *nodes: int, etcd: bool = False, **fault: Any) -> Iterator[None]:
        """A fault (of `Proxies.fault`) between gateways and nodes, or nodes and etcd."""
        numbers = [node + (self._count if etcd else 0) for node in nodes]
        for number in numbers:
            self.proxies.fault(number, **fault)
        try:
            yield
        finally:
            for number in numbers:
                self.proxies.heal(number)

    @contextmanager
    def isolated(self, *nodes: int) -> Iterator[None]:
        """Nobody reaches these nodes and they reach nobody; nothing is refused, all is silent."""
        with self.fault(*nodes, hang=True), self.fault(*nodes, etcd=True, hang=True):
            yield


# Disks


def shards(node: Node) -> list[Path]:
    """All shard files of a node, in an order that depends on their names alone."""
    data = node.directory / "data"
    return sorted(path for path in data.glob("*/*/*") if _SHARD.fullmatch(path.name))


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `directory`. Needs root, as continuous integration has."""
    directory.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def full_disk(node: Node) -> Iterator[None]:
    """A file beside the shards takes all that is left."""
    filler = node.directory / "tmp" / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        yield
    finally:
        filler.unlink()


def flip_bits(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 64)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def extend(path: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.randint(1, 5000)))


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


DAMAGES = (flip_bits, truncate, extend, remove)


# Recovery


def admin(
    cluster: Cluster,
    method: str,
    path: str,
    document: Any = None,
    *,
    gateway: int = 0,
    when: datetime | None = None,
) -> Any:
    """One call of the admin API; its answer, {"status": …} with the status of a refusal."""
    signer = dataclasses.replace(s3_of(cluster).signer, service="s3gw")
    s3 = S3Http(cluster.gateways[gateway].admin, signer)
    body = b"" if document is None else json.dumps(document).encode()
    headers = {"x-s3gw-nonce": secrets.token_hex(8)}
    try:
        reply = s3.request(method, path, headers=headers, body=body, when=when)
    except (OSError, http.client.HTTPException) as error:
        return {"status": repr(error)}
    return json.loads(reply.body) if reply.status == 200 else {"status": reply.status}


def run_worker(cluster: Cluster, worker: str) -> dict[str, Any]:
    """Run background work of a gateway to its end; its report, or {"status": …} of a refusal."""
    answer = admin(cluster, "POST", f"/admin/run/{worker}")
    if "status" in answer:
        return dict(answer)
    assert answer["worker"] == worker, answer
    return dict(answer["report"])


def unclean(cluster: Cluster) -> str:
    """What is left to repair; "" when all is at full redundancy and nothing is damaged."""
    for worker, nothing_left in (
        ("garbage", ()),
        ("repair", ("later", "unreadable")),
        ("merge", ("missing", "queued", "unlisted", "alarms")),
        ("verify", ("damaged", "missing", "queued", "unanswered", "unlisted")),
    ):
        report = run_worker(cluster, worker)
        if "status" in report:
            return f"{worker}: {report}"
        if left := {name: report[name] for name in nothing_left if report[name]}:
            waiting = admin(cluster, "GET", "/admin/repairs")
            return f"{worker}: {left}; waiting for repair: {waiting}"
    ledger = admin(cluster, "GET", "/admin/ledger")
    return "" if ledger.get("healed") else f"ledger: {ledger}"


def wait_clean(cluster: Cluster, seconds_max: float = CLEAN_SECONDS_MAX) -> None:
    """Until every blob is at full redundancy: nothing queued, nothing missing, nothing damaged, and
    the ledger says so."""
    last = ["not looked at"]

    def clean() -> bool:
        last[0] = unclean(cluster)
        return not last[0]

    try:
        wait_until(clean, what="full redundancy", seconds_max=seconds_max)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {last[0]}") from error


# Everything at once


class Chaos:
    """Random faults of processes, from a seed. At most `TOLERANCE` nodes, one gateway and a
    minority of etcd are out at once; everything is back when a round ends. Not `deadly`: every
    process stays the one it is."""

    def __init__(
        self,
        cluster: Cluster,
        seed: int | str,
        fronts: Fronts | None = None,
        *,
        deadly: bool = True,
    ) -> None:
        self.cluster = cluster
        self.deadly = deadly
        self.chance = random.Random(f"chaos/{seed}")
        self.fronts = fronts
        self.done: list[str] = []

    def _nodes(self) -> list[int]:
        count = self.chance.randint(1, TOLERANCE)
        return self.chance.sample(range(len(self.cluster.nodes)), count)

    def _gateway(self) -> Gateway:
        return self.chance.choice(self.cluster.gateways)

    def _processes(self, numbers: Sequence[int]) -> list[Process]:
        return [self.cluster.nodes[number].process for number in numbers]

    def round(self, wait: Any, *, seconds: float) -> None:
        """One fault, for about `seconds`, together with the death of another process or none.
        `wait(seconds)` passes the time."""
        kinds = ["pause nodes"]
        if self.deadly:
            kinds += ["kill nodes", "kill gateway", "kill workers"]
        if len(self.cluster.members) > 1:
            kinds += ["pause leader"]
            kinds += ["kill leader", "kill member"] if self.deadly else []
        if self.fronts is not None:
            kinds += ["isolate", "slow"]
        kind = self.chance.choice(kinds)
        self.done.append(kind)
        with ExitStack() as stack:
            self._begin(kind, stack)
            wait(self.chance.uniform(0.3, 1.0) * seconds)
            if self.deadly and self.chance.random() < 0.3 and kind != "kill gateway":
                stack.enter_context(killed(self.cluster, self._gateway().process))
                wait(self.chance.uniform(0.1, 0.5) * seconds)

    def _begin(self, kind: str, stack: ExitStack) -> None:
        nodes = self._nodes()
        cluster = self.cluster
        match kind:
            case "kill nodes":
                stack.enter_context(killed(cluster, *self._processes(nodes)))
            case "pause nodes":
                stack.enter_context(paused(*self._processes(nodes)))
            case "kill gateway":
                stack.enter_context(killed(cluster, self._gateway().process))
            case "kill workers":
                for process in (self._gateway().process, *self._processes(nodes)):
                    kill_worker(process, self.chance)
            case "kill leader":
                stack.enter_context(killed(cluster, leader(cluster).process))
            case "kill member":
                stack.enter_context(killed(cluster, self.chance.choice(cluster.members).process))
            case "pause leader":
                stack.enter_context(paused(leader(cluster).process))
            case "isolate":
                assert self.fronts is not None
                stack.enter_context(self.fronts.isolated(*nodes))
            case "slow":
                assert self.fronts is not None
                delay = self.chance.choice((0.05, 0.2, 2.0))
                stack.enter_context(self.fronts.fault(*nodes, delay_seconds=delay))
