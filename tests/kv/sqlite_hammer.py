"""A process that increments one counter in the SQLite engine, as one gateway of several.

    python -m tests.kv.sqlite_hammer METADATA_DIR COPIES TIMES [DRIVE …]

It prints each value that was acknowledged to it, one per line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from s3gw.kv.interface import At, Conflict, Put
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import SqliteKV

TASKS = 3


async def hammer(metadata_dir: Path, copies: int, times: int, drives: list[Path]) -> None:
    journal = Journal(drives, copies, segment_bytes=20_000) if drives else None
    engine = await SqliteKV.open(metadata_dir, journal)

    async def count() -> None:
        left = times // TASKS
        while left:
            (item,) = (await engine.get_many([b"count"])).items
            value, revision = (int(item.value), item.revision) if item else (0, 0)
            try:
                await engine.commit(
                    [At(b"count", revision)],
                    [Put(b"count", b"%d" % (value + 1)), Put(b"by/%d" % (value + 1), bytes(50))],
                )
            except Conflict:
                continue
            print(value + 1, flush=True)
            left -= 1

    await asyncio.gather(*(count() for _ in range(TASKS)))
    await engine.close()


if __name__ == "__main__":
    asyncio.run(
        hammer(
            Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(d) for d in sys.argv[4:]]
        )
    )
