"""Listings against a model: sorting and folding all keys, then cutting pages."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.kv.interface import Put
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import Description, ObjectRecord, UploadRecord
from s3gw.metadata.store import Transaction
from s3gw.objects.listing import folded, objects_of, page, uploads_of
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

TEXT = st.text(alphabet="ab/\x01é\U0010ffff -", min_size=1, max_size=6)


class RangeCostsKV(MemoryKV):
    """Listings read fences first, as on etcd."""

    range_costs_its_size = True


async def store_of(names: list[str], *, fenced: bool) -> Process:
    cluster = MemoryCluster(6)
    await cluster.found()
    process = await cluster.process(RangeCostsKV(cluster.engine) if fenced else None)
    for name in names:
        tx = Transaction()
        record = ObjectRecord(1, 0, "owner", len(name), "etag", None, Description())
        process.storage.store.put_listed(tx, keys.object_(BUCKET, name), record)
        await process.storage.store.apply(tx)
    return process


def expected(names: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """What all pages together show, in order: keys and common prefixes."""
    shown: dict[bytes, str] = {}
    for name in names:
        if name.startswith(prefix) and name.encode() > after.encode():
            common = folded(name, prefix, delimiter)
            if common != after or not common:
                shown[(common or name).encode()] = common or name
    return [shown[key] for key in sorted(shown)]


async def all_pages(process: Process, prefix: str, delimiter: str, most: int) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        listing = await page(
            process.storage,
            objects_of(BUCKET),
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            most=most,
        )
        assert len(listing) <= most
        shown = sorted([e.key for e in listing.entries] + listing.prefixes, key=str.encode)
        assert not listing.truncated or shown[-1] == listing.last
        found += shown
        if not listing.truncated:
            return found
        after = listing.last


@settings(max_examples=150, deadline=None)
@given(
    st.lists(TEXT, max_size=25, unique=True),
    st.text(alphabet="ab/", max_size=2),
    st.sampled_from(["", "/", "a", "/b"]),
    st.integers(1, 5),
    st.booleans(),
)
def test_pages_together_show_every_key_and_prefix_once_in_byte_order(
    names: list[str], prefix: str, delimiter: str, most: int, fenced: bool
) -> None:
    async def check() -> None:
        process = await store_of(names, fenced=fenced)
        found = await all_pages(process, prefix, delimiter, most)
        assert found == expected(names, prefix, delimiter, "")

    asyncio.run(check())


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=20, unique=True), st.sampled_from(["", "/"]), TEXT)
def test_a_page_begins_behind_any_marker(names: list[str], delimiter: str, after: str) -> None:
    async def check() -> None:
        process = await store_of(names, fenced=False)
        listing = await page(
            process.storage,
            objects_of(BUCKET),
            prefix="",
            delimiter=delimiter,
            after=after,
            most=1000,
        )
        shown = sorted([e.key for e in listing.entries] + listing.prefixes, key=str.encode)
        assert shown == expected(names, "", delimiter, after)

    asyncio.run(check())


async def test_a_fence_in_the_way_hides_no_key(memory_cluster: MemoryCluster) -> None:
    """Of many keys some carry fences; pages end at them and go on behind them."""
    names = [f"{number:05}" for number in range(3000)]
    process = await store_of(names, fenced=True)
    some = [keys.fence(keys.object_(BUCKET, name)) for name in names[500::1000]]
    await process.kv.commit([], [Put(fence, b"") for fence in some])
    assert await all_pages(process, "", "", 1000) == names


async def test_uploads_of_one_key_come_in_order_of_their_ids(memory_store: Process) -> None:
    ids = [bytes([number]) * 16 for number in (3, 1, 2)]
    for name in ("k", "k\x01", "k/x"):
        for upload_id in ids:
            tx = Transaction()
            record = UploadRecord(0, "owner", Description())
            memory_store.storage.store.put_listed(tx, keys.upload(BUCKET, name, upload_id), record)
            await memory_store.storage.store.apply(tx)
    seen: list[tuple[str, bytes]] = []
    after, mark = "", None
    while True:
        listing = await page(
            memory_store.storage,
            uploads_of(BUCKET),
            prefix="",
            delimiter="",
            after=after,
            after_mark=mark,
            most=2,
        )
        seen += [(entry.key, entry.mark) for entry in listing.entries]
        if not listing.truncated:
            break
        after, mark = listing.last, listing.last_mark
    assert seen == [(name, i) for name in ("k", "k\x01", "k/x") for i in sorted(ids)]
