"""etcd away, and etcd full, under a whole cluster."""

import base64
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.local import Cluster, running, wait_until
from tests.faults.faults import (
    SETTINGS,
    SOAK,
    etcd_call,
    killed,
    run_worker,
    s3_of,
    shards,
    wait_clean,
)
from tests.faults.load import UNAVAILABLE, Load

SEED = int(os.environ.get("SOAK_SEED", "20260504"))
OUTAGE_SECONDS = 60.0 if SOAK else 6.0
ANSWER_SECONDS_MAX = 3.0
QUOTA_BYTES = 32 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {**SETTINGS, "S3GW_ETCD_QUOTA_BYTES": str(QUOTA_BYTES)}
    directory = tmp_path_factory.mktemp("etcd") / "store"
    with running(Cluster(directory, etcd_quota_bytes=QUOTA_BYTES, environment=settings)) as started:
        assert isinstance(started, Cluster)
        yield started


def all_shards(cluster: Cluster) -> set[Path]:
    return {path for node in cluster.nodes for path in shards(node)}


def test_without_etcd_answers_are_fast_refusals_and_nothing_is_rebuilt_afterwards(
    cluster: Cluster,
) -> None:
    """R10: longer than every lease. The nodes held what they hold all the time."""
    passing = threading.Event()
    s3 = s3_of(cluster)
    with Load(cluster, "away", SEED, clients=4, keys=8) as load:
        load.progress(40)
        with killed(cluster, cluster.etcd.process):
            passing.wait(2.0)
            begun = time.monotonic()
            passing.wait(OUTAGE_SECONDS - 2.0)
            late = [call for call in load.history.calls if call.started > begun]
        assert late
        assert {call.status for call in late} <= UNAVAILABLE
        assert max(call.seconds for call in late) < ANSWER_SECONDS_MAX
        load.progress(20)
    load.verify()
    wait_clean(cluster)
    before = all_shards(cluster)
    report = run_worker(cluster, "repair")
    assert (report["rebuilt"], report["moved"]) == (0, 0)
    assert s3.request("GET", "/away", "list-type=2").status == 200
    assert all_shards(cluster) <= before  # what nothing refers to may go


def fill(cluster: Cluster) -> int:
    """Write keys of others into etcd until it raises its alarm; how many."""
    value = base64.b64encode(bytes(1_000_000)).decode()
    for number in range(2 * QUOTA_BYTES // 1_000_000):
        key = base64.b64encode(b"foreign/%d" % number).decode()
        try:
            etcd_call(cluster, "/v3/kv/put", {"key": key, "value": value})
        except OSError:
            return number
    raise AssertionError("etcd was never full")


def test_a_full_etcd_refuses_what_grows_and_recovers(cluster: Cluster) -> None:
    """R17: writes are refused, reads work; when there is room again so do writes."""
    s3 = s3_of(cluster)
    s3.request("PUT", "/nospace")
    assert s3.request("PUT", "/nospace/kept", body=b"kept").status == 200
    with Load(cluster, "nospace-load", SEED, clients=4, keys=8) as load:
        load.progress(20)
        assert fill(cluster) > 0
        wait_until(
            lambda: s3.request("PUT", "/nospace/k", body=b"x").status == 507,
            what="a refusal",
            seconds_max=20,
        )
        for _ in range(5):
            assert s3.request("PUT", "/nospace/k", body=b"x").status in (503, 507)
            assert s3.request("GET", "/nospace/kept").body == b"kept"
            assert s3.request("GET", "/nospace", "list-type=2").status == 200
        # What an operator does: remove what does not belong there, compact, defragment, disarm.
        whole = {
            "key": base64.b64encode(b"foreign/").decode(),
            "range_end": base64.b64encode(b"foreign0").decode(),
        }
        revision = etcd_call(cluster, "/v3/kv/deleterange", whole)["header"]["revision"]
        etcd_call(cluster, "/v3/kv/compaction", {"revision": revision, "physical": True})
        etcd_call(cluster, "/v3/maintenance/defragment", {})
        for raised in etcd_call(cluster, "/v3/maintenance/alarm", {"action": "GET"})["alarms"]:
            etcd_call(cluster, "/v3/maintenance/alarm", {"action": "DEACTIVATE", **raised})
        wait_until(
            lambda: s3.request("PUT", "/nospace/k", body=b"x").status == 200,
            what="writes after there is room",
            seconds_max=30,
        )
        load.progress(20)
    load.verify()
    wait_clean(cluster)
