"""A key of the key management service is rotated, and all is wrapped anew, while a request is under
way that has wrapped its data key under the former version."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from s3gw import errors
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord
from s3gw.objects.change import change_version
from s3gw.objects.keyring.ring import Ring, Sources
from s3gw.objects.keyring.transit import Transit
from s3gw.objects.publish import read_target
from s3gw.workers import rewrap
from s3gw.workers.rewrap import Rewrapper
from tests.keyring.fake_vault import TOKEN, FakeVault
from tests.stores import encrypted, operations
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

BODY = bytes(range(256)) * 300
Meanwhile = Callable[[], Awaitable[object]]


class Store:
    """Two processes with one service; `late` wraps, and something happens before it stores."""

    def __init__(self, late: Process, other: Process, vault: FakeVault, token_file: Path) -> None:
        self.late, self.other, self.vault = late, other, vault
        for process in (late, other):
            transit = Transit("https://vault.test:8200/", token_file, client=vault.client())
            sources = Sources(transit=transit, transit_key="default")
            storage = process.storage
            storage.ring = Ring(process.kv, sources, storage.clock_ms)

    def between(self, meanwhile: Meanwhile) -> None:
        """Let this happen once the late process has wrapped its next data key."""
        transit = self.late.storage.ring.sources.transit
        assert transit is not None
        plain = transit.wrap

        async def wrap(name: str, data_key: bytes, context: bytes) -> str:
            text = await plain(name, data_key, context)
            transit.wrap = plain  # type: ignore[method-assign]
            await meanwhile()
            return text

        transit.wrap = wrap  # type: ignore[method-assign]

    async def wrap_all_anew(self) -> None:
        """By the other process, to the end; the former version is then good for nothing."""
        self.vault.rotate("default")
        await rewrap.start(self.other.storage)
        worker = Rewrapper(self.other.storage)
        while await worker.work():
            pass
        job = (await rewrap.status(self.other.storage)).record
        assert job is not None
        assert (job.state, job.failed) == (rewrap.DONE, 0)
        versions = self.vault.keys["default"]
        versions[:-1] = [os.urandom(32) for _ in versions[:-1]]


@pytest.fixture
async def store(memory_cluster: MemoryCluster, tmp_path: Path) -> Store:
    vault = FakeVault()
    vault.make("default")
    vault.make("another")
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    late = await memory_cluster.process(seed=1)
    return Store(late, await memory_cluster.process(seed=2), vault, token_file)


@pytest.mark.parametrize("wanted", [S3, KMS], ids=["S3", "KMS"])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_object_is_not_stored_under_a_version_that_is_done_with(
    store: Store, wanted: encrypted.Wanted, times: int
) -> None:
    await encrypted.put(store.late, "before", BODY, wanted)

    async def meanwhile() -> None:
        for _ in range(times):
            await store.wrap_all_anew()

    store.between(meanwhile)
    with pytest.raises(errors.ServiceUnavailable) as refused:
        await encrypted.put(store.late, "k", BODY, wanted)
    assert refused.value.headers.get("Retry-After")
    assert await operations.record(store.late, "k") is None
    await encrypted.put(store.late, "k", BODY, wanted)
    for key in ("before", "k"):
        assert await encrypted.get(store.other, key, wanted=wanted) == BODY


async def test_nor_is_an_upload_begun_or_a_version_changed(store: Store) -> None:
    record = await encrypted.put(store.late, "k", BODY)
    store.between(store.wrap_all_anew)
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.begin(store.late, "upload")
    assert not any(key.startswith(keys.UPLOADS) for key in store.late.cluster.engine.items)
    store.between(store.wrap_all_anew)
    ring = store.late.storage.ring
    after = (await ring.wrap(KMS, record.content_id, b"k" * 32)).encryption

    def change(now: ObjectRecord) -> ObjectRecord:
        described = msgspec.structs.replace(now.description, encryption=after)
        return msgspec.structs.replace(now, description=described)

    target = await read_target(store.late.storage, BUCKET, "k")
    with pytest.raises(errors.ServiceUnavailable):
        await change_version(store.late.storage, target, change)
    assert await encrypted.get(store.other, "k") == BODY


async def test_what_was_wrapped_behind_the_rotation_is_stored(store: Store) -> None:
    """The proof begins meanwhile: the commit is lost, and sent again."""
    await encrypted.put(store.late, "before", BODY)

    async def rotated_before() -> None:
        await rewrap.start(store.other.storage)
        worker = Rewrapper(store.other.storage)
        while await worker.work():
            pass

    store.vault.rotate("default")
    store.between(rotated_before)
    await encrypted.put(store.late, "k", BODY)
    assert await encrypted.get(store.other, "k") == BODY


async def test_what_is_under_another_key_that_was_not_rotated_is_stored(store: Store) -> None:
    other_key = encrypted.Wanted("aws:kms", "another")
    store.between(store.wrap_all_anew)
    await encrypted.put(store.late, "k", BODY, other_key)
    assert await encrypted.get(store.other, "k", wanted=other_key) == BODY


async def test_a_service_that_does_not_answer_then_lets_nothing_through(store: Store) -> None:
    await encrypted.put(store.late, "before", BODY)

    async def meanwhile() -> None:
        await store.wrap_all_anew()
        store.vault.broken = True

    store.between(meanwhile)
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.put(store.late, "k", BODY)
    assert await operations.record(store.late, "k") is None
    store.vault.broken = False
    await encrypted.put(store.late, "k", BODY)
    assert await encrypted.get(store.other, "k") == BODY


async def test_it_costs_one_read_of_each_process(store: Store) -> None:
    asked = 0
    plain = store.late.kv.get_many

    async def counted(wanted: list[bytes]) -> object:
        nonlocal asked
        asked += keys.TRANSIT_PROOF in wanted
        return await plain(wanted)

    store.late.kv.get_many = counted  # type: ignore[method-assign,assignment]
    for number in range(5):
        await encrypted.put(store.late, f"k{number}", BODY)
    assert asked == 1
    assert len(store.vault.requests) == 5


@pytest.mark.parametrize("used", [False, True])
async def test_a_key_that_is_closed_to_the_gateway_closes_no_other_after_a_rotation(
    store: Store, used: bool
) -> None:
    closed = encrypted.Wanted("aws:kms", "another")
    await encrypted.put(store.late, "before", BODY)
    if used:
        await encrypted.put(store.late, "closed", BODY, closed)
        await operations.delete(store.late, "closed")
    store.vault.closed.add("another")
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.put(store.late, "closed", BODY, closed)
    store.vault.rotate("default")
    await rewrap.start(store.other.storage)
    worker = Rewrapper(store.other.storage)
    while await worker.work():
        pass
    await encrypted.put(store.late, "k", BODY)
    assert await encrypted.get(store.other, "k") == BODY
    store.vault.closed.clear()
    await encrypted.put(store.late, "closed", BODY, closed)
    assert await encrypted.get(store.other, "closed", wanted=closed) == BODY


async def test_of_a_key_that_the_service_tells_nothing_about_only_what_is_wrapped_then_is_stored(
    store: Store,
) -> None:
    """Two writes are held up while the key is rotated: one has wrapped before, the other, whose
    key the service did not tell the version of, wraps again."""

    async def meanwhile() -> None:
        await store.wrap_all_anew()
        store.vault.closed.add("default")
        await store.late.storage.ring.learn_proof()
        store.vault.closed.clear()

    await encrypted.put(store.late, "before", BODY)
    store.between(meanwhile)
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.put(store.late, "k", BODY)
    await encrypted.put(store.late, "k", BODY)
    assert await encrypted.get(store.other, "k") == BODY


async def test_a_key_that_is_first_used_while_the_proof_is_learned_of_is_not_passed_over(
    store: Store,
) -> None:
    async def meanwhile() -> None:
        await store.wrap_all_anew()
        await store.late.storage.ring.learn_proof()

    await encrypted.put(store.late, "other", BODY, encrypted.Wanted("aws:kms", "another"))
    store.between(meanwhile)
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.put(store.late, "k", BODY)
    await encrypted.put(store.late, "k", BODY)
    assert await encrypted.get(store.other, "k") == BODY
