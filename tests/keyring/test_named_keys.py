"""Named keys of the built-in key store: what a name, a state and a moment mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from s3gw import errors
from s3gw.kv.interface import Delete, Guard, Write
from s3gw.objects.keyring.named import DISABLED, ENABLED, PENDING, KeyExists
from s3gw.objects.keyring.ring import SSE_KMS, Ring, Wanted
from tests.stores import encrypted
from tests.stores.encrypted import S3
from tests.stores.memory_store import MemoryCluster, Process

DAY = 86_400.0
INVOICES = Wanted(SSE_KMS, "invoices")
BODY = b"body " * 30_000


@pytest.fixture
async def store(memory_store: Process) -> Process:
    """A store with an object under a named key."""
    ring = memory_store.storage.ring
    await ring.named.create("invoices", await ring.usable_master())
    await encrypted.put(memory_store, "k", BODY, INVOICES)
    return memory_store


async def test_a_key_made_again_under_a_name_is_another_key(
    memory_cluster: MemoryCluster, store: Process
) -> None:
    """What is under the former one answers as under a deleted key."""
    ring = store.storage.ring
    upload = await encrypted.begin(store, "parts", INVOICES)
    await ring.named.set_state("invoices", PENDING, days=7)
    memory_cluster.clock.advance(8 * DAY)
    with pytest.raises(errors.KMSNotFoundException):
        await encrypted.get(store, "k", wanted=INVOICES)
    await ring.named.create("invoices", await ring.usable_master())
    await encrypted.put(store, "new", BODY, INVOICES)
    assert await encrypted.get(store, "new", wanted=INVOICES) == BODY
    for call in (
        encrypted.get(store, "k", wanted=INVOICES),
        encrypted.copy(store, "k", "copy", INVOICES),
        encrypted.copy(store, "k", "copy", S3),
        encrypted.finish(store, "parts", upload, [BODY], INVOICES),
    ):
        with pytest.raises(errors.KMSNotFoundException):
            await call
    await ring.named.rotate("invoices", await ring.usable_master())
    with pytest.raises(errors.KMSNotFoundException):
        await encrypted.get(store, "k", wanted=INVOICES)


async def test_a_clock_that_is_set_ahead_ends_no_grace_period(
    memory_cluster: MemoryCluster, store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    named = store.storage.ring.named
    await named.set_state("invoices", PENDING, days=7)
    clock, ahead_ms = memory_cluster.clock, 0
    store.storage.clock_ms = lambda: clock.ms() + ahead_ms
    clock.advance(60.0)
    assert (await named.find("invoices"))[0].state == PENDING
    with caplog.at_level(logging.WARNING):
        ahead_ms = int(30 * DAY * 1000)
        assert (await named.find("invoices"))[0].state == PENDING
        assert [name for name, _ in await named.all()] == ["invoices"]
        with pytest.raises(KeyExists):
            await named.create("invoices", await store.storage.ring.usable_master())
    assert "set ahead" in caplog.text
    clock.advance(1800.0)
    assert (await named.find("invoices"))[0].state == PENDING
    ahead_ms = 0  # somebody has put it right
    await named.set_state("invoices", ENABLED)
    assert await encrypted.get(store, "k", wanted=INVOICES) == BODY
    await named.set_state("invoices", PENDING, days=7)
    clock.advance(8 * DAY)
    with pytest.raises(errors.KMSNotFoundException):
        await named.find("invoices")


async def test_a_deletion_that_was_taken_back_in_time_is_none(
    memory_cluster: MemoryCluster, store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process whose clock is behind, just as this one removes the key. Were it taken for
    deleted, a rotation of the master key would pass over it."""
    other, ahead_ms = await memory_cluster.process(), int(8 * DAY * 1000)
    other.storage.ring = Ring(
        other.kv,
        store.storage.ring.sources,
        lambda: memory_cluster.clock.ms() + ahead_ms,
        memory_cluster.clock.monotonic,
    )
    await store.storage.ring.named.set_state("invoices", PENDING, days=7)
    commit, removed = other.kv.commit, 0

    async def late(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        nonlocal removed
        if isinstance(writes[0], Delete):
            removed += 1
            await store.storage.ring.named.set_state("invoices", ENABLED)
        return await commit(guards, writes)

    monkeypatch.setattr(other.kv, "commit", late)
    assert (await other.storage.ring.named.find("invoices"))[0].state == ENABLED
    assert removed == 1
    assert await encrypted.get(other, "k", wanted=INVOICES) == BODY


@pytest.mark.parametrize(
    ("state", "refused"),
    [(DISABLED, errors.KMSDisabledException), (PENDING, errors.KMSInvalidStateException)],
)
async def test_what_is_sealed_is_not_shared_under_a_key_that_may_not_be_used(
    store: Process, state: str, refused: type[errors.S3Error]
) -> None:
    shared = await encrypted.copy(store, "k", "shared", INVOICES)
    await store.storage.ring.named.set_state("invoices", state, days=7)
    for wanted in (INVOICES, S3, None):
        with pytest.raises(refused):
            await encrypted.copy(store, "k", "copy", wanted)
    await store.storage.ring.named.set_state("invoices", ENABLED)
    again = await encrypted.copy(store, "k", "copy", INVOICES)
    assert again.data == shared.data
