"""Known faults, built into the product on purpose: the simulation must find each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodes.sync import Batch
from s3gw.metadata import keys
from s3gw.metadata.store import Transaction
from s3gw.workers import placing
from s3gw.workers.garbage import Entry, GarbageCollector, Verdict


def plant(name: str) -> None:
    """Build one in; "" for none. For the rest of the process."""
    if name:
        PLANTS[name]()


def _without_guards(prefix: bytes) -> None:
    """No commit is guarded by keys that begin so."""
    expect = Transaction.expect

    def careless(self: Transaction, key: bytes, revision: int) -> None:
        if not key.startswith(prefix):
            expect(self, key, revision)

    Transaction.expect = careless  # type: ignore[method-assign]


def _lost_updates() -> None:
    """A version replaces another than the one that its conditions were judged on."""
    _without_guards(keys.OBJECTS)


def _early_acknowledgement() -> None:
    """Shards are acknowledged before their names are on the disk."""
    Batch._sync_directories = lambda self: None  # type: ignore[method-assign]


def _greedy_garbage() -> None:
    """The collector does not look whether anything else refers to a blob."""
    plain = GarbageCollector._decide

    async def decide(self: GarbageCollector, entry: Entry, item: Any, members: Any) -> Verdict:
        verdict = await plain(self, entry, item, members)
        profile, _, blob, _ = keys.split_reference(entry.garbage.reference)
        await placing.unlink(self._storage, profile, blob, (), members)
        return verdict

    GarbageCollector._decide = decide  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "early acknowledgement": _early_acknowledgement,
    "greedy garbage": _greedy_garbage,
    "lost updates": _lost_updates,
}
