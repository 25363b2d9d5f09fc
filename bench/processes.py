"""What the server's processes cost, from the operating system's accounting (/proc).

CPU is user + system time of whole process trees. A process's `cutime` and `cstime` hold what its
dead children used, so a worker that ended during a measurement is counted too. The kernel counts in
clock ticks (10 ms), so a step should burn a second or more.

Memory is the resident set. The kernel keeps its high-water mark, which can be reset by writing 5 to
/proc/PID/clear_refs (proc(5)): nothing is sampled, so no peak is missed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_KIB = 1024
_SETTLE_SAMPLE_SECONDS = 2.0
_SETTLE_SECONDS_MAX = 60.0
_SETTLED_SHARE = 0.1  # of one core


@dataclass(frozen=True)
class _Stat:
    pid: int
    parent: int
    cpu_seconds: float


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended between the listing and the reading
    fields = text.rpartition(")")[2].split()  # the name before may contain anything
    # From `state`, field 3 of proc(5): ppid is 4, utime to cstime are 14 to 17.
    return _Stat(pid, int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)


def _all() -> list[_Stat]:
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [stat for stat in map(_stat, pids) if stat is not None]


def trees(roots: Sequence[int]) -> list[_Stat]:
    """The living processes of the trees that begin at `roots`."""
    everything = _all()
    members = set(roots)
    grown = True
    while grown:
        children = {stat.pid for stat in everything if stat.parent in members}
        grown = not children <= members
        members |= children
    return [stat for stat in everything if stat.pid in members]


@dataclass(frozen=True)
class Growth:
    """Resident memory above the mark, in bytes: of the process that grew most, and of all."""

    process_bytes_max: int
    all_bytes: int


class Servers:
    """The processes to account: `pids` are roots of trees, `gateways` those of the S3 servers."""

    def __init__(self, pids: Sequence[int], gateways: Sequence[int] | None = None) -> None:
        self._pids = list(pids)
        self._gateways = list(pids if gateways is None else gateways)
        self._idle: dict[int, int] = {}

    @property
    def known(self) -> bool:
        return bool(self._pids)

    def cpu_seconds(self) -> float:
        return sum(stat.cpu_seconds for stat in trees(self._pids))

    def wait_until_settled(self) -> None:
        """Return when the servers are at rest: their workers look over the whole store when they
        start, which is no part of what is measured."""
        give_up = time.monotonic() + _SETTLE_SECONDS_MAX
        before = self.cpu_seconds()
        while time.monotonic() < give_up:
            time.sleep(_SETTLE_SAMPLE_SECONDS)
            now = self.cpu_seconds()
            if now - before < _SETTLED_SHARE * _SETTLE_SAMPLE_SECONDS:
                return
            before = now

    def process_count(self) -> int:
        return len(trees(self._pids))

    def resident_bytes(self) -> int:
        return sum(_memory(stat.pid, "VmRSS") for stat in trees(self._pids))

    def mark_idle(self) -> None:
        """Take the present memory as that of a store at rest; do so before any load."""
        self._idle = {stat.pid: _memory(stat.pid, "VmRSS") for stat in trees(self._pids)}

    def watch_peak(self) -> None:
        """Forget earlier peaks."""
        for stat in trees(self._pids):
            (_PROC / str(stat.pid) / "clear_refs").write_text("5")

    def memory_growth(self) -> Growth:
        """The peak since `watch_peak` above `mark_idle`; a younger process counts from nothing."""
        gateways = {stat.pid for stat in trees(self._gateways)}
        growth = {
            stat.pid: _memory(stat.pid, "VmHWM") - self._idle.get(stat.pid, 0)
            for stat in trees(self._pids)
        }
        largest = max((growth[pid] for pid in gateways & growth.keys()), default=0)
        return Growth(largest, sum(growth.values()))


def _memory(pid: int, name: str) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * _KIB
    return 0
