"""The mixed load under the checker while processes die: every answer of every client must fit into
one order per key. Three etcd members, six nodes, two gateways; deleted bytes are collected at once.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config

from compose.local import Cluster, running, wait_until
from tests import sdk
from tests.faults.faults import (
    SETTINGS,
    SOAK,
    Chaos,
    killed,
    leader,
    run_worker,
    s3_of,
    start_all,
    wait_clean,
    wait_ready,
)
from tests.faults.load import Load
from tests.faults.model import FAULTS, OPERATIONS, Model
from tests.faults.proxies import Proxies

SEED = int(os.environ.get("SOAK_SEED", "20260501"))
ROUNDS = 100 if SOAK else 3
FAULT_SECONDS = 5.0 if SOAK else 1.0
MODEL_STEPS = 5000 if SOAK else 120
NODES_RESTARTED = 6 if SOAK else 3
WRITERS = 64 if SOAK else 16
RESUME_SECONDS_MAX = 5.0
# A bound of time holds if it holds once: the machine of a test does other things too.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("linearizable") / "store"
    with running(Cluster(directory, nodes=6, etcd_members=3, environment=SETTINGS)) as started:
        assert isinstance(started, Cluster)
        yield started


def test_histories_are_linearizable_while_processes_die(cluster: Cluster) -> None:
    """R3, R18, R22: kills from a seed beside many writers, with the garbage worker at work every
    second. (That all is at full redundancy afterwards is waited for below.)"""
    chaos = Chaos(cluster, SEED)
    passing = threading.Event()
    with Load(cluster, "linear", SEED, clients=WRITERS) as load:
        load.progress(50)
        for _ in range(ROUNDS):
            chaos.round(passing.wait, seconds=FAULT_SECONDS)
            load.progress(10)
    load.verify()
    print("faults:", chaos.done, "answers:", dict(load.history.statuses()))


def test_a_store_and_a_model_say_the_same_whatever_dies(cluster: Cluster) -> None:
    """R27: objects, copies, multipart uploads and pages of listings, from a seed."""
    model = Model(cluster, "model", SEED)
    model.steps(MODEL_STEPS)
    model.compare_all()
    print("steps:", dict(model.done), "sent again:", model.resent)
    assert sum(model.done[name] for name in FAULTS) > 0
    assert sum(model.done[name] for name in OPERATIONS) > MODEL_STEPS / 2


def seconds_of_progress(load: Load) -> float:
    begun = time.monotonic()
    load.progress(10)
    return time.monotonic() - begun


def test_writes_resume_when_the_leader_of_etcd_dies_and_when_all_members_restart(
    cluster: Cluster,
) -> None:
    """R9."""
    with Load(cluster, "leader", SEED, clients=4, keys=4) as load:
        load.progress(20)
        for attempt in range(1, ATTEMPTS + 1):
            first = leader(cluster).process
            first.kill()
            seconds = seconds_of_progress(load)
            start_all(cluster, [first])
            load.progress(10)
            if seconds < RESUME_SECONDS_MAX:
                break
            assert attempt < ATTEMPTS, seconds
        for attempt in range(1, ATTEMPTS + 1):
            members = [member.process for member in cluster.members]
            for process in members:
                process.kill()
            for process in members:
                process.start()
            for process in members:
                wait_ready(cluster, process)
            seconds = seconds_of_progress(load)
            if seconds < RESUME_SECONDS_MAX:
                break
            assert attempt < ATTEMPTS, seconds
    load.verify()


def test_an_object_is_never_in_a_bucket_that_is_gone(cluster: Cluster) -> None:
    """R23: of a PUT and a DeleteBucket at the same time at most one succeeds."""
    rounds = 300 if SOAK else 25
    both = [s3_of(cluster, 0), s3_of(cluster, 1)]
    chance = random.Random(SEED)
    seen = set()
    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            path = f"/raced-{number}"
            assert both[0].request("PUT", path).status == 200
            ready = threading.Barrier(2)
            body = chance.randbytes(chance.choice((10, 100_000)))

            def put(path: str = path, ready: threading.Barrier = ready, body: bytes = body) -> int:
                ready.wait()
                return both[0].request("PUT", f"{path}/k", body=body).status

            def delete(path: str = path, ready: threading.Barrier = ready) -> int:
                ready.wait()
                return both[1].request("DELETE", path).status

            first, second = pool.submit(put), pool.submit(delete)
            outcome = first.result(), second.result()
            seen.add(outcome)
            assert outcome in {(200, 409), (404, 204), (200, 503), (503, 204)}, outcome
            exists = both[1].request("HEAD", path).status == 200
            assert exists == (outcome[1] != 204)
            if not exists:
                assert both[0].request("GET", f"{path}/k").code == "NoSuchBucket"
                assert both[0].request("PUT", path).status == 200
                assert both[1].request("GET", f"{path}/k").code == "NoSuchKey"
    assert seen & {(200, 409), (404, 204)}


class Boto:
    """boto3 with its default retries, writing and reading its own keys until told to stop."""

    def __init__(self, cluster: Cluster, endpoint: str, bucket: str, number: int) -> None:
        self.s3 = sdk.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=cluster.credentials.access_key,
            aws_secret_access_key=cluster.credentials.secret_key,
            config=Config(connect_timeout=5, read_timeout=30),
        )
        self.bucket, self.number = bucket, number
        self.rounds = 0

    def run(self, stop: threading.Event) -> None:
        chance = random.Random(f"{SEED}/{self.number}")
        while not stop.is_set():
            key = f"{self.number}/{self.rounds % 5}"
            body = chance.randbytes(chance.choice((100, 50_000, 300_000)))
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
            assert self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() == body
            listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=key)["Contents"]
            assert [each["Key"] for each in listed] == [key]
            self.s3.delete_object(Bucket=self.bucket, Key=key)
            self.rounds += 1
            stop.wait(0.02)


def test_a_rolling_restart_of_everything_shows_no_error_to_boto3(cluster: Cluster) -> None:
    """R25: gateways behind a balancer, nodes (half of them, all in a soak), and etcd, one after the
    other, as an upgrade does."""
    stop = threading.Event()
    with Proxies(1) as balancer, ThreadPoolExecutor(3) as pool:
        ports = [int(endpoint.rpartition(":")[2]) for endpoint in cluster.endpoints]
        balancer.point(0, *ports)
        clients = [Boto(cluster, balancer.urls[0], "rolling", number) for number in range(3)]
        clients[0].s3.create_bucket(Bucket="rolling")
        running_clients = [pool.submit(client.run, stop) for client in clients]
        try:
            members = [member.process for member in cluster.members]
            nodes = [node.process for node in cluster.nodes[:NODES_RESTARTED]]
            gateways = [gateway.process for gateway in cluster.gateways]
            for process in [*gateways, *nodes, *members]:
                before = sum(client.rounds for client in clients)
                assert process.stop() in (0, -15), process.log_tail()
                start_all(cluster, [process])
                wait_until(
                    lambda: (
                        any(each.done() for each in running_clients)
                        or sum(client.rounds for client in clients) >= before + 3  # noqa: B023
                    ),
                    what="progress",
                )
        finally:
            stop.set()
        for each in running_clients:
            each.result()


def test_a_killed_gateway_costs_its_clients_no_more_than_their_requests(cluster: Cluster) -> None:
    """What one gateway's death leaves unknown, the other answers for at once."""
    with Load(cluster, "gateway", SEED, clients=4, keys=4) as load:
        load.progress(20)
        with killed(cluster, cluster.gateways[0].process):
            load.progress(20)
    load.verify()


def test_nothing_is_left_at_rest(cluster: Cluster) -> None:
    """After all that was done to this store everything is at full redundancy, and (R22) no orphan
    stays. At rest orphans may go at once (while writers work they may not: a shard is an orphan
    until its commit)."""
    gateways = [gateway.process for gateway in cluster.gateways]
    for process in gateways:
        assert process.stop() == 0
        process.environment = {**process.environment, "S3GW_ORPHAN_AFTER_SECONDS": "0"}
    start_all(cluster, gateways)
    report: dict[str, Any] = {}

    def at_rest() -> bool:
        run_worker(cluster, "garbage")
        report.update(run_worker(cluster, "merge"))
        # A copy of a referenced shard that is not needed there stays for an hour: not an orphan.
        return report.get("orphans") == 0 and not report["alarms"]

    try:
        wait_until(at_rest, what="no orphan", seconds_max=60)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {report}") from error
    wait_clean(cluster)
