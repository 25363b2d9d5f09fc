"""Whether processes grow: memory, descriptors and tasks sampled while a store is under load, and a
line laid through the second half of each series (the first is for caches and pools to fill).

A worker that dies takes its series with it: only processes that live long enough are judged.
"""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compose.local import Cluster, Process
from tests.attacks.target import tasks, workers

SAMPLE_SECONDS = 1.0
SAMPLES_MIN = 20
MIB = 1 << 20
# What the line may rise over the time it is laid through: an amount, or a share of the mean.
BOUNDS = {"memory": (48 * MIB, 0.2), "descriptors": (24, 0.2), "tasks": (24, 0.2)}

Series = list[tuple[float, float]]
"""Times in seconds, and what was there."""


def rise(series: Sequence[tuple[float, float]]) -> float:
    """By how much the line of least squares through a series rises from its first to its last
    moment.

    >>> rise([(0, 1), (1, 3), (2, 5)])
    4.0
    """
    times, values = zip(*series, strict=True)
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((when - middle) ** 2 for when in times)
    slope = sum((when - middle) * (value - mean) for when, value in series) / spread
    return float(slope * (times[-1] - times[0]))


def growing(kind: str, series: Series) -> str:
    """What is wrong with a series; "" when its second half does not rise, or it is too short."""
    if len(series) < SAMPLES_MIN:
        return ""
    late = series[len(series) // 2 :]
    mean = sum(value for _, value in late) / len(late)
    amount, share = BOUNDS[kind]
    risen = rise(late)
    if risen <= max(amount, share * mean):
        return ""
    return f"{kind} rose by {risen:.0f} to {late[-1][1]:.0f} in {late[-1][0] - late[0][0]:.0f} s"


@dataclass
class Growth:
    """The samples of all gateways and nodes of a cluster."""

    cluster: Cluster
    series: dict[tuple[str, int, str], Series] = field(default_factory=lambda: defaultdict(list))

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample in the background until left."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(SAMPLE_SECONDS):
            for each in (*self.cluster.gateways, *self.cluster.nodes):
                for pid in _alive(each.process):
                    self._look(each.process, pid)
            for gateway in self.cluster.gateways:
                for pid in _alive(gateway.process):
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        self._add(gateway.process, pid, "tasks", tasks(gateway.admin))

    def _look(self, process: Process, pid: int) -> None:
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError, IndexError):
            resident = int((folder / "statm").read_text().split()[1]) * 4096
            opened = sum(1 for _ in (folder / "fd").iterdir())
            self._add(process, pid, "memory", resident)
            self._add(process, pid, "descriptors", opened)

    def _add(self, process: Process, pid: int, kind: str, value: float) -> None:
        self.series[process.tag, pid, kind].append((time.monotonic(), value))

    def troubles(self) -> list[str]:
        """What grows."""
        found = []
        for (tag, pid, kind), series in sorted(self.series.items()):
            if trouble := growing(kind, series):
                found.append(f"{tag} ({pid}): {trouble}")
        return found

    def judged(self) -> set[tuple[str, str]]:
        """Tags and kinds of which a series is long enough."""
        return {
            (tag, kind)
            for (tag, _, kind), series in self.series.items()
            if len(series) >= SAMPLES_MIN
        }


def _alive(process: Process) -> list[int]:
    """The workers of a process; none while it is away."""
    if not process.running():
        return []
    with contextlib.suppress(OSError):
        return workers(process)
    return []
