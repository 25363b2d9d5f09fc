"""Disks that are full, rot, lose files, or come back empty, under real node processes. Each node's
data is on a file system of its own."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from compose.local import Cluster, running, wait_until
from tests.faults.faults import (
    DAMAGES,
    SETTINGS,
    SOAK,
    TOLERANCE,
    full_disk,
    run_worker,
    s3_of,
    shards,
    small_disk,
    wait_clean,
)
from tests.faults.load import Load

SEED = int(os.environ.get("SOAK_SEED", "20260503"))
NODES = 6
DISK_BYTES = 64 << 20
REFUSED = frozenset({503, 507})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("disks") / "store"
    made = Cluster(directory, nodes=NODES, environment=SETTINGS)
    with ExitStack() as disks:
        for node in made.nodes:
            disks.enter_context(small_disk(node.directory, DISK_BYTES))
        with running(made):
            yield made


@pytest.mark.parametrize("full", [1, TOLERANCE])
def test_writes_go_around_full_disks(cluster: Cluster, full: int) -> None:
    """R16, on one and on m nodes: no request fails for it."""
    with ExitStack() as stack, Load(cluster, f"full-{full}", SEED, clients=4, keys=6) as load:
        load.progress(10)
        for node in cluster.nodes[:full]:
            stack.enter_context(full_disk(node))
        load.progress(30)
    load.verify()
    assert load.failed(["get", "head", "list"]) == []
    wait_clean(cluster)


def used_bytes(cluster: Cluster) -> int:
    return sum(path.stat().st_size for node in cluster.nodes for path in shards(node))


def test_when_every_disk_is_full_writes_are_refused_and_deletes_free_space(
    cluster: Cluster,
) -> None:
    """R16 on all nodes: refused with 503 or 507, reads and deletes go on, nothing partial."""
    s3, chance = s3_of(cluster), random.Random(SEED)
    s3.request("PUT", "/brim")
    bodies = {f"/brim/k{number}": chance.randbytes(1_500_000) for number in range(6)}
    for path, body in bodies.items():
        assert s3.request("PUT", path, body=body).status == 200
    with ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(full_disk(node))
        for number, size in enumerate((1_500_000, 300_000, 70_000, 1_500_000)):
            reply = s3.request("PUT", f"/brim/refused-{number}", body=chance.randbytes(size))
            assert reply.status in REFUSED, (reply.status, reply.code)
        listed = s3.request("GET", "/brim", "list-type=2").body
        assert listed.count(b"<Key>") == len(bodies)
        assert b"refused" not in listed
        for path, body in bodies.items():
            assert s3.request("GET", path).body == body
        before = used_bytes(cluster)
        for path in list(bodies)[:4]:
            assert s3.request("DELETE", path).status == 204
            del bodies[path]

        def freed() -> bool:
            run_worker(cluster, "garbage")
            return used_bytes(cluster) < before - 4 * 1_500_000

        wait_until(freed, what="space freed by deletes", seconds_max=30)
        body = chance.randbytes(100_000)
        wait_until(
            lambda: s3.request("PUT", "/brim/again", body=body).status == 200,
            what="a write into the space freed",
            seconds_max=30,
        )
        bodies["/brim/again"] = body
    for path, body in bodies.items():
        assert s3.request("GET", path).body == body
    assert s3.request("PUT", "/brim/after", body=chance.randbytes(300_000)).status == 200
    wait_clean(cluster)


def damage(cluster: Cluster, share: float, chance: random.Random) -> int:
    """Spoil shards of at most as many nodes as may be lost, in every way; how many."""
    count = 0
    for node in chance.sample(cluster.nodes, TOLERANCE):
        found = shards(node)
        for path in chance.sample(found, max(1, int(share * len(found)))):
            chance.choice(DAMAGES)(path, chance)
            count += 1
    return count


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_shards_flipped_cut_extended_and_deleted_are_read_around_and_repaired(
    cluster: Cluster, share: float
) -> None:
    """R4, R5 beside writers: no wrong byte, no failed read, and one scrub brings all back."""
    chance = random.Random(f"{SEED}/{share}")
    name = f"rot-{int(share * 100)}"
    with Load(cluster, name, SEED, clients=4, keys=24) as load:
        load.progress(60)
        assert damage(cluster, share, chance) > 0
        load.progress(20)
    load.verify()
    assert load.failed(["get", "head", "list"]) == []
    run_worker(cluster, "verify")
    wait_clean(cluster)
    load.verify()


def test_a_drive_swapped_for_an_empty_one_is_not_taken_for_the_old_one(cluster: Cluster) -> None:
    """The mount point is there and empty: what the node held is missing, reads go around it, and
    when the old drive comes back all is well."""
    node = cluster.nodes[2]
    with Load(cluster, "swapped", SEED, clients=4, keys=12) as load:
        load.progress(40)
        node.process.kill()
        away = node.directory.with_name("away")
        shutil.copytree(node.directory, away)
        for path in list(node.directory.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        node.process.start()
        load.progress(20)
        node.process.kill()
        for path in list(node.directory.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(away, node.directory, dirs_exist_ok=True)
        node.process.start()
        cluster.wait_node(node)
        load.progress(20)
    load.verify()
    assert load.failed(["get", "head", "list"]) == []
    wait_clean(cluster)


def test_rounds_of_damage(cluster: Cluster) -> None:
    """With SOAK=1, fifty; each is repaired before the next."""
    chance = random.Random(SEED)
    for number in range(50 if SOAK else 1):
        with Load(cluster, f"round-{number}", SEED, clients=4, keys=12) as load:
            load.progress(20)
            damage(cluster, chance.choice((0.01, 0.2, 1.0)), chance)
            load.progress(20)
        load.verify()
        wait_clean(cluster)
