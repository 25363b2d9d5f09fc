"""`s3gw worker` beside gateways that do no background work, and a node with several drives."""

import base64
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.local import (
    Cluster,
    Process,
    answers,
    free_port,
    running,
    s3gw,
    wait_until,
)
from s3gw.metadata import keys
from tests.faults.faults import SETTINGS, admin, etcd_call, s3_of

SEED = 20260612
NODES = 7
OBJECTS = 40
OBJECT_BYTES = 150_000
WAIT_SECONDS_MAX = 120.0
BUSY = {**SETTINGS, "S3GW_WORKER_INTERVAL_SECONDS": "1", "S3GW_GARBAGE_AFTER_SECONDS": "1"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("worker") / "store"
    environment = {**BUSY, "S3GW_WORKERS": "false"}
    with running(
        Cluster(directory, nodes=NODES, zones=NODES, gateways=1, environment=environment)
    ) as made:
        assert isinstance(made, Cluster)
        yield made


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Iterator[Process]:
    port = free_port()
    credentials = cluster.credentials
    process = Process(
        "worker",
        s3gw("worker", "--etcd", cluster.etcd_urls, "--admin", f"127.0.0.1:{port}"),
        cluster.directory / "worker.log",
        {
            **BUSY,
            "S3GW_ROOT_ACCESS_KEY": credentials.access_key,
            "S3GW_ROOT_SECRET_KEY": credentials.secret_key,
        },
    )
    process.start()
    try:
        process.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/health/ready"))
        yield process
    finally:
        if process.running():
            assert process.stop() == 0


def test_a_worker_rebuilds_what_a_lost_node_held(cluster: Cluster, worker: Process) -> None:
    tunables = {"rebuild_after_seconds": 1, "hold_down_seconds": 1}
    assert "status" not in admin(cluster, "PUT", "/admin/tunables", tunables)
    s3, chance = s3_of(cluster), random.Random(SEED)
    assert s3.request("PUT", "/worked").status == 200
    bodies = {f"/worked/{number}": chance.randbytes(OBJECT_BYTES) for number in range(OBJECTS)}
    for path, body in bodies.items():
        assert s3.request("PUT", path, body=body).status == 200
    epoch = admin(cluster, "GET", "/admin/layout")["epoch"]
    cluster.nodes[-1].process.kill()

    def healed() -> bool:
        left = admin(cluster, "GET", "/admin/rebalances")
        moved = left.get("epoch", 0) > epoch and left["groups_left"] == 0
        return moved and bool(admin(cluster, "GET", "/admin/ledger")["healed"])

    wait_until(healed, what="healed", seconds_max=WAIT_SECONDS_MAX)
    assert admin(cluster, "GET", "/admin/rebalances")["bytes_rebuilt"] > 0
    for path, body in bodies.items():
        assert s3.request("GET", path).body == body


def test_a_lost_drive_of_a_node_is_down_and_its_other_one_is_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    drives, port = [tmp_path / "lost", tmp_path / "well"], free_port()
    flags = [flag for drive in drives for flag in ("--drive", str(drive))]
    process = Process(
        "node-of-two",
        s3gw(
            *("node", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"),
            *("--etcd", cluster.etcd_urls, *flags),
        ),
        tmp_path / "node.log",
        BUSY,
    )
    process.start()
    try:
        process.wait_ready(lambda: all((drive / "id.json").exists() for drive in drives))
        lost, well = (json.loads((drive / "id.json").read_text())["drive_id"] for drive in drives)
        wait_until(lambda: {lost, well} <= live_nodes(cluster), what="both drives live")
        shutil.rmtree(drives[0])
        wait_until(lambda: lost not in live_nodes(cluster), what="the lost drive is down")
        assert well in live_nodes(cluster)
    finally:
        assert process.stop() == 0


def live_nodes(cluster: Cluster) -> set[str]:
    nodes = admin(cluster, "GET", "/admin/nodes").get("nodes", [])
    return {each["node"] for each in nodes if each["live"]}


def locks(cluster: Cluster) -> set[str]:
    """The locks of background work that a process holds now."""
    start = keys.lock("")
    document = {
        "key": base64.b64encode(start).decode(),
        "range_end": base64.b64encode(keys.after_prefix(start)).decode(),
        "keys_only": True,
    }
    found = etcd_call(cluster, "/v3/kv/range", document).get("kvs", [])
    return {base64.b64decode(item["key"])[len(start) :].decode() for item in found}


def test_gateways_without_background_work_take_none_of_its_locks(
    cluster: Cluster, worker: Process
) -> None:
    """Whoever does work of a kind has its lock, and a worker that stops gives its locks back."""
    wait_until(
        lambda: {"departures", "garbage", "repair"} <= locks(cluster), what="the worker's locks"
    )
    assert worker.stop() == 0
    assert locks(cluster) == set()
