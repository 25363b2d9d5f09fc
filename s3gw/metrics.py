"""Counters and latencies of this process, in the Prometheus text format.

Labels come from fixed sets alone (operation names of the route table, status codes), so that no
client can make the number of series grow.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What `/metrics` of the admin port shows for one process."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._latencies: dict[str, list[int]] = {}
        self._latency_sums: dict[str, float] = defaultdict(float)
        self._counters: dict[str, int] = defaultdict(int)

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[operation, status] += 1
        histogram = self._latencies.get(operation)
        if histogram is None:
            histogram = self._latencies[operation] = [0] * (len(BUCKETS_SECONDS) + 1)
        histogram[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self._latency_sums[operation] += seconds

    def count(self, name: str, by: int = 1) -> None:
        """Add to a plain counter, for example `s3gw_damaged_fragments_total`."""
        self._counters[name] += by

    def render(self) -> str:
        """The text that Prometheus scrapes. Called in the event loop: it counts its tasks."""
        lines = ["# TYPE s3gw_requests_total counter"]
        for (operation, status), number in sorted(self._requests.items()):
            lines.append(
                f's3gw_requests_total{{operation="{operation}",status="{status}"}} {number}'
            )
        lines.append("# TYPE s3gw_request_seconds histogram")
        for operation, histogram in sorted(self._latencies.items()):
            lines += self._histogram(operation, histogram)
        for name, number in sorted(self._counters.items()):
            lines += [f"# TYPE {name} counter", f"{name} {number}"]
        lines += ["# TYPE s3gw_tasks gauge", f"s3gw_tasks {len(asyncio.all_tasks())}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, operation: str, histogram: list[int]) -> list[str]:
        name = "s3gw_request_seconds"
        lines = []
        total = 0
        for bound, number in zip((*BUCKETS_SECONDS, "+Inf"), histogram, strict=True):
            total += number
            lines.append(f'{name}_bucket{{operation="{operation}",le="{bound}"}} {total}')
        seconds = self._latency_sums[operation]
        lines.append(f'{name}_sum{{operation="{operation}"}} {seconds:.6f}')
        lines.append(f'{name}_count{{operation="{operation}"}} {total}')
        return lines
