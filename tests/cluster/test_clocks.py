"""R24: wall clocks that are wrong, or jump. Order comes from the metadata's revisions and time
limits from monotonic clocks, so that a wrong clock costs no data; what is signed at another time
than the gateway's is refused."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from compose.local import Cluster, running, wait_until
from tests.faults.clocks import Clocks
from tests.faults.faults import SETTINGS, admin, run_worker, s3_of, wait_clean
from tests.faults.load import Load

SEED = int(os.environ.get("SOAK_SEED", "20260505"))
HOUR = 3600.0
LEASE_SECONDS = float(SETTINGS["S3GW_LEASE_SECONDS"])


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    return Clocks(tmp_path_factory.mktemp("clocks"))


@pytest.fixture(scope="module")
def cluster(clocks: Clocks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("clocks") / "store", environment=SETTINGS)
    for each in (*made.nodes, *made.gateways):
        clocks.give(each.process)
    with running(made):
        yield made


@pytest.fixture(autouse=True)
def right_again(cluster: Cluster, clocks: Clocks) -> Iterator[None]:
    yield
    for each in (*cluster.nodes, *cluster.gateways):
        clocks.set(each.process, 0.0)


def at(offset_seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=offset_seconds)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_gateway_whose_clock_is_an_hour_off_refuses_and_orders_right(
    cluster: Cluster, clocks: Clocks, offset: float
) -> None:
    right, wrong = s3_of(cluster, 0), s3_of(cluster, 1)
    right.request("PUT", "/clocks")
    clocks.set(cluster.gateways[1].process, offset)
    refused = wrong.request("PUT", "/clocks/k", body=b"refused")
    assert (refused.status, refused.code) == (403, "RequestTimeTooSkewed")
    answered = datetime.strptime(refused["date"], "%a, %d %b %Y %H:%M:%S %Z").timestamp()
    here = datetime.now(UTC).replace(tzinfo=None).timestamp()
    assert abs(answered - here - offset) < 60, "the gateway's clock was not moved"
    # Who signs by that clock gets the truth or, as nodes refuse such a gateway too, no answer.
    possible = {b""}
    for number in range(10):
        body = b"%d" % number
        assert right.request("PUT", "/clocks/k", body=body).status == 200
        assert right.request("GET", "/clocks/k").body == body
        reply = wrong.request("GET", "/clocks/k", when=at(offset))
        assert reply.status == 503 or reply.body == body
        other = b"by the other %d" % number
        reply = wrong.request("PUT", "/clocks/k", body=other, when=at(offset))
        assert reply.status in (200, 503)
        possible = {other} if reply.status == 200 else {body, other}
        assert right.request("GET", "/clocks/k").body in possible
    run_worker(cluster, "garbage")
    assert right.request("GET", "/clocks/k").body in possible


def live_nodes(cluster: Cluster) -> int:
    nodes = admin(cluster, "GET", "/admin/ledger")
    return len(cluster.nodes) - len(nodes.get("nodes_down", cluster.nodes))


def test_clocks_of_nodes_that_jump_lose_nothing(cluster: Cluster, clocks: Clocks) -> None:
    """Two of them, ahead and back: their leases go on; what gateways sign for them they refuse as
    too old or too new while they are off, so that they are gone around, and used again after."""
    with Load(cluster, "jumping", SEED, clients=4, keys=8) as load:
        load.progress(20)
        clocks.set(cluster.nodes[0].process, HOUR)
        clocks.set(cluster.nodes[1].process, -HOUR)
        load.progress(20)
        end = time.monotonic() + LEASE_SECONDS + 1
        wait_until(lambda: time.monotonic() > end, what="the leases' time")
        assert live_nodes(cluster) == len(cluster.nodes)
        clocks.set(cluster.nodes[0].process, 0.0)
        clocks.set(cluster.nodes[1].process, 0.0)
        load.progress(20)
    load.verify()
    assert load.failed(["get", "head", "list"]) == []
    wait_clean(cluster)


def test_a_gateway_whose_clock_jumps_keeps_its_lease_and_its_data(
    cluster: Cluster, clocks: Clocks
) -> None:
    """Under load over the other: what its workers do meanwhile collects nothing that is needed."""
    with Load(cluster, "jumps", SEED, clients=4, keys=8, gateways=(0,)) as load:
        load.progress(20)
        for offset in (30 * 24 * HOUR, -30 * 24 * HOUR, 0.0):
            clocks.set(cluster.gateways[1].process, offset)
            for worker in ("garbage", "merge", "repair"):
                admin(cluster, "POST", f"/admin/run/{worker}", gateway=1, when=at(offset))
            load.progress(10)
    load.verify()
    wait_clean(cluster)
