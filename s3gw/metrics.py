"""What `/metrics` shows, in the Prometheus text format, summed over a gateway's processes.

The processes of a gateway share its ports, so that a scrape is answered by any one of them. Each
publishes what it has counted on a *board* of its own every few seconds: a memory file (memfd) that
the supervisor's starter made and all processes inherit. Whoever answers adds up its own figures of
this moment and the boards of the others. Memory files need no folder and no cleaning, whoever dies.
A process started in the place of one that died finds that one's board and counts on from there, so
that no counter goes backwards.

Labels come from fixed sets alone (operation names of the route table, status codes, node ids of
the layout), so that no client can make the number of series grow. FAMILIES is the whole list.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

log = logging.getLogger(__name__)

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PUBLISH_SECONDS = 2.0
BOARD_PREFIX = "metrics-"
# Two snapshots, of which one is whole whenever the process may die. Only written pages take memory.
HALF_BYTES = 1 << 20

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its kind, its labels, and what it says."""

    kind: str
    labels: tuple[str, ...]
    help: str


FAMILIES: dict[str, Family] = {
    "s3gw_requests_total": Family(COUNTER, ("operation", "status"), "S3 requests answered"),
    "s3gw_request_seconds": Family(HISTOGRAM, ("operation",), "time to answer an S3 request"),
    "s3gw_damaged_fragments_total": Family(
        COUNTER, (), "missing or damaged shards that reads have met"
    ),
    "s3gw_hedged_reads_total": Family(COUNTER, (), "shards asked for because another was late"),
    "s3gw_node_failures_total": Family(
        COUNTER, ("node",), "calls to a node that failed and that it is to blame for"
    ),
    "s3gw_node_suspect": Family(
        GAUGE, ("node",), "processes of this gateway that avoid the node (breaker open)"
    ),
    "s3gw_lifecycle_actions_total": Family(
        COUNTER,
        ("action",),
        "versions removed, hidden behind markers and moved to another class, markers removed, "
        "uploads aborted, by lifecycle rules",
    ),
    "s3gw_access_log_lines_total": Family(
        COUNTER, ("outcome",), "lines of bucket access logs, delivered and dropped"
    ),
    "s3gw_merge_alarms": Family(
        GAUGE, (), "groups where nothing is removed because too many blobs have no reference"
    ),
    "s3gw_rebuild_held_down": Family(
        GAUGE, (), "1: many nodes vanished at once, and rebuild waits"
    ),
    "s3gw_tasks": Family(GAUGE, (), "tasks of the event loops"),
    "s3gw_processes": Family(GAUGE, (), "processes of this gateway whose figures are in the sums"),
    "s3gw_health_score": Family(GAUGE, (), "0 to 100, as in GET /health"),
    "s3gw_nodes_known": Family(GAUGE, (), "nodes registered or in the layout"),
    "s3gw_nodes_live": Family(GAUGE, (), "nodes that are up"),
    "s3gw_capacity_bytes": Family(GAUGE, (), "size of all live drives"),
    "s3gw_free_bytes": Family(GAUGE, (), "free space of all live drives"),
    "s3gw_damaged_revisions": Family(
        GAUGE, (), "revisions of placement groups on live drives that were damaged, not yet healed"
    ),
    "s3gw_layout_epoch": Family(GAUGE, (), "epoch of the layout"),
    "s3gw_engine_used_bytes": Family(GAUGE, (), "size of the metadata engine"),
    "s3gw_engine_quota_bytes": Family(GAUGE, (), "its quota; 0 when only the disk limits it"),
    "s3gw_ledger_blobs": Family(
        GAUGE, ("redundancy",), "blobs at full, reduced, critical and lost redundancy"
    ),
    "s3gw_ledger_bytes": Family(GAUGE, ("redundancy",), "their bytes, before coding"),
    "s3gw_rebalance_groups_left": Family(GAUGE, (), "groups that are not where the layout wants"),
    "s3gw_rebalance_bytes_left": Family(GAUGE, (), "bytes to be copied for them (estimated)"),
    "s3gw_rebalance_bytes_per_second": Family(GAUGE, (), "rate of the copying"),
    "s3gw_scrub_groups_done": Family(GAUGE, (), "groups verified in the present round"),
    "s3gw_scrub_finished_timestamp_seconds": Family(GAUGE, (), "end of the last round; 0: never"),
    "s3gw_scrub_damaged": Family(GAUGE, (), "damaged or missing shards in both rounds"),
    "s3gw_groups_moving": Family(GAUGE, (), "placement groups whose shards are being moved"),
    "s3gw_groups_degraded": Family(GAUGE, (), "placement groups that are not at full redundancy"),
    "s3gw_repairs_waiting": Family(GAUGE, (), "blobs in the repair queue"),
    "s3gw_repair_oldest_seconds": Family(GAUGE, (), "age of the oldest of them"),
}
"""Every metric, by name."""

Labels = tuple[str, ...]
Samples = Mapping[tuple[str, Labels], float]
"""Values by name and label values."""


class Snapshot(msgspec.Struct, array_like=True):
    """The figures of one process, or their sum. `histograms` have counts per bucket (the last one
    is above all bounds) and the sum of what was observed."""

    counters: dict[str, dict[Labels, float]] = {}
    gauges: dict[str, dict[Labels, float]] = {}
    histograms: dict[str, dict[Labels, tuple[list[int], float]]] = {}

    def add(self, other: Snapshot, *, gauges: bool = True) -> None:
        """Add another process's figures, by default with its gauges."""
        for name, values in other.counters.items():
            _add(self.counters.setdefault(name, {}), values)
        for name, values in other.gauges.items() if gauges else ():
            _add(self.gauges.setdefault(name, {}), values)
        for name, observed in other.histograms.items():
            mine = self.histograms.setdefault(name, {})
            for labels, (counts, total) in observed.items():
                old, old_total = mine.get(labels, ([0] * len(counts), 0.0))
                summed = [a + b for a, b in zip(old, counts, strict=True)]
                mine[labels] = (summed, old_total + total)


def _add(into: dict[Labels, float], values: Mapping[Labels, float]) -> None:
    for labels, value in values.items():
        into[labels] = into.get(labels, 0) + value


class Metrics:
    """The figures of this process."""

    def __init__(self) -> None:
        self._before = Snapshot()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._latencies: dict[str, list[int]] = {}
        self._latency_sums: dict[str, float] = defaultdict(float)
        self._counters: dict[str, int] = defaultdict(int)
        self._collectors: list[Callable[[], Samples]] = []

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[operation, status] += 1
        histogram = self._latencies.get(operation)
        if histogram is None:
            histogram = self._latencies[operation] = [0] * (len(BUCKETS_SECONDS) + 1)
        histogram[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self._latency_sums[operation] += seconds

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter without labels."""
        self._counters[name] += by

    def collect(self, collector: Callable[[], Samples]) -> None:
        """Ask `collector` for figures that are kept elsewhere, whenever they are wanted. Its
        counters start at zero with this process."""
        self._collectors.append(collector)

    def count_on_from(self, before: Snapshot) -> None:
        """Start from the counters of the process that this one replaces."""
        self._before = before

    def snapshot(self) -> Snapshot:
        """The figures of this moment. Called in the event loop: it counts its tasks."""
        now = Snapshot()
        now.add(self._before, gauges=False)
        mine = Snapshot(
            counters={
                "s3gw_requests_total": {
                    (operation, str(status)): number
                    for (operation, status), number in self._requests.items()
                },
                **{name: {(): number} for name, number in self._counters.items()},
            },
            gauges={"s3gw_tasks": {(): len(asyncio.all_tasks())}, "s3gw_processes": {(): 1}},
            histograms={
                "s3gw_request_seconds": {
                    (operation,): (list(counts), self._latency_sums[operation])
                    for operation, counts in self._latencies.items()
                }
            },
        )
        for collector in self._collectors:
            for (name, labels), value in collector().items():
                kind = mine.counters if FAMILIES[name].kind == COUNTER else mine.gauges
                kind.setdefault(name, {})[labels] = value
        now.add(mine)
        return now


class Board:
    """The last snapshot of one process, in a memory file. One process writes, any read."""

    _HEAD = struct.Struct("!QII")  # sequence, length, CRC-32 of both and of the data

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sequence, _ = self._newest()

    @classmethod
    def make(cls, name: str) -> int:
        """A new empty board; its descriptor, to be inherited."""
        fd = os.memfd_create(name)
        os.ftruncate(fd, 2 * HALF_BYTES)
        return fd

    def write(self, snapshot: Snapshot) -> None:
        """Replace the older of the two halves."""
        data = msgspec.msgpack.encode(snapshot)
        if len(data) > HALF_BYTES - self._HEAD.size:
            log.warning("%d bytes of metrics do not fit on the board", len(data))
            return
        self._sequence += 1
        head = self._HEAD.pack(self._sequence, len(data), self._sum(self._sequence, data))
        os.pwrite(self._fd, head + data, self._sequence % 2 * HALF_BYTES)

    def read(self) -> Snapshot | None:
        """The newest whole snapshot; None before the first."""
        _, snapshot = self._newest()
        return snapshot

    def _newest(self) -> tuple[int, Snapshot | None]:
        found: tuple[int, Snapshot | None] = (0, None)
        for half in (0, HALF_BYTES):
            head = os.pread(self._fd, self._HEAD.size, half)
            if len(head) < self._HEAD.size:
                continue
            sequence, length, checksum = self._HEAD.unpack(head)
            data = os.pread(self._fd, min(length, HALF_BYTES), half + self._HEAD.size)
            if sequence > found[0] and self._sum(sequence, data) == checksum:
                found = (sequence, msgspec.msgpack.decode(data, type=Snapshot))
        return found

    @staticmethod
    def _sum(sequence: int, data: bytes) -> int:
        return zlib.crc32(data, sequence & 0xFFFFFFFF)


def boards_of(processes: int) -> dict[str, int]:
    """A board for each of the processes that a supervisor will run, as descriptors by name."""
    return {
        f"{BOARD_PREFIX}{index}": Board.make(f"{BOARD_PREFIX}{index}") for index in range(processes)
    }


class SharedMetrics:
    """The figures of all processes of a gateway, as one of them sees them."""

    def __init__(self, metrics: Metrics, index: int = 0, fds: Mapping[str, int] | None = None):
        """`fds` are the inherited descriptors, the boards among them; without, this process is
        alone."""
        self._metrics = metrics
        boards = {
            name: Board(fd) for name, fd in (fds or {}).items() if name.startswith(BOARD_PREFIX)
        }
        self._own = boards.pop(f"{BOARD_PREFIX}{index}", None)
        self._others = list(boards.values())
        before = self._own.read() if self._own is not None else None
        if before is not None:
            metrics.count_on_from(before)

    def publish(self) -> None:
        """Put this process's figures on its board."""
        if self._own is not None:
            self._own.write(self._metrics.snapshot())

    async def keep_publishing(self) -> None:
        """Publish for ever."""
        while True:
            self.publish()
            await asyncio.sleep(PUBLISH_SECONDS)

    def gauge(self, name: str) -> float:
        """The sum of a gauge over all processes."""
        return sum(self.total().gauges.get(name, {}).values())

    def total(self) -> Snapshot:
        """The figures of all processes: of this one now, of the others as last published."""
        total = self._metrics.snapshot()
        for board in self._others:
            theirs = board.read()
            if theirs is not None:
                total.add(theirs)
        return total

    def render(self, facts: Samples | None = None) -> str:
        """The text that Prometheus scrapes: the sums, and `facts`, which are of the whole store
        and the same in every process. Publishes first: a counter that was told may not go back
        when this process is killed."""
        self.publish()
        total = self.total()
        for (name, labels), value in (facts or {}).items():
            total.gauges.setdefault(name, {})[labels] = value
        return render(total)


def render(total: Snapshot) -> str:
    """Figures in the Prometheus text format, in the order of FAMILIES."""
    lines: list[str] = []
    for name, family in FAMILIES.items():
        if family.kind == HISTOGRAM:
            body = _histogram_lines(name, family, total.histograms.get(name, {}))
        else:
            values = (total.counters if family.kind == COUNTER else total.gauges).get(name, {})
            body = [f"{name}{_labels(family, k)} {_number(values[k])}" for k in sorted(values)]
        if body:
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}", *body]
    return "\n".join(lines) + "\n"


def _histogram_lines(
    name: str, family: Family, observed: Mapping[Labels, tuple[list[int], float]]
) -> Iterable[str]:
    lines = []
    for labels, (counts, total) in sorted(observed.items()):
        cumulated = 0
        for bound, number in zip((*BUCKETS_SECONDS, "+Inf"), counts, strict=True):
            cumulated += number
            lines.append(f"{name}_bucket{_labels(family, labels, f'{bound}')} {cumulated}")
        lines.append(f"{name}_sum{_labels(family, labels)} {total:.6f}")
        lines.append(f"{name}_count{_labels(family, labels)} {cumulated}")
    return lines


def _labels(family: Family, values: Sequence[str], bound: str = "") -> str:
    pairs = [f'{name}="{_escaped(text)}"' for name, text in zip(family.labels, values, strict=True)]
    if bound:
        pairs.append(f'le="{bound}"')
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Whole numbers without a point: a byte count must not lose digits."""
    return str(int(value)) if value == int(value) else repr(value)
