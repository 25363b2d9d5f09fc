"""Named keys that the metadata has lost, out of what shards have of them."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.kv.interface import Delete
from s3gw.metadata import keys
from s3gw.metadata.key_records import KeyCopy, NamedKey
from s3gw.metadata.records import Encryption
from s3gw.objects.footer import Footer
from s3gw.objects.keyring.master import MasterKeys
from s3gw.objects.keyring.named import DISABLED, ENABLED
from s3gw.objects.keyring.ring import SSE_KMS, Ring, Sources, Wanted, keys_in_use
from s3gw.rescue.extract import body
from s3gw.rescue.named_keys import FoundKeys
from s3gw.rescue.snapshot import take_snapshot
from s3gw.rescue.unsealing import RescueKeys
from tests.rescue.disks import Recovered, catalog_of, put_on_disks, recovered
from tests.stores import encrypted
from tests.stores.memory_store import BUCKET, MASTER_KEY, MemoryCluster, Process

INVOICES = Wanted(SSE_KMS, "invoices")
DATA = b"what nobody may lose " * 5000
NEW_KEY = b"n" * 32


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def make(process: Process, name: str = "invoices") -> NamedKey:
    ring = process.storage.ring
    return await ring.named.create(name, await ring.usable_master())


async def rotate(process: Process) -> None:
    ring = process.storage.ring
    await ring.named.rotate("invoices", await ring.usable_master())


def extracted(paths: list[str], master: bytes = MASTER_KEY) -> dict[str, bytes]:
    """All that drives and a master key give."""
    found = catalog_of(paths).versions(BUCKET, "", None)
    held = RescueKeys(MasterKeys([master]))
    return {key: b"".join(map(bytes, body(versions[0], held))) for _, key, versions in found}


async def key_of(store: Recovered) -> NamedKey:
    return (await store.process.storage.ring.named.find("invoices"))[0]


async def test_drives_and_the_master_key_are_enough_for_every_version_of_a_key(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    made = await make(memory_store)
    await encrypted.put(memory_store, "first", DATA, INVOICES)
    await encrypted.multipart(memory_store, "parts", [DATA, b"end"], INVOICES)
    await rotate(memory_store)
    await encrypted.put(memory_store, "second", DATA, INVOICES)
    paths = put_on_disks(memory_cluster, tmp_path)
    expected = {"first": DATA, "second": DATA, "parts": DATA + b"end"}
    assert extracted(paths) == expected
    done = await recovered(memory_cluster, paths)
    for key, content in expected.items():
        assert await encrypted.get(done.process, key, wanted=INVOICES) == content
    again = await key_of(done)
    assert (again.key_id, again.state, len(again.versions)) == (made.key_id, ENABLED, 2)
    assert again.created_ms == made.created_ms
    assert ("uncertain", "key invoices") in done.kinds()
    assert (await keys_in_use(done.process.kv))[0] == (MasterKeys([MASTER_KEY]).present,)
    made_since = await done.process.storage.ring.new_key(INVOICES, b"i" * 16)
    assert made_since.key_copy is not None
    assert made_since.key_copy.version == 2


async def test_a_key_and_a_version_that_are_newer_than_the_base_come_from_shards(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await make(memory_store)
    await encrypted.put(memory_store, "first", DATA, INVOICES)
    await memory_store.storage.ring.named.set_state("invoices", DISABLED)
    memory_cluster.clock.advance(60)
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    await memory_store.storage.ring.named.set_state("invoices", ENABLED)
    for _ in range(2):
        await rotate(memory_store)
    await make(memory_store, "newer")
    await encrypted.put(memory_store, "third", DATA, INVOICES)
    await encrypted.put(memory_store, "newer", DATA, Wanted(SSE_KMS, "newer"))
    paths = put_on_disks(memory_cluster, tmp_path)
    done = await recovered(memory_cluster, paths)
    assert done.report.source.startswith("snapshot")
    known = await key_of(done)
    assert known.state == DISABLED  # as the base says
    assert [bool(version) for version in known.versions] == [True, False, True]
    assert [finding.key for finding in done.findings if finding.key.startswith("key ")] == [
        "key newer"
    ]
    named = done.process.storage.ring.named
    await named.set_state("invoices", ENABLED)
    for key in ("first", "third"):
        assert await encrypted.get(done.process, key, wanted=INVOICES) == DATA
    assert await encrypted.get(done.process, "newer", wanted=Wanted(SSE_KMS, "newer")) == DATA
    master = await done.process.storage.ring.usable_master()
    assert not await named.rewrap("invoices", master)  # a version that is not there stops nothing


async def test_of_two_keys_of_one_name_the_newer_one_is_made_again(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await make(memory_store)
    await encrypted.put(memory_store, "before", DATA, INVOICES)
    await memory_store.kv.commit([], [Delete(keys.named_key("invoices"))])
    memory_cluster.clock.advance(60.0)
    later = await make(memory_store)
    await encrypted.put(memory_store, "after", DATA, INVOICES)
    paths = put_on_disks(memory_cluster, tmp_path)
    assert extracted(paths) == {"before": DATA, "after": DATA}
    done = await recovered(memory_cluster, paths)
    assert (await key_of(done)).key_id == later.key_id
    assert await encrypted.get(done.process, "after", wanted=INVOICES) == DATA
    with pytest.raises(errors.KMSNotFoundException):
        await encrypted.get(done.process, "before", wanted=INVOICES)
    texts = [finding.text for finding in done.findings if finding.key == "key invoices"]
    assert any("another key had this name" in text for text in texts)


async def test_copies_after_a_rotation_of_the_master_key_are_under_the_new_one(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await make(memory_store)
    upload = await encrypted.begin(memory_store, "parts", INVOICES)
    storage = memory_store.storage
    storage.ring = Ring(
        memory_store.kv, Sources(master=MasterKeys([NEW_KEY, MASTER_KEY])), storage.clock_ms
    )
    assert await storage.ring.named.rewrap("invoices", await storage.ring.usable_master())
    await encrypted.put(memory_store, "k", DATA, INVOICES)
    await encrypted.finish(memory_store, "parts", upload, [DATA], INVOICES)
    paths = put_on_disks(memory_cluster, tmp_path)
    assert extracted(paths, NEW_KEY) == {"k": DATA, "parts": DATA}


async def test_what_a_shard_says_of_no_possible_key_is_left_alone(memory_store: Process) -> None:
    encryption = Encryption("aws:kms", "arn:aws:kms:us-east-1:000000000000:key/invoices", b"\x02")
    odd = [
        KeyCopy(b"short", 1, b"w" * 68, 0),
        KeyCopy(b"i" * 8, 0, b"w" * 68, 0),
        KeyCopy(b"i" * 8, 10**9, b"w" * 68, 0),
        KeyCopy(b"i" * 8, 1, b"", 0),
        KeyCopy(b"i" * 8, 1, b"w" * 68, 2**60),
    ]
    found = FoundKeys()
    for copy in odd:
        found.add(Footer(v=1, kind="object", encryption=encryption, named_key=copy))
    named = msgspec.structs.replace(encryption, key_name="arn:aws:kms:us-east-1:0:key/.no name")
    good = KeyCopy(b"i" * 8, 1, b"w" * 68, 0)
    found.add(Footer(v=1, kind="object", encryption=named, named_key=good))
    told: list[tuple[str, ...]] = []
    assert await found.write(memory_store.kv, lambda *finding: told.append(finding)) == set()
    assert told == []
    assert await memory_store.storage.ring.named.all() == []


async def test_a_recovery_logs_and_tells_no_key(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = await make(memory_store)
        await encrypted.put(memory_store, "k", DATA, INVOICES)
        paths = put_on_disks(memory_cluster, tmp_path)
        extracted(paths)
        done = await recovered(memory_cluster, paths)
    secret = MasterKeys([MASTER_KEY])
    said = caplog.text + repr(done.findings) + repr(secret)
    for key in (MASTER_KEY, made.versions[0]):
        assert key.hex() not in said
        assert repr(key)[2:-1] not in said
