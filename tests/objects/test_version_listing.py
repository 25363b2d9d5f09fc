"""ListObjectVersions against a model: all versions sorted and folded, then cut into pages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.kv.interface import Key, Page
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import Description, ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects.listing import folded
from s3gw.objects.version_listing import VersionListing, list_versions
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import set_versioning

TEXT = st.text(alphabet="ab/\x01é\U0010ffff -", min_size=1, max_size=4)
HISTORIES = st.dictionaries(TEXT, st.lists(st.booleans(), min_size=1, max_size=4), max_size=12)
"""By key, whether each version is a delete marker, oldest first."""


class RangeCostsKV(MemoryKV):
    """Listings read fences first, as on etcd. Counts what is read."""

    range_costs_its_size = True
    items_read = 0

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        page = await super().scan(start, end, limit=limit, revision=revision, keys_only=keys_only)
        self.items_read += len(page.items)
        return page


@dataclass(frozen=True)
class Shown:
    """A version as a page shows it."""

    key: str
    sequence: int
    latest: bool
    marker: bool


Line = Shown | str


async def store_of(histories: dict[str, list[bool]], *, fenced: bool = False) -> Process:
    """A store with these histories. Sequences grow over keys and versions together."""
    cluster = MemoryCluster(6)
    await cluster.found()
    process = await cluster.process(RangeCostsKV(cluster.engine) if fenced else None)
    await set_versioning(process, "Enabled")
    store = process.storage.store
    for name, sequence, marker, latest in numbered(histories):
        record = ObjectRecord(
            sequence, 0, "owner", 0, "e", None, Description(), marker=marker, null_version=False
        )
        tx = Transaction()
        key = keys.version(BUCKET, name, sequence)
        if latest and not marker:
            key = keys.object_(BUCKET, name)
        store.put_listed(tx, key, record)
        await store.apply(tx)
    return process


def numbered(histories: dict[str, list[bool]]) -> list[tuple[str, int, bool, bool]]:
    """Key, sequence, marker, latest of every version: round after round over all keys."""
    found = []
    longest = max(map(len, histories.values()), default=0)
    sequence = 10
    for turn in range(longest):
        for name, markers in histories.items():
            if turn < len(markers):
                sequence += 1
                found.append((name, sequence, markers[turn], turn == len(markers) - 1))
    return found


def expected(histories: dict[str, list[bool]], prefix: str, delimiter: str) -> list[Line]:
    """What all pages together show, in order."""
    versions = sorted(numbered(histories), key=lambda row: (row[0].encode(), -row[1]))
    lines: list[Line] = []
    for name, sequence, marker, latest in versions:
        common = folded(name, prefix, delimiter)
        if not name.startswith(prefix) or (common and common in lines):
            continue
        lines.append(common or Shown(name, sequence, latest, marker))
    return lines


def lines_of(listing: VersionListing) -> list[Line]:
    entries = [
        Shown(entry.key, entry.record.sequence, entry.latest, entry.record.marker)
        for entry in listing.entries
    ]
    return sorted(
        [*entries, *listing.prefixes],
        key=lambda line: (
            (line.encode(), 0) if isinstance(line, str) else (line.key.encode(), -line.sequence)
        ),
    )


async def all_pages(process: Process, prefix: str, delimiter: str, most: int) -> list[Line]:
    found: list[Line] = []
    after_key, after_sequence = "", None
    while True:
        listing = await list_versions(
            process.storage,
            BUCKET,
            prefix=prefix,
            delimiter=delimiter,
            most=most,
            after_key=after_key,
            after_sequence=after_sequence,
        )
        assert len(listing) <= most
        assert not listing.truncated or len(listing) == most
        found += lines_of(listing)
        if not listing.truncated:
            return found
        after_key, after_sequence = listing.last_key, listing.last_sequence or None


@settings(max_examples=120, deadline=None)
@given(
    HISTORIES,
    st.text(alphabet="ab/", max_size=2),
    st.sampled_from(["", "/", "a", "/b"]),
    st.booleans(),
)
def test_pages_of_every_size_together_show_every_version_once(
    histories: dict[str, list[bool]], prefix: str, delimiter: str, fenced: bool
) -> None:
    async def check() -> None:
        process = await store_of(histories, fenced=fenced)
        truth = expected(histories, prefix, delimiter)
        for most in (1, 2, 3, 1000):
            assert await all_pages(process, prefix, delimiter, most) == truth

    asyncio.run(check())


@settings(max_examples=80, deadline=None)
@given(HISTORIES, TEXT, st.none() | st.integers(1, 60))
def test_a_page_begins_behind_any_marker(
    histories: dict[str, list[bool]], after_key: str, after_sequence: int | None
) -> None:
    """Also behind a version that does not exist any more."""

    async def check() -> None:
        process = await store_of(histories)
        listing = await list_versions(
            process.storage,
            BUCKET,
            prefix="",
            delimiter="",
            most=1000,
            after_key=after_key,
            after_sequence=after_sequence,
        )
        least = (after_key.encode(), -(after_sequence or 0))
        assert lines_of(listing) == [
            line
            for line in expected(histories, "", "")
            if isinstance(line, Shown)
            if (line.key.encode(), -line.sequence) > least
        ]

    asyncio.run(check())


async def test_a_page_costs_as_much_as_it_shows() -> None:
    """Whatever the number of versions, and of keys below a common prefix."""
    histories = {f"deep/{number:03}": [False] * 3 for number in range(300)}
    histories |= {"a": [False] * 500, "z": [True] * 500}
    process = await store_of(histories, fenced=True)
    assert isinstance(process.kv, RangeCostsKV)
    process.kv.items_read = 0
    listing = await list_versions(
        process.storage, BUCKET, prefix="", delimiter="", most=10, after_key="a"
    )
    assert len(listing) == 10
    assert process.kv.items_read < 40
    process.kv.items_read = 0
    listing = await list_versions(
        process.storage, BUCKET, prefix="", delimiter="/", most=2, after_key="a"
    )
    assert listing.prefixes == ["deep/"]
    assert [entry.key for entry in listing.entries] == ["z"]
    assert process.kv.items_read < 100
