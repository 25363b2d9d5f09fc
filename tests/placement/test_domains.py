from __future__ import annotations

import doctest
from collections import Counter
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import placement.domains
from placement.cluster_map import Node, NodeState
from placement.domains import DRIVE, FAILURE_DOMAINS, NODE, ZONE, host_of, most_per_host, place
from placement.layout import compute
from placement.moves import Assignment, load_of, moves_between
from placement.shares import fair_shares


def cluster(
    hosts: int, drives: int, *, zones: int = 1, weight: int = 100, first: int = 0
) -> list[Node]:
    return [
        Node(f"h{host:02}d{drive}", f"z{host % zones}", weight, host=f"h{host:02}")
        for host in range(first, first + hosts)
        for drive in range(drives)
    ]


def check_rows(rows: Assignment, nodes: list[Node]) -> None:
    """No drive twice in a group, and only drives that may hold shards."""
    may = {node.id for node in nodes if node.state is not NodeState.DRAINING}
    for row in rows:
        present = [node for node in row if node is not None]
        assert len(set(present)) == len(present)
        assert set(present) <= may


def most_per_zone(rows: Assignment, nodes: list[Node]) -> int:
    zone = {node.id: node.zone for node in nodes}
    return max(max(Counter(zone[node] for node in row if node).values()) for row in rows)


def test_worked_examples_hold() -> None:
    results = doctest.testmod(placement.domains)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("domain", [DRIVE, NODE])
def test_with_one_drive_per_host_nothing_is_different(domain: str) -> None:
    nodes = [Node(f"n{i}", f"z{i % 3}", 10 + i) for i in range(9)]
    expected = compute(nodes, pg_count=64, width=6, zone_limit=2)
    assert place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=domain) == expected


def test_with_enough_hosts_no_group_has_two_shards_on_one() -> None:
    nodes = cluster(8, 4)
    rows = place(nodes, pg_count=128, width=6, zone_limit=6, failure_domain=NODE)
    check_rows(rows, nodes)
    assert most_per_host(rows, nodes) == 1
    assert all(None not in row for row in rows)
    shared = place(nodes, pg_count=128, width=6, zone_limit=6, failure_domain=DRIVE)
    assert most_per_host(shared, nodes) > 1


@pytest.mark.parametrize(("hosts", "most"), [(1, 6), (2, 3), (3, 2), (5, 2)])
def test_with_few_hosts_none_has_more_of_a_group_than_it_must(hosts: int, most: int) -> None:
    nodes = cluster(hosts, 6)
    rows = place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=NODE)
    check_rows(rows, nodes)
    assert most_per_host(rows, nodes) == most
    assert all(None not in row for row in rows)


def test_zones_of_unequal_size_keep_the_zone_rule_with_few_hosts() -> None:
    nodes = cluster(5, 4)
    nodes = [
        Node(n.id, "a" if n.host == "h00" else "b" if n.host < "h03" else "c", 100, host=n.host)
        for n in nodes
    ]
    rows = place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=NODE)
    check_rows(rows, nodes)
    assert most_per_zone(rows, nodes) == 2


def test_the_zone_domain_takes_as_few_shards_per_zone_as_can_be() -> None:
    nodes = cluster(12, 2, zones=6)
    near = place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=NODE)
    assert most_per_zone(near, nodes) <= 2
    for zones, most in ((6, 1), (4, 2), (3, 2), (2, 3)):
        nodes = cluster(12, 2, zones=zones)
        rows = place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=ZONE)
        check_rows(rows, nodes)
        assert most_per_zone(rows, nodes) == most
        assert most_per_host(rows, nodes) == 1


@pytest.mark.parametrize("domain", FAILURE_DOMAINS)
@pytest.mark.parametrize(("hosts", "drives"), [(8, 4), (12, 2), (3, 4), (6, 5)])
def test_equal_drives_are_filled_equally(domain: str, hosts: int, drives: int) -> None:
    nodes = cluster(hosts, drives)
    rows = place(nodes, pg_count=256, width=6, zone_limit=2, failure_domain=domain)
    fair = Fraction(256 * 6, len(nodes))
    for node in nodes:
        assert abs(load_of(rows)[node.id] - fair) <= max(Fraction(1), fair / 20)


def test_drives_of_a_host_are_filled_by_weight() -> None:
    nodes = [
        Node(f"h{host}d{drive}", "z", 100 * (drive + 1), host=f"h{host}")
        for host in range(8)
        for drive in range(3)
    ]
    rows = place(nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE)
    load = load_of(rows)
    for host in range(8):
        for drive in range(3):
            fair = Fraction(256 * 6, 8) * (drive + 1) / 6
            assert abs(load[f"h{host}d{drive}"] - fair) <= 1


def test_data_and_parity_slots_are_dealt_alike() -> None:
    nodes = cluster(8, 4)
    rows = place(nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE)
    for node in nodes:
        counts = Counter(row.index(node.id) for row in rows if node.id in row)
        assert max(counts.values()) - min(counts[slot] for slot in range(6)) <= 4


def moved(before: Assignment, after: Assignment) -> int:
    return sum(1 for move in moves_between(before, after) if move.target is not None)


@pytest.mark.parametrize(("hosts", "drives"), [(8, 4), (12, 2), (7, 3)])
def test_a_joining_host_moves_little_more_than_its_share(hosts: int, drives: int) -> None:
    before_nodes = cluster(hosts, drives)
    before = place(before_nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE)
    nodes = before_nodes + cluster(1, drives, first=hosts)
    after = place(nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE, previous=before)
    check_rows(after, nodes)
    assert most_per_host(after, nodes) == 1
    least = Fraction(256 * 6, hosts + 1)
    assert moved(before, after) <= Fraction(12, 10) * least


@pytest.mark.parametrize(("hosts", "drives"), [(8, 4), (12, 2), (7, 3)])
def test_a_leaving_host_moves_little_more_than_it_held(hosts: int, drives: int) -> None:
    before_nodes = cluster(hosts, drives)
    before = place(before_nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE)
    nodes = before_nodes[drives:]
    after = place(nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE, previous=before)
    check_rows(after, nodes)
    assert most_per_host(after, nodes) == 1
    held = sum(load_of(before)[node.id] for node in before_nodes[:drives])
    assert held <= moved(before, after) <= Fraction(12, 10) * held


def test_a_joining_drive_fills_up_and_a_leaving_one_is_taken_over_by_its_host_first() -> None:
    before_nodes = cluster(8, 4)
    before = place(before_nodes, pg_count=256, width=6, zone_limit=6, failure_domain=NODE)
    drained = [
        Node(n.id, n.zone, n.weight, NodeState.DRAINING if n.id == "h00d0" else n.state, n.host)
        for n in before_nodes
    ]
    after = place(
        drained, pg_count=256, width=6, zone_limit=6, failure_domain=NODE, previous=before
    )
    check_rows(after, drained)
    assert load_of(after)["h00d0"] == 0
    held = load_of(before)["h00d0"]
    # What the host's other drives cannot take by their weight goes on, through one more drive.
    assert moved(before, after) <= 2 * held
    joined = [*before_nodes, Node("h00d9", "z0", 100, host="h00")]
    more = place(joined, pg_count=256, width=6, zone_limit=6, failure_domain=NODE, previous=before)
    share = fair_shares(
        [Node(f"h{h}", "z", 500 if h == 0 else 400) for h in range(8)],
        pg_count=256,
        width=6,
        zone_limit=6,
    )["h0"]
    assert abs(load_of(more)["h00d9"] - share / 5) <= share / 5 / 20
    assert moved(before, more) <= Fraction(12, 10) * (share / 5 + share - 192) + 2


def test_a_cordoned_drive_keeps_its_slots_and_gets_no_others() -> None:
    before_nodes = cluster(8, 2)
    before = place(before_nodes, pg_count=64, width=6, zone_limit=6, failure_domain=NODE)
    nodes = [
        Node(n.id, n.zone, n.weight, NodeState.CORDONED if n.id == "h03d1" else n.state, n.host)
        for n in before_nodes
    ]
    after = place(nodes, pg_count=64, width=6, zone_limit=6, failure_domain=NODE, previous=before)
    assert after == before


def test_nothing_changes_without_a_change() -> None:
    for domain in FAILURE_DOMAINS:
        for nodes in (cluster(8, 3, zones=4), cluster(4, 4, zones=2)):
            rows = place(nodes, pg_count=64, width=6, zone_limit=2, failure_domain=domain)
            again = place(
                list(reversed(nodes)),
                pg_count=64,
                width=6,
                zone_limit=2,
                failure_domain=domain,
                previous=rows,
            )
            assert again == rows


drives_of_hosts = st.lists(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([*NodeState, NodeState.ACTIVE])),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(drives_of_hosts, drives_of_hosts, st.integers(1, 3), st.integers(1, 6), st.data())
def test_whatever_the_hosts_the_rules_hold(
    first: list[list[tuple[int, NodeState]]],
    second: list[list[tuple[int, NodeState]]],
    zones: int,
    width: int,
    data: st.DataObject,
) -> None:
    def built(hosts: list[list[tuple[int, NodeState]]]) -> list[Node]:
        return [
            Node(f"h{host}d{drive}", f"z{host % zones}", weight, state, f"h{host}")
            for host, drives in enumerate(hosts)
            for drive, (weight, state) in enumerate(drives)
        ]

    domain = data.draw(st.sampled_from(FAILURE_DOMAINS))
    before_nodes, nodes = built(first), built(second)
    before = place(before_nodes, pg_count=8, width=width, zone_limit=2, failure_domain=domain)
    after = place(
        nodes, pg_count=8, width=width, zone_limit=2, failure_domain=domain, previous=before
    )
    assert len(after) == 8
    assert all(len(row) == width for row in after)
    check_rows(after, nodes)
    usable = [node for node in nodes if node.state is NodeState.ACTIVE and node.weight > 0]
    hosts = {host_of(node) for node in usable}
    if domain != DRIVE and len(hosts) >= width:
        assert most_per_host(after, nodes) <= 1
    if len({host_of(node) for node in usable}) >= width and not any(
        node.state is NodeState.CORDONED for node in nodes
    ):
        assert all(None not in row for row in after)


def test_what_is_no_failure_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="no failure domain"):
        place(cluster(2, 1), pg_count=1, width=1, zone_limit=1, failure_domain="rack")
    with pytest.raises(ValueError, match="twice"):
        place(cluster(1, 2) * 2, pg_count=1, width=1, zone_limit=1, failure_domain=NODE)


def test_the_limit_of_few_hosts_is_the_ceiling() -> None:
    for hosts in range(2, 6):
        nodes = cluster(hosts, 8)
        rows = place(nodes, pg_count=32, width=11, zone_limit=3, failure_domain=NODE)
        assert most_per_host(rows, nodes) == ceil(11 / hosts)
