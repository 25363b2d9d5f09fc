"""Two thousand damaged shard files: a recovery goes on past each, and nothing that it gives out has
other bytes than were written.

Damage at random fails a checksum. What passes them all, because they were made to fit, is worse: a
footer that lies. It must be refused, or outvoted, or found out by the bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodes.protocol import ShardName
from s3gw.cluster.reader import BlobUnreadable
from s3gw.metadata.records import BlobRef
from s3gw.rescue import sources
from s3gw.rescue.decode import NotReadable
from s3gw.rescue.drives import RescueError
from s3gw.rescue.extract import body
from s3gw.rescue.snapshot import take_snapshot
from s3gw.workers.names import Names
from tests.rescue.disks import catalog_of, put_on_disks, recovered, reseal
from tests.rescue.test_rebuild import data_of, multipart
from tests.stores import operations
from tests.stores.memory_store import MemoryCluster, Process

ROUNDS = 100
REBUILT_EVERY = 20
FILES = 10
CONTENT = {
    "empty": b"",
    "small": data_of("small", 3_000),
    "copies": data_of("copies", 30_000),
    "coded": data_of("coded", 70_000),
    "stripes": data_of("stripes", 300_000),
}
PARTS = data_of("parts0", 80_000)
EXPECTED = {*CONTENT.values(), PARTS}
OTHERS = ("encryption", "compression", "lock", "upload", "former")
VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 3, 2**31, 2**53, 2**63 - 1, 2**64 - 1, 0.5),
    *("", "x", "4+2", "1+2", "30+30", "../..", "\x00", "AES256", "aws:kms", "customer", "zstd"),
    *(b"", b"x", b"0" * 16, b"\xff" * 64, [], ["x"], [1, 2, 3], {}, {"a": 1}, {"a": "b"}),
    *(["4+2", 0, 0, "", ""], ["4+2", 2**40, 8, "node", ""], ["1+2", 131072, 65537, "node", ".."]),
    *(["AES256", "", b"", "", False], ["aws:kms", "k", b"\x02" * 40, "", True]),
    *(["customer", "", b"\x04" * 60, "", False], ["COMPLIANCE", 2**62, True], ["x", -1, False]),
]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A shard file as drives and hands leave them: flipped, cut, longer, zeroed, or joined."""
    how = chance.randrange(6)
    changed = bytearray(data)
    if how == 0:
        return bytes(changed[: chance.randrange(len(data))])
    if how == 1:
        return data + chance.randbytes(chance.choice((1, 32, 5_000)))
    if how == 2:
        first = chance.randrange(len(data))
        changed[first : first + chance.choice((8, 64, 4096))] = bytes(8)
    elif how == 3:
        end = chance.choice((changed[:64], changed[-200:]))
        at = chance.choice((0, max(0, len(data) - len(end))))
        changed[at : at + len(end)] = end
    else:
        for _ in range(chance.choice((1, 1, 20))):
            at = chance.choice((chance.randrange(len(data)), chance.randrange(64), -1))
            at = len(data) - 1 - chance.randrange(min(300, len(data))) if at < 0 else at
            changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def lie(chance: random.Random) -> Callable[[dict[str, Any]], None]:
    """A change of one or two values of a footer."""

    def change(said: dict[str, Any]) -> None:
        for _ in range(chance.choice((1, 2))):
            name = chance.choice([*sorted(said), *OTHERS])
            said[name] = chance.choice(VALUES)

    return change


async def put_damage(
    paths: list[str], files: dict[Path, bytes], chance: random.Random, *, lying: bool
) -> list[Path]:
    """Damage some files, those of one blob among them more often than not."""
    chosen = chance.sample(sorted(files), FILES)
    if chance.random() < 0.7:
        blob = chance.choice(chosen).name.split(".")[0]
        same = [file for file in files if file.name.startswith(blob)]
        chosen = [*same, *chosen][:FILES]
    one = lie(random.Random(chance.random()))
    for file in chosen:
        if not lying:
            file.write_bytes(damaged(files[file], chance))
        else:
            reseal(file, one if chance.random() < 0.5 else lie(chance))
    return chosen


def check_what_is_found(paths: list[str]) -> int:
    """How many versions could be read."""
    catalog = catalog_of(paths)
    list(catalog.doubts())
    read = 0
    for _, _, versions in catalog.versions():
        for version in versions:
            try:
                found = b"".join(body(version))
            except NotReadable:
                continue
            read += 1
            assert found in EXPECTED
    warnings: list[str] = []
    base = sources.newest(catalog, catalog.drives[0].store_id, warnings.append)
    assert base is None or base.rows.first(b"\x00", b"\xff") is not None
    catalog.close()
    return read


async def check_rebuilt(cluster: MemoryCluster, paths: list[str], *, metadata: bool) -> None:
    for path in paths:
        drive = cluster.drives[Path(path).name]
        drive.shards.clear()
        for file in (Path(path) / "data").glob("*/*/*"):
            blob, _, index = file.name.partition(".")
            group = file.parent
            name = ShardName(group.parent.name, int(group.name), bytes.fromhex(blob), int(index))
            drive.shards[name] = file.read_bytes()
    try:
        base = None
        if metadata:
            catalog = catalog_of(paths)
            base = sources.newest(catalog, catalog.drives[0].store_id, lambda text: None)
        result = await recovered(cluster, paths, metadata=False, base=base)
    except RescueError:
        return
    for _, key, record in result.audit().versions():
        if isinstance(record.data, BlobRef) and record.description.encryption is None:
            try:
                assert await operations.get(result.process, key) in EXPECTED
            except BlobUnreadable:
                continue


@pytest.mark.parametrize("lying", [False, True], ids=["damaged", "lying"])
async def test_damage_of_every_kind(
    lying: bool, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    for key, data in CONTENT.items():
        await operations.put(memory_store, key, data)
    await multipart(memory_store, "parts", len(PARTS))
    await operations.rename(memory_store, "small", "renamed")
    await Names(memory_store.storage).run_once()
    await take_snapshot(memory_store.storage)
    paths = put_on_disks(memory_cluster, tmp_path)
    files = {
        file: file.read_bytes() for path in paths for file in (Path(path) / "data").glob("*/*/*")
    }
    chance = random.Random(f"damage{lying}")
    read = 0
    for number in range(ROUNDS):
        changed = await put_damage(paths, files, chance, lying=lying)
        read += check_what_is_found(paths)
        if number % REBUILT_EVERY == 0:
            await check_rebuilt(memory_cluster, paths, metadata=bool(number % 40))
        for file in changed:
            file.write_bytes(files[file])
    assert read > 3 * ROUNDS
    assert check_what_is_found(paths) == len(CONTENT) + 1
