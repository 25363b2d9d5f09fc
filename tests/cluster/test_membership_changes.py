"""Nodes that are lost, wiped, added and removed under load: placement groups move, nothing is lost,
and in the end all is at full redundancy where the layout wants it."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from compose.local import Cluster, Node, running, wait_until
from tests.faults.faults import SETTINGS, SOAK, admin, s3_of, shards, wait_clean
from tests.faults.load import Load

SEED = int(os.environ.get("SOAK_SEED", "20260506"))
NODES = 8
BLOBS = 2000 if SOAK else 120
HEALED_SECONDS_MAX = 120.0
# One shard per node and placement group, and few groups: how even it can be.
UNEVEN_MAX = 0.35


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("membership") / "store"
    settings = {**SETTINGS, "S3GW_PG_COUNT": "32"}  # groups enough to be spread evenly
    made = Cluster(directory, nodes=NODES, zones=NODES, environment=settings)
    with running(made):
        tunables = {"rebuild_after_seconds": 2, "hold_down_seconds": 2}
        assert "status" not in admin(made, "PUT", "/admin/tunables", tunables)
        yield made


def id_of(node: Node) -> str:
    """The id of its drive, which a node with an empty directory draws when it starts."""
    wait_until((node.directory / "id.json").exists, what=f"the drive of {node.process.tag}")
    return str(json.loads((node.directory / "id.json").read_text())["drive_id"])


def layout_nodes(cluster: Cluster) -> dict[str, str]:
    """Node ids in the layout, with their states."""
    layout = admin(cluster, "GET", "/admin/layout")
    return {each["node"]: each["state"] for each in layout["nodes"]}


def add_to_layout(cluster: Cluster, node: Node) -> None:
    name = id_of(node)

    def registered() -> bool:
        nodes = admin(cluster, "GET", "/admin/nodes").get("nodes", ())
        return any(each["node"] == name and each["live"] for each in nodes)

    wait_until(registered, what="the new node's registration")
    change = {"change": "add", "node": name}
    staged = admin(cluster, "POST", "/admin/layout/draft", {"changes": [change]})
    assert "status" not in staged, staged
    applied = admin(cluster, "POST", "/admin/layout/apply", {"reason": "one more node"})
    assert "status" not in applied, applied


def wait_settled(cluster: Cluster) -> None:
    """Until no placement group is on its way to the present layout, and all is whole."""
    seen: dict[str, Any] = {}

    def settled() -> bool:
        seen.update(admin(cluster, "GET", "/admin/rebalances"))
        epoch = admin(cluster, "GET", "/admin/layout").get("epoch")
        return seen.get("groups_left") == 0 and seen.get("epoch") == epoch

    try:
        wait_until(settled, what="rebalance", seconds_max=HEALED_SECONDS_MAX)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {seen}") from error
    wait_clean(cluster)


def shard_bytes(node: Node) -> int:
    return sum(path.stat().st_size for path in shards(node))


def test_after_a_lost_node_all_is_at_full_redundancy_again(cluster: Cluster) -> None:
    """R30: the time from the death of one of eight nodes until the ledger says healed, and bytes
    rebuilt against what the node held."""
    s3, chance = s3_of(cluster), random.Random(SEED)
    s3.request("PUT", "/lost")
    bodies = {f"/lost/{number}": chance.randbytes(200_000) for number in range(BLOBS)}
    for path, body in bodies.items():
        assert s3.request("PUT", path, body=body).status == 200
    wait_clean(cluster)
    victim = cluster.nodes[-1]
    name, held = id_of(victim), shard_bytes(victim)
    assert held > 0
    died = time.monotonic()
    victim.process.kill()
    wait_until(
        lambda: layout_nodes(cluster).get(name) in (None, "out"),
        what="the node out of the layout",
        seconds_max=60,
    )
    out = time.monotonic()
    wait_settled(cluster)
    healed = time.monotonic()
    rebalance = admin(cluster, "GET", "/admin/rebalances")
    moved = rebalance["bytes_rebuilt"] + rebalance["bytes_moved"]
    print(
        f"{BLOBS} blobs: out after {out - died:.1f} s, healed {healed - out:.1f} s later, ", end=""
    )
    print(f"{moved} bytes written for {held} bytes lost: {rebalance}")
    for path, body in bodies.items():
        assert s3.request("GET", path).body == body


def test_a_wiped_node_returns_empty_and_is_filled_again(cluster: Cluster) -> None:
    """R13: what was on it is rebuilt elsewhere; it comes back as a new drive, which an operator
    adds. The counts match: every shard of every blob is on a disk."""
    node = cluster.nodes[-1]
    before = id_of(node)
    assert not node.process.running()
    with Load(cluster, "wiped", SEED, clients=4, keys=12) as load:
        load.progress(20)
        shutil.rmtree(node.directory)
        node.process.start()
        cluster.wait_node(node)
        assert id_of(node) != before
        add_to_layout(cluster, node)
        load.progress(20)
    load.verify()
    wait_settled(cluster)
    assert shard_bytes(node) > 0
    load.verify()


def test_a_node_is_added_and_another_removed_under_load(cluster: Cluster) -> None:
    """R26: no violation, balanced in the end, and nothing is left on the node that goes."""
    with Load(cluster, "changed", SEED, clients=4, keys=24) as load:
        load.progress(20)
        added = cluster.add_node("zone-new")
        add_to_layout(cluster, added)
        load.progress(20)
        leaving = cluster.nodes[0]
        answer = admin(cluster, "POST", f"/admin/nodes/{id_of(leaving)}/decommission")
        assert "status" not in answer, answer

        def gone() -> bool:
            state = admin(cluster, "POST", f"/admin/nodes/{id_of(leaving)}/decommission")
            return bool(state.get("done"))

        wait_until(gone, what="the node is empty", seconds_max=HEALED_SECONDS_MAX)
        load.progress(20)
    load.verify()
    wait_settled(cluster)
    load.verify()
    nodes = admin(cluster, "GET", "/admin/nodes")["nodes"]
    slots = {each["node"]: each["slots"] for each in nodes if each["state"] == "active"}
    assert id_of(leaving) not in slots
    fair = sum(slots.values()) / len(slots)
    print("slots:", slots)
    assert all(abs(count - fair) <= UNEVEN_MAX * fair for count in slots.values()), slots
