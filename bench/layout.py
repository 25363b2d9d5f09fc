"""How long the layout of a large cluster takes to compute, from nothing and when one node joins."""

import random
import time

from bench.results import Row
from placement.cluster_map import Node
from placement.layout import compute

PG_COUNT = 4096
WIDTH = 6
ZONE_LIMIT = 2
ZONES = 20
TERABYTE = 10**12


def layout_row(count: int) -> Row:
    """`count` nodes of unequal size in 20 zones, 4+2 over 4,096 groups: CPU of this process."""
    dice = random.Random(count)
    nodes = [
        Node(f"node-{index:04}", f"zone-{index % ZONES:02}", dice.randint(4, 20) * TERABYTE)
        for index in range(count + 1)
    ]
    began = time.process_time()
    before = compute(nodes[:count], pg_count=PG_COUNT, width=WIDTH, zone_limit=ZONE_LIMIT)
    fresh = time.process_time() - began
    began = time.process_time()
    compute(nodes, pg_count=PG_COUNT, width=WIDTH, zone_limit=ZONE_LIMIT, previous=before)
    join = time.process_time() - began
    return Row(
        name=f"layout of {count:,} nodes, then a join",
        kind=None,
        rate=fresh,
        rate_unit="s",
        p50_ms=join * 1000,
        p99_ms=None,
        cpu_ms=None,
        cpu_unit="",
        judged=None,
        judged_unit="",
    )
