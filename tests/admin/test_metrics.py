"""Metrics: the sum over processes, counters that never go back, a text that Prometheus reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nodes.protocol import ShardName
from s3gw.metrics import (
    FAMILIES,
    HALF_BYTES,
    Board,
    Metrics,
    SharedMetrics,
    Snapshot,
    boards_of,
)
from s3gw.workers.merge import MergeAndRepair
from tests.admin.conftest import Admin, make_admin
from tests.admin.test_nodes import lose_shards
from tests.stores.memory_store import MemoryCluster

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


@pytest.fixture
def boards() -> Iterator[dict[str, int]]:
    made = boards_of(3)
    yield made
    for fd in made.values():
        os.close(fd)


def values(text: str) -> dict[str, float]:
    """Every sample by name and labels, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels))
            assert f"{sample.name}{{{labels}}}" not in found
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_any_process_shows_the_sum_of_all(boards: dict[str, int]) -> None:
    processes = [Metrics() for _ in range(3)]
    shared = [SharedMetrics(metrics, index, boards) for index, metrics in enumerate(processes)]
    for number, metrics in enumerate(processes):
        for _ in range(number + 1):
            metrics.request("PutObject", 200, 0.003 * (number + 1))
        metrics.count("s3gw_damaged_fragments_total", number)
    for each in shared:
        each.publish()
    shown = [values(each.render()) for each in shared]
    for found in shown:
        assert found["s3gw_requests_total{operation=PutObject,status=200}"] == 6
        assert found["s3gw_request_seconds_bucket{le=0.005,operation=PutObject}"] == 1
        assert found["s3gw_request_seconds_bucket{le=+Inf,operation=PutObject}"] == 6
        assert found["s3gw_request_seconds_count{operation=PutObject}"] == 6
        assert found["s3gw_request_seconds_sum{operation=PutObject}"] == pytest.approx(0.042)
        assert found["s3gw_damaged_fragments_total{}"] == 3
        assert found["s3gw_processes{}"] == 3


async def test_a_process_in_the_place_of_a_dead_one_counts_on(boards: dict[str, int]) -> None:
    first, other = Metrics(), Metrics()
    shown = SharedMetrics(other, 1, boards)
    seen = 0.0
    for _ in range(4):  # each dies after it has published, with something counted since
        shared = SharedMetrics(first, 0, boards)
        first.request("GetObject", 200, 1.0)
        shared.publish()
        found = values(shown.render())["s3gw_requests_total{operation=GetObject,status=200}"]
        assert found == seen + 1
        seen = found
        first.request("GetObject", 200, 1.0)
        first = Metrics()
        SharedMetrics(first, 0, boards)
        after = values(shown.render())
        assert after["s3gw_requests_total{operation=GetObject,status=200}"] == seen
        assert after["s3gw_tasks{}"] <= 2 * len(asyncio.all_tasks())


async def test_what_a_scrape_told_outlives_the_process_that_told_it(boards: dict[str, int]) -> None:
    counted, other = Metrics(), Metrics()
    counted.request("GetObject", 200, 1.0)
    told = values(SharedMetrics(counted, 0, boards).render())
    later = values(SharedMetrics(other, 1, boards).render())  # killed before it published again
    name = "s3gw_requests_total{operation=GetObject,status=200}"
    assert told[name] == later[name] == 1


def test_a_snapshot_cut_short_is_not_shown(boards: dict[str, int]) -> None:
    fd = boards["metrics-0"]
    board = Board(fd)
    assert board.read() is None
    for number in (1, 2):
        board.write(Snapshot(counters={"s3gw_damaged_fragments_total": {(): number}}))
    whole = [os.pread(fd, HALF_BYTES, half) for half in (0, HALF_BYTES)]
    newest = Board(fd).read()
    assert newest is not None
    assert newest.counters["s3gw_damaged_fragments_total"][()] == 2
    board.write(Snapshot(counters={"s3gw_damaged_fragments_total": {(): 3}}))
    written = os.pread(fd, HALF_BYTES, HALF_BYTES)
    assert written != whole[1]
    end = len(written.rstrip(b"\x00"))
    for cut in range(end):
        os.pwrite(fd, written[:cut] + whole[1][cut:], HALF_BYTES)
        found = Board(fd).read()
        assert found is not None
        assert found.counters["s3gw_damaged_fragments_total"][()] in (2, 3)


def test_labels_are_escaped() -> None:
    metrics = SharedMetrics(Metrics())

    async def render() -> str:
        return metrics.render({("s3gw_node_suspect", ('a"\\\nb',)): 1})

    assert values(asyncio.run(render()))['s3gw_node_suspect{node=a"\\\nb}'] == 1


async def test_the_port_shows_the_whole_store(admin: Admin) -> None:
    await lose_shards(admin)
    admin.process.directory.get("d0").failed(0.0)  # type: ignore[union-attr]
    reply = await admin.http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = values(reply.text)
    assert found["s3gw_nodes_known{}"] == 8
    assert found["s3gw_nodes_live{}"] == 7
    assert found["s3gw_repairs_waiting{}"] == 1
    assert found["s3gw_layout_epoch{}"] == 1
    assert found["s3gw_ledger_blobs{redundancy=reduced}"] >= 1
    assert found["s3gw_health_score{}"] <= 80
    assert found["s3gw_engine_used_bytes{}"] > 0
    names = {name.split("{")[0] for name in found}
    plain = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names
    }
    assert plain <= FAMILIES.keys()


async def test_every_gateway_shows_where_the_removal_of_orphans_has_stopped(
    memory_cluster: MemoryCluster,
) -> None:
    gateways = [await make_admin(memory_cluster) for _ in range(2)]
    process = (await make_admin(memory_cluster)).process  # the one that does the work
    group = process.topology.group(process.profile(), 3)
    orphans = [
        ShardName(group.profile.name, 3, number.to_bytes(16, "big"), 0) for number in range(101)
    ]
    drive = memory_cluster.drives[group.nodes[0]]
    drive.shards.update(dict.fromkeys(orphans, b"shard"))
    for left, score, alarms in ((101, 50, 1), (5, 100, 0)):
        await MergeAndRepair(process.storage).run_once()
        for gateway in gateways:
            gateway.forget_survey()
            health = await gateway.get("/health")
            assert health == (await gateway.get("/admin/summary"))["health"]
            assert health["score"] == score
            assert len(health["reasons"]) == alarms
            assert all("101 of 101 blobs of group 4+2/3" in why for why in health["reasons"])
            found = values((await gateway.http.get("/metrics")).text)
            assert found["s3gw_merge_alarms{}"] == alarms
        assert len(drive.shards) == left
        for name in orphans[5:]:
            drive.shards.pop(name, None)
    for gateway in gateways:
        await gateway.http.aclose()


def test_every_metric_is_documented() -> None:
    text = OPERATIONS.read_text()
    table = text.split("<!-- metrics:begin -->")[1].split("<!-- metrics:end -->")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    listed = [(name.strip(" `"), kind.strip(), what.strip()) for name, kind, what in rows]
    assert listed == [
        (
            name + (f"{{{','.join(family.labels)}}}" if family.labels else ""),
            family.kind,
            family.help,
        )
        for name, family in FAMILIES.items()
    ]
