"""What the machine takes, at this hour, for work that no store is spared. Figures of two machines,
or of one at two times, compare as multiples of it.

A PUT with 4+2 cannot do without an MD5 of the body (the ETag) and one and a half times its bytes in
files that are synced. A small request is Python, mostly.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from bench.results import Row, percentile

ROUNDS = 7
BODY_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
FILES, DATA_FILES = 6, 4
STEPS = 1_000_000
MB = 1_000_000


def put_yardstick(directory: Path) -> Row:
    """MD5 of 64 MiB, and its shards into six files: CPU of this process per MB of the body."""
    piece = memoryview(os.urandom(PIECE_BYTES))
    folder = directory / f"yardstick-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)

    def put() -> None:
        digest = hashlib.md5(usedforsecurity=False)
        for _ in range(BODY_BYTES // PIECE_BYTES):
            digest.update(piece)
        for name in map(str, range(FILES)):
            with (folder / name).open("wb", buffering=0) as file:
                for _ in range(BODY_BYTES // PIECE_BYTES // DATA_FILES):
                    file.write(piece)
                os.fsync(file.fileno())
            (folder / name).unlink()

    wall, cpu = _median_seconds(put)
    folder.rmdir()
    megabytes = BODY_BYTES / MB
    return _row(
        "yardstick: MD5 and 6 synced files", megabytes / wall, "MB/s", wall, cpu / megabytes
    )


def python_yardstick() -> Row:
    """A million steps of a loop in Python: CPU per thousand of them."""

    def count() -> None:
        total = 0
        for step in range(STEPS):
            total += step & 7

    wall, cpu = _median_seconds(count)
    return _row("yardstick: 1,000 steps of Python", STEPS / 1000 / wall, "/s", wall, cpu / 1000)


def _median_seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Time by the clock, and CPU time of the process."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return percentile(sorted(walls), 0.5), percentile(sorted(cpus), 0.5)


def _row(name: str, rate: float, rate_unit: str, wall: float, cpu: float) -> Row:
    return Row(
        name=name,
        kind=None,
        rate=rate,
        rate_unit=rate_unit,
        p50_ms=wall * 1000,
        p99_ms=None,
        cpu_ms=None,
        cpu_unit="ms/MB" if rate_unit == "MB/s" else "ms",
        judged=None,
        judged_unit="",
        client_cpu_ms=cpu * 1000,
    )
