"""A cluster (etcd, six nodes, two gateways) whose nodes and gateways are killed under load."""

import itertools
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from compose.local import Cluster, Node, running, wait_until
from compose.s3_http import S3Http, Signer
from tests.attacks.target import SOAK
from tests.cluster.load import Load, client, digest, read

SEED = int(os.environ.get("CRASH_SEED", "20260103"))
BUCKET = "crashes"
TOLERANCE = 2
NODES = 6
PAIRS = 15 if SOAK else 2
ROUNDS = 30 if SOAK else 3
RACES = 100 if SOAK else 5
RECOVERY_SECONDS = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        "S3GW_PROCESSES": "1",
        "S3GW_LEASE_SECONDS": "4",
        "S3GW_HEARTBEAT_SECONDS": "1",
        "S3GW_SETTLE_SECONDS": "0.5",
    }
    started = Cluster(
        tmp_path_factory.mktemp("cluster") / "store", nodes=NODES, gateways=2, environment=settings
    )
    with running(started):
        client(started.endpoint, started.credentials).create_bucket(Bucket=BUCKET)
        yield started


@pytest.fixture
def s3(cluster: Cluster) -> Any:
    return client(cluster.endpoint, cluster.credentials, attempts=5)


def restart(cluster: Cluster, nodes: list[Node]) -> None:
    for node in nodes:
        node.process.start()
    for node in nodes:
        cluster.wait_node(node)


def wait_healthy(cluster: Cluster, s3: Any) -> None:
    """Until a write of the full width is taken again."""

    def written() -> bool:
        try:
            s3.put_object(Bucket=BUCKET, Key="probe", Body=b"x" * 100_000)
        except ClientError:
            return False
        return read(s3, BUCKET, "probe") == digest(b"x" * 100_000)

    wait_until(written, what="writes after the nodes came back", seconds_max=RECOVERY_SECONDS)


def pairs() -> list[tuple[int, ...]]:
    every = list(itertools.combinations(range(NODES), TOLERANCE))
    return random.Random(SEED).sample(every, PAIRS)


@pytest.mark.parametrize("pair", pairs(), ids=str)
def test_any_two_nodes_may_die_under_load(cluster: Cluster, s3: Any, pair: tuple[int, ...]) -> None:
    """R1: no failed read, no wrong byte, no acknowledged write lost, at any moment."""
    load = Load(
        cluster.endpoints,
        cluster.credentials,
        BUCKET,
        SEED + sum(pair),
        reads_may_fail=False,
        name=f"pair-{pair[0]}-{pair[1]}",
    )
    victims = [cluster.nodes[number] for number in pair]
    load.start()
    try:
        load.progress(writes=10)
        for node in victims:
            node.process.kill()
        load.progress(writes=10, reads=10)
    finally:
        load.stop()
    try:
        load.verify(s3)
    finally:
        restart(cluster, victims)
    wait_healthy(cluster, s3)
    load.verify(s3)


def test_more_than_two_nodes_down_is_503_and_recovers(cluster: Cluster, s3: Any) -> None:
    """R2: what cannot be read says so, nothing is corrupt, and all is there when they return."""
    bodies = {f"r2-{number}": random.Random(number).randbytes(300_000) for number in range(20)}
    for key, body in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    victims = cluster.nodes[: TOLERANCE + 1]
    for node in victims:
        node.process.kill()
    refused = 0
    impatient = client(cluster.endpoint, cluster.credentials)
    try:
        for key, body in bodies.items():
            try:
                assert read(impatient, BUCKET, key) == digest(body)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status != 503:
                    raise
                refused += 1
    finally:
        restart(cluster, victims)
    assert refused > 0
    wait_healthy(cluster, s3)
    for key, body in bodies.items():
        assert read(s3, BUCKET, key) == digest(body)


def test_gateways_and_nodes_killed_at_random_lose_nothing(cluster: Cluster, s3: Any) -> None:
    """Never more than two nodes down at once; each killed process comes back."""
    chance = random.Random(SEED)
    load = Load(cluster.endpoints, cluster.credentials, BUCKET, SEED, name="random").start()
    moment = threading.Event()
    try:
        for _ in range(ROUNDS):
            load.progress(writes=2)
            moment.wait(chance.uniform(0, 0.3))
            gateway = chance.choice(cluster.gateways)
            nodes = chance.sample(cluster.nodes, chance.randint(0, TOLERANCE))
            gateway.process.kill()
            for node in nodes:
                node.process.kill()
            moment.wait(chance.uniform(0.1, 0.4))
            restart(cluster, nodes)
            gateway.process.start()
            cluster.wait_gateway(gateway)
    finally:
        load.stop()
    wait_healthy(cluster, s3)
    load.verify(s3)


def test_racing_conditional_writers_have_one_winner(cluster: Cluster, s3: Any) -> None:
    """R19, over both gateways: creates, then replacements of one ETag."""
    writers, path = 32, f"/{BUCKET}/raced"
    signer = Signer(cluster.credentials.access_key, cluster.credentials.secret_key)
    gateways = [S3Http(endpoint, signer) for endpoint in cluster.endpoints]
    barrier = threading.Barrier(writers)

    def body_of(turn: int, number: int) -> bytes:
        """Never the same twice: a body written again would have the ETag that others wait for."""
        return b"%d by %d" % (turn, number)

    def race(turn: int, number: int, condition: dict[str, str]) -> int:
        barrier.wait()
        body = body_of(turn, number)
        return gateways[number % 2].request("PUT", path, headers=condition, body=body).status

    with ThreadPoolExecutor(writers) as pool:
        condition = {"if-none-match": "*"}
        for turn in range(RACES):
            races = [pool.submit(race, turn, number, condition) for number in range(writers)]
            statuses = [each.result() for each in races]
            assert set(statuses) <= {200, 409, 412}, statuses
            winners = [number for number in range(writers) if statuses[number] == 200]
            found = s3.get_object(Bucket=BUCKET, Key="raced")
            assert [found["Body"].read()] == [body_of(turn, number) for number in winners]
            condition = {"if-match": found["ETag"]}


def test_complete_abort_and_upload_part_race_to_one_outcome(cluster: Cluster, s3: Any) -> None:
    """R20. Who loses a race may be told to try again, which the SDK does."""
    clients = [client(cluster.endpoints[n % 2], cluster.credentials, attempts=5) for n in range(3)]
    completed = 0
    for number in range(12):
        key = f"r20-{number}"
        target = {"Bucket": BUCKET, "Key": key}
        target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
        bodies = [b"a%d" % number * 20_000, b"b%d" % number * 20_000]
        etag = s3.upload_part(**target, PartNumber=1, Body=bodies[0])["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        with ThreadPoolExecutor(3) as pool:
            outcomes = [
                pool.submit(clients[0].complete_multipart_upload, **target, MultipartUpload=parts),
                pool.submit(clients[1].abort_multipart_upload, **target),
                pool.submit(clients[2].upload_part, **target, PartNumber=1, Body=bodies[1]),
            ]
            errors = [status_of(each.exception()) for each in outcomes]
        # InvalidPart: the part was replaced before it was listed.
        assert all(status in (0, 400, 404, 409) for status in errors), errors
        found = read(s3, BUCKET, key)
        if errors[0] == 0:
            completed += 1
            assert found == digest(bodies[0])
            again = s3.complete_multipart_upload(**target, MultipartUpload=parts)
            assert again["ETag"] == s3.head_object(Bucket=BUCKET, Key=key)["ETag"]
        else:
            assert found is None
    assert completed > 0


def status_of(error: BaseException | None) -> int:
    """The HTTP status of an error; 0 for none."""
    if error is None:
        return 0
    if isinstance(error, ClientError):
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert isinstance(error, HTTPClientError), error
    return -1
