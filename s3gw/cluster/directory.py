"""The nodes as this process sees them: which exist, which live, which to try first.

Membership (leases) says that a node is up or down; this process's own calls say that it is
suspect (refused connection, deadline, I/O error) or slow. Nothing here decides safety: it only
says whom to ask first and whom to write around. A suspect node is tried again after a pause that
doubles with every failure: a circuit breaker per node.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from nodes.protocol import Drive
from s3gw.cluster.epochs import ACTIVE, CORDONED, OUT

SUSPECT_SECONDS_MIN = 1.0
SUSPECT_SECONDS_MAX = 15.0
FULL_SECONDS = 5.0
LATENCY_SAMPLES = 64
LATENCY_SECONDS_START = 0.05
P95 = 0.95


class Latency:
    """Read latencies of one node: an exponential average, and the p95 of the last samples."""

    __slots__ = ("_samples", "_since_sort", "average", "p95")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=LATENCY_SAMPLES)
        self._since_sort = 0
        self.average = 0.0
        self.p95 = LATENCY_SECONDS_START

    def record(self, seconds: float) -> None:
        self.average += (seconds - self.average) / 8 if self._samples else seconds
        self._samples.append(seconds)
        self._since_sort += 1
        if self._since_sort >= LATENCY_SAMPLES // 4:
            self._since_sort = 0
            ordered = sorted(self._samples)
            self.p95 = ordered[int(P95 * (len(ordered) - 1))]


class Node:
    """One node: its drive, where it is, and how it has behaved."""

    __slots__ = (
        "_failing_since",
        "_failures",
        "_full_until",
        "_here",
        "_suspect_until",
        "drive",
        "failing",
        "failures_total",
        "host",
        "id",
        "latency",
        "member",
        "state",
        "zone",
    )

    def __init__(self, node_id: str, zone: str, drive: Drive, host: str = "") -> None:
        self.id = node_id
        self.zone = zone
        self.host = host or node_id
        self.drive = drive
        self.state = ACTIVE
        self.failing = False
        self.failures_total = 0
        self._here = True
        self.member = True
        self.latency = Latency()
        self._failures = 0
        self._failing_since: float | None = None
        self._suspect_until = 0.0
        self._full_until = 0.0

    @property
    def live(self) -> bool:
        """Whether it is up: membership has it, and no operator wants it to count as down."""
        return self._here and not self.failing

    @live.setter
    def live(self, here: bool) -> None:
        self._here = here

    def suspect(self, now: float) -> bool:
        """Whether it has just failed, so that it is not asked for a while."""
        return now < self._suspect_until

    def usable(self, now: float) -> bool:
        """Whether to send it new work: up, and not suspect at the moment."""
        return self.live and now >= self._suspect_until

    @property
    def counts(self) -> bool:
        """Whether a reference may name it: the layout has it and does not empty it. A shard on
        another node would be in nobody's books, or soon be lost."""
        return self.member and self.state in (ACTIVE, CORDONED)

    def writable(self, now: float) -> bool:
        """Whether to send it new shards of its own slots: the layout has it and has not given it
        up, it is well and not full."""
        return self.member and self.state != OUT and self.usable(now) and not self.is_full(now)

    def takes_spares(self, now: float) -> bool:
        """Whether to send it shards of other nodes' slots."""
        return self.writable(now) and self.state == ACTIVE

    def is_full(self, now: float) -> bool:
        """Whether it has just refused a shard for want of space."""
        return now < self._full_until

    def full(self, now: float) -> None:
        """It refused a shard for want of space; it still serves what it has."""
        self._full_until = now + FULL_SECONDS

    def failed(self, now: float) -> None:
        """A call failed in a way that the node is to blame for."""
        self.failures_total += 1
        if self._failing_since is None:
            self._failing_since = now
        pause = min(SUSPECT_SECONDS_MAX, SUSPECT_SECONDS_MIN * 2**self._failures)
        self._failures = min(self._failures + 1, 8)
        self._suspect_until = now + pause

    def failing_seconds(self, now: float) -> float:
        """For how long no call has succeeded, while its breaker is open; else 0."""
        if self._failing_since is None or now >= self._suspect_until:
            return 0.0
        return now - self._failing_since

    def answered(self) -> None:
        self._failures = 0
        self._failing_since = None
        self._suspect_until = 0.0


class Directory:
    """All nodes known to this process, by id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._nodes: dict[str, Node] = {}

    def add(self, node: Node) -> None:
        self._nodes[node.id] = node

    def remove(self, node_id: str) -> Node | None:
        return self._nodes.pop(node_id, None)

    def get(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def all(self) -> Iterable[Node]:
        return list(self._nodes.values())

    def usable(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and node.usable(self.clock())

    def usable_nodes(self) -> list[Node]:
        now = self.clock()
        return [node for node in self._nodes.values() if node.usable(now)]

    def writable_nodes(self) -> list[Node]:
        """The nodes that take shards of their own slots."""
        now = self.clock()
        return [node for node in self._nodes.values() if node.writable(now)]

    def spare_nodes(self) -> list[Node]:
        """The nodes that take shards of other nodes' slots."""
        now = self.clock()
        return [node for node in self._nodes.values() if node.takes_spares(now)]

    def any_full(self) -> bool:
        """Whether a live node takes no shards for want of space."""
        now = self.clock()
        return any(node.usable(now) and node.is_full(now) for node in self._nodes.values())
