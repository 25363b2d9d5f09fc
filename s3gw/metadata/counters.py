"""Counters that many writers raise without waiting for each other.

A bucket's usage is spread over at most 64 slots and the blob counts over placement groups, so
that concurrent commits rarely touch one record. A process keeps what it last knew of each counter
in a cell and has at most one commit in flight per cell; across processes the guard on the
counter's revision decides, and the loser reads that counter alone again. Ownership of slots only
avoids conflicts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from s3gw import limits
from s3gw.kv.interface import KV, At, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import Count, Usage, decode, encode

CELLS_MAX = 65_536
SLOTS_PER_PROCESS = 16


class Cell:
    """One counter: its value and revision as last seen (revision None: not read yet)."""

    __slots__ = ("key", "kind", "lock", "revision", "value")

    def __init__(self, key: bytes, kind: type[Usage] | type[Count]) -> None:
        self.key = key
        self.kind = kind
        self.revision: int | None = None
        self.value: Usage | Count = kind()
        self.lock = asyncio.Lock()

    def learn(self, item: Item | None) -> None:
        self.revision = item.revision if item else 0
        self.value = decode(self.kind, item.value) if item else self.kind()

    def guard(self) -> At:
        assert self.revision is not None
        return At(self.key, self.revision)

    def raised(self, delta: Usage | Count) -> Usage | Count:
        if isinstance(self.value, Usage):
            assert isinstance(delta, Usage)
            return self.value + delta
        assert isinstance(delta, Count)
        return Count(self.value.references + delta.references, self.value.bytes + delta.bytes)


class Held:
    """Cells taken for one commit, with what the commit adds to each."""

    def __init__(self, kv: KV, changes: Sequence[tuple[Cell, Usage | Count]]) -> None:
        self._kv = kv
        self._changes = changes

    async def load(self, again: bytes | None = None) -> None:
        """Read the cells not read yet, and the one at key `again`."""
        unread = [c for c, _ in self._changes if c.revision is None or c.key == again]
        if unread:
            reading = await self._kv.get_many([cell.key for cell in unread])
            for cell, item in zip(unread, reading.items, strict=True):
                cell.learn(item)

    def covers(self, key: bytes) -> bool:
        return any(cell.key == key for cell, _ in self._changes)

    def guards(self) -> list[At]:
        return [cell.guard() for cell, _ in self._changes]

    def writes(self) -> list[Put]:
        return [Put(cell.key, encode(cell.raised(delta))) for cell, delta in self._changes]

    def committed(self, revision: int) -> None:
        for cell, delta in self._changes:
            cell.value = cell.raised(delta)
            cell.revision = revision

    def forget(self) -> None:
        """The outcome is not known: read these counters before they are used again."""
        for cell, _ in self._changes:
            cell.revision = None

    def release(self) -> None:
        for cell, _ in self._changes:
            cell.lock.release()


class Counters:
    """The cells of this process. `block` picks its slots of every bucket's usage."""

    def __init__(self, kv: KV, block: int = 0) -> None:
        self._kv = kv
        first = block * SLOTS_PER_PROCESS % limits.USAGE_SLOTS_MAX
        self._slots = range(first, first + SLOTS_PER_PROCESS)
        self._turn = 0
        self._cells: OrderedDict[bytes, Cell] = OrderedDict()

    async def hold(self, usages: Mapping[str, Usage], counts: Mapping[bytes, Count]) -> Held:
        """Take the cells that a commit changes; they stay taken until `release`.

        Taken in the order of their keys, so that two commits never wait for each other.
        """
        changes: list[tuple[Cell, Usage | Count]] = [
            *((self._free_slot(bucket), usage) for bucket, usage in usages.items()),
            *((self._cell(key, Count), count) for key, count in counts.items()),
        ]
        changes.sort(key=lambda change: change[0].key)
        taken = 0
        try:
            for cell, _ in changes:
                await cell.lock.acquire()
                taken += 1
            held = Held(self._kv, changes)
            await held.load()
        except BaseException:
            for cell, _ in changes[:taken]:
                cell.lock.release()
            raise
        return held

    def busy(self, key: bytes) -> bool:
        """Whether a commit of this process has this counter in flight."""
        cell = self._cells.get(key)
        return cell is not None and cell.lock.locked()

    def _free_slot(self, bucket: str) -> Cell:
        """A slot that no commit has taken; when all are, they are waited for in turn."""
        for slot in self._slots:
            cell = self._cell(keys.usage(bucket, slot), Usage)
            if not cell.lock.locked():
                return cell
        self._turn = (self._turn + 1) % SLOTS_PER_PROCESS
        return self._cell(keys.usage(bucket, self._slots[self._turn]), Usage)

    def _cell(self, key: bytes, kind: type[Usage] | type[Count]) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(key, kind)
            if len(self._cells) > CELLS_MAX:
                self._evict()
        return cell

    def _evict(self) -> None:
        for key in list(self._cells)[: CELLS_MAX // 8]:
            if not self._cells[key].lock.locked():
                del self._cells[key]


def total(items: Iterable[Item | None]) -> Usage:
    """The sum of usage slots."""
    usage = Usage()
    for item in items:
        if item is not None:
            usage += decode(Usage, item.value)
    return usage
