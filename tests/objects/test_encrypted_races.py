"""What is encrypted stays so, and can be read, whatever comes between a reading and its commit."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw import limits
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.objects import complete, part_copy, publish
from s3gw.objects.encrypted import framing_of, framing_of_version
from s3gw.objects.keyring.named import PENDING, KeyExists
from s3gw.objects.keyring.ring import Wanted
from s3gw.objects.multipart import find_upload, list_parts, upload_part
from s3gw.workers import rewrap
from tests.stores import encrypted, operations
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process

DATA = b"content " * 20_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)


@pytest.mark.parametrize("wanted", [S3, KMS], ids=["S3", "KMS"])
async def test_no_part_of_an_encrypted_upload_shares_a_plain_blob(
    memory_store: Process, wanted: Wanted
) -> None:
    """The source was encrypted as the upload is, and is replaced by a plain one meanwhile."""
    storage = memory_store.storage
    await encrypted.put(memory_store, "source", DATA, wanted)
    upload_id = await encrypted.begin(memory_store, "copy", wanted)
    upload = await find_upload(storage, BUCKET, "copy", upload_id, 1)
    source = await publish.read_target(storage, BUCKET, "source")
    assert source.visible is not None
    held = part_copy.Keys(
        source.visible.content_id,
        await framing_of_version(storage, source.visible),
        await framing_of(storage, upload.record.description, upload_id),
    )
    await encrypted.put(memory_store, "source", DATA, None)
    span = operations.of_all
    assert await part_copy.share_part(storage, upload, 1, source, span, held) is None
    assert (await list_parts(storage, upload_id))[0].records == []


async def test_a_named_key_can_be_made_again_once_its_time_is_over(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    named, master = memory_store.storage.ring.named, await memory_store.storage.ring.usable_master()
    before = await named.create("invoices", master)
    await named.set_state("invoices", PENDING, days=7)
    memory_cluster.clock.advance(6 * 86_400.0)
    with pytest.raises(KeyExists):
        await named.create("invoices", master)
    memory_cluster.clock.advance(2 * 86_400.0)
    made = await named.create("invoices", master)
    assert made.versions != before.versions


@pytest.mark.parametrize("step", ["_write_manifest", "_publish"])
async def test_an_upload_whose_keys_are_wrapped_anew_while_it_is_completed_stays_completable(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """At once: the attempt that failed for it gives the upload back, and another one is made."""
    lease = await memory_store.take_lease()
    await memory_store.kv.commit([], [Put(keys.process(lease), b"", lease)])
    upload_id = await encrypted.begin(memory_store, "k", KMS)
    framing = await framing_of(
        memory_store.storage,
        (await find_upload(memory_store.storage, BUCKET, "k", upload_id)).record.description,
        upload_id,
    )
    upload = await find_upload(memory_store.storage, BUCKET, "k", upload_id, 1)
    await upload_part(memory_store.storage, upload, 1, Bytes(DATA), framing)
    going_on = getattr(complete, step)

    async def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(complete, step, going_on)
        ring = memory_store.storage.ring
        await ring.named.rotate("default", await ring.usable_master())
        await rewrap.start(memory_store.storage)
        while await rewrap.Rewrapper(memory_store.storage).work():
            pass
        return await going_on(*arguments)

    monkeypatch.setattr(complete, step, overtaken)
    await operations.complete(memory_store, "k", upload_id)
    other = await memory_cluster.process(seed=77)
    assert await encrypted.get(other, "k", wanted=KMS) == DATA
