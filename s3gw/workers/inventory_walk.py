"""All versions of a bucket at one revision of the metadata, page by page, in the order of keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.store import Store
from s3gw.workers.inventory_encoder import Row, Rows

ROWS_PER_PAGE = 1000


async def pages(
    store: Store,
    bucket: str,
    prefix: str,
    revision: int,
    *,
    every_version: bool,
    rows_per_page: int = ROWS_PER_PAGE,
) -> AsyncGenerator[Rows, None]:
    """The visible versions under a prefix, or all versions and delete markers. Raises Compacted
    when the revision is no longer in the history, and other errors of the engine."""
    page: Rows = []
    read = _all if every_version else _visible
    async with aclosing(read(store, bucket, prefix, revision, rows_per_page)) as rows:
        async for row in rows:
            page.append(row)
            if len(page) == rows_per_page:
                yield page
                page = []
    if page:
        yield page


async def _items(store: Store, start: bytes, revision: int, limit: int) -> AsyncIterator[Item]:
    position, end = start, keys.after_prefix(start)
    while True:
        page = await store.scan_listed(position, end, limit=limit, revision=revision)
        for item in page.items:
            yield item
        if not page.more:
            return
        position = page.items[-1].key + b"\x00"


async def _visible(
    store: Store, bucket: str, prefix: str, revision: int, limit: int
) -> AsyncGenerator[Row, None]:
    base = keys.objects(bucket)
    async for item in _items(store, base + prefix.encode(), revision, limit):
        yield Row(item.key[len(base) :].decode(), item.value, True)


async def _noncurrent(
    store: Store, bucket: str, prefix: str, revision: int, limit: int
) -> AsyncGenerator[Row, None]:
    base = keys.versions(bucket)
    async for item in _items(store, base + keys.escaped(prefix), revision, limit):
        yield Row(keys.unended(item.key[len(base) :])[0], item.value, False)


async def _all(
    store: Store, bucket: str, prefix: str, revision: int, limit: int
) -> AsyncGenerator[Row, None]:
    """Both ranges as one. The first version of a key is its newest: the visible one, or without one
    the delete marker that hides it."""
    visible = _visible(store, bucket, prefix, revision, limit)
    noncurrent = _noncurrent(store, bucket, prefix, revision, limit)
    first, second = await anext(visible, None), await anext(noncurrent, None)
    last: str | None = None
    while first is not None or second is not None:
        # Code points order as their UTF-8 does, and so as the metadata.
        if second is None or (first is not None and first.key <= second.key):
            assert first is not None
            row, first = first, await anext(visible, None)
        else:
            row, second = second, await anext(noncurrent, None)
            row.latest = row.key != last
        last = row.key
        yield row
