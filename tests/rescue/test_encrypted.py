"""Encrypted and compressed objects out of drives alone, with the keys that an operator has."""

from __future__ import annotations

import random
from base64 import b64encode
from pathlib import Path

import pytest

from s3gw import limits
from s3gw.objects.keyring.master import MasterKeys
from s3gw.objects.keyring.ring import keys_in_use
from s3gw.rescue.decode import NotReadable
from s3gw.rescue.extract import body
from s3gw.rescue.unsealing import RescueKeys
from tests.rescue.disks import catalog_of, put_on_disks, recovered
from tests.rescue.test_extract import rescue
from tests.stores import encrypted
from tests.stores.encrypted import CUSTOMER, KMS, OWN, S3
from tests.stores.memory_store import BUCKET, MASTER_KEY, MemoryCluster, Process

NOISE = random.Random(3).randbytes(200_000)
TEXT = b"a line that compresses\n" * 30_000
MASTER = MasterKeys([b"x" * 32, MASTER_KEY])
EXPECTED = {
    "s3": NOISE,
    "small": NOISE[:100],
    "empty": b"",
    "own": NOISE,
    "kms": NOISE,
    "parts": TEXT + NOISE,
    "text": TEXT,
    "own-parts": NOISE + b"end",
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


@pytest.fixture
async def drives(memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path) -> list[str]:
    await encrypted.put(memory_store, "s3", NOISE, S3)
    await encrypted.put(memory_store, "small", NOISE[:100], S3)
    await encrypted.put(memory_store, "empty", b"", S3)
    await encrypted.put(memory_store, "own", NOISE, OWN)
    await encrypted.put(memory_store, "kms", NOISE, KMS)
    await encrypted.compress(memory_store)
    await encrypted.multipart(memory_store, "parts", [TEXT, NOISE], S3)
    await encrypted.put(memory_store, "text", TEXT, None)
    await encrypted.multipart(memory_store, "own-parts", [NOISE, b"end"], OWN)
    return put_on_disks(memory_cluster, tmp_path / "drives")


def found(paths: list[str], keys: RescueKeys) -> tuple[dict[str, bytes], dict[str, str]]:
    """What can be read, and why the rest cannot."""
    read, refused = {}, {}
    for _, key, versions in catalog_of(paths).versions(BUCKET, "", None):
        try:
            read[key] = b"".join(bytes(piece) for piece in body(versions[0], keys))
        except NotReadable as error:
            refused[key] = str(error)
    return read, refused


async def test_with_all_keys_all_is_read(drives: list[str]) -> None:
    read, refused = found(drives, RescueKeys(MASTER, (b"wrong" + b"x" * 27, CUSTOMER)))
    assert read == EXPECTED
    assert refused == {}


async def test_without_keys_it_says_which_are_needed(drives: list[str]) -> None:
    read, refused = found(drives, RescueKeys())
    assert read == {"text": TEXT}
    assert "--master-key-file" in refused["s3"]
    assert "--master-key-file" in refused["parts"]
    assert "--master-key-file" in refused["kms"]
    assert "--customer-key-file" in refused["own"]


async def test_another_master_key_is_named_by_its_id(drives: list[str]) -> None:
    _, refused = found(drives, RescueKeys(MasterKeys([b"x" * 32])))
    for key in ("s3", "kms"):
        assert MasterKeys([MASTER_KEY]).present.hex() in refused[key]


async def test_the_command_takes_files_with_keys(
    drives: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    master, customer = tmp_path / "master", tmp_path / "customer"
    for file, key in ((master, MASTER_KEY), (customer, CUSTOMER)):
        file.write_bytes(b64encode(key))
        file.chmod(0o600)
    out = tmp_path / "out"
    keys = ["--master-key-file", str(master), "--customer-key-file", str(customer)]
    code, lines = rescue(capsys, "extract", "--all", "--out", str(out), *keys, *drives)
    assert code == 0
    assert {line["key"]: Path(line["path"]).read_bytes() for line in lines} == EXPECTED
    master.chmod(0o644)
    code, _ = rescue(capsys, "extract", "--all", "--out", str(tmp_path / "o2"), *keys, *drives)
    assert code == 2


async def test_metadata_made_anew_from_shards_opens_what_they_hold(
    memory_cluster: MemoryCluster, drives: list[str]
) -> None:
    done = await recovered(memory_cluster, drives)
    for key, content in EXPECTED.items():
        wanted = {"own": OWN, "own-parts": OWN, "kms": KMS, "text": None}.get(key, S3)
        assert await encrypted.get(done.process, key, wanted=wanted) == content
    in_use, _ = await keys_in_use(done.process.kv)
    assert in_use == (MasterKeys([MASTER_KEY]).present,)
