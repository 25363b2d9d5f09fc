"""Placement groups: blobs are hashed into a fixed number of groups, and groups are placed on nodes.

The number of groups is fixed when a profile is made. Each node then holds about
pg_count * width / nodes shards of groups; with 25 or more of them whole groups balance nodes of
unequal size to a few percent, and a lost node is rebuilt from, and onto, many others.
"""

from __future__ import annotations

PG_COUNT_DEFAULT = 256
SLOTS_PER_NODE_MIN = 25


def pg_of(blob: bytes, pg_count: int) -> int:
    """The group of a blob. Blob ids are 128 random bits, so their first 64 modulo the count are a
    fair hash as they are: no group is preferred by more than pg_count / 2**64.

    >>> pg_of(bytes.fromhex("00000000000001070000000000000000"), 256)
    7
    """
    return int.from_bytes(blob[:8]) % pg_count


def minimum_pg_count(nodes: int, width: int) -> int:
    """The fewest groups that balance `nodes` nodes under a scheme of `width` shards.

    >>> minimum_pg_count(nodes=1000, width=6), minimum_pg_count(nodes=6, width=6)
    (4167, 25)
    """
    return -(-SLOTS_PER_NODE_MIN * nodes // width)
