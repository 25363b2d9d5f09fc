"""Reading ahead in a queue in order of time (`s3gw.workers.due`): what is put off to a later time.

Slices of time are read that hold about a page, since a range of keys costs what is in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from s3gw.kv.interface import KV, Item
from s3gw.metadata import keys
from s3gw.workers.due import PAUSE_PARTS_LAST, SLICE_MS, SLICE_MS_MAX

PAGE_ENTRIES = 500
SLICE_MS_FIRST = 60_000
WIDER_WHEN_EMPTY = 8


def put_off_until(now_ms: int, day_ms: int) -> int:
    """No entry is put off to a later time than this: see `s3gw.workers.due.pause_ms`."""
    return now_ms + day_ms // PAUSE_PARTS_LAST * 5 // 4 + 1


async def entries_between(
    kv: KV, queue: bytes, after_ms: int, until_ms: int
) -> AsyncGenerator[list[Item], None]:
    """The entries of a span of time that are there when it begins to read, a page at a time. What
    is written meanwhile is left out, or an entry that is put off would be met again and again.
    Raises EngineError."""
    begun = (await kv.get_many([])).revision
    position, slice_end_ms, width_ms = keys.due_until(queue, after_ms), after_ms, SLICE_MS_FIRST
    while position < keys.due_until(queue, until_ms):
        if position >= keys.due_until(queue, slice_end_ms):
            slice_end_ms = min(until_ms, slice_end_ms + width_ms)
        end = keys.due_until(queue, slice_end_ms)
        page = await kv.scan(position, end, limit=PAGE_ENTRIES)
        yield [item for item in page.items if item.revision <= begun]
        if page.more:
            last = page.items[-1].key
            position, width_ms = last + b"\x00", max(SLICE_MS, width_ms // 2)
            slice_end_ms = min(slice_end_ms, keys.due_time(queue, last) + width_ms)
            continue
        position = end
        if len(page.items) < PAGE_ENTRIES // 2:
            wider = 2 if page.items else WIDER_WHEN_EMPTY
            width_ms = min(wider * width_ms, SLICE_MS_MAX)
