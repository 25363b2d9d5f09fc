"""Moving an object of many parts: what that costs of the metadata grows with their number only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from s3gw import limits
from s3gw.kv.interface import Guard, Item, Page, Write
from s3gw.metadata import keys
from s3gw.objects import complete as completing
from s3gw.workers import reencode, reprofile
from s3gw.workers.reprofile import Reprofiler
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import complete, get, part, start
from tests.workers.test_reprofile import WIDE, check, homes, job_of, make_wide

PER_PAGE = 10


@pytest.fixture
async def process(memory_store: Process, monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)
    monkeypatch.setattr(completing, "PAGE_PARTS", PER_PAGE)
    monkeypatch.setattr(reencode, "PAGE_PARTS", PER_PAGE)
    await make_wide(memory_store)
    return memory_store


class Pages:
    """Manifest pages that were read and written."""

    def __init__(self, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[bytes] = Counter()
        self.written: Counter[bytes] = Counter()
        kv = process.kv
        commit, scan, get_many = kv.commit, kv.scan, kv.get_many

        def note(items: Sequence[Item | None]) -> None:
            self.read.update(_pages(item.key for item in items if item is not None))

        async def counting_commit(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
            revision = await commit(guards, writes)
            self.written.update(_pages(write.key for write in writes))
            return revision

        async def counting_scan(*args: Any, **more: Any) -> Page:
            page = await scan(*args, **more)
            note(page.items)
            return page

        async def counting_get(wanted: Sequence[bytes]) -> Any:
            reading = await get_many(wanted)
            note(reading.items)
            return reading

        monkeypatch.setattr(kv, "commit", counting_commit)
        monkeypatch.setattr(kv, "scan", counting_scan)
        monkeypatch.setattr(kv, "get_many", counting_get)


def _pages(found: Any) -> list[bytes]:
    return [key for key in found if key.startswith(keys.MANIFESTS)]


async def fill(process: Process, numbers: Sequence[int]) -> bytes:
    upload = await start(process, "k")
    for number in numbers:
        await part(process, "k", upload, number, b"part %d " % number)
    await complete(process, "k", upload)
    return b"".join(b"part %d " % number for number in numbers)


async def move(process: Process) -> None:
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage)
    while await worker.work():
        pass
    assert (await job_of(process)).state == reprofile.DONE
    assert homes(process) <= {WIDE, f"{WIDE}.small", process.topology.profile(WIDE).companion}


async def test_each_part_costs_its_own_page_and_no_more(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 6 * PER_PAGE
    data = await fill(process, range(1, count + 1))
    pages = Pages(process, monkeypatch)
    await move(process)
    assert sorted(pages.written.values()) == [PER_PAGE] * 6, "no part has lost to another one"
    # Once for each of its parts, and by each walk.
    assert max(pages.read.values()) <= PER_PAGE + (await job_of(process)).rounds
    await check(process, {"k": data})


async def test_parts_are_found_where_numbers_were_left_out(process: Process) -> None:
    numbers = [1, 2, 40, *range(100, 100 + 2 * PER_PAGE), 5000, 10_000]
    data = await fill(process, numbers)
    await move(process)
    assert await get(process, "k") == data
