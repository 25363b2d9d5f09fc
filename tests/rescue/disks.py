"""A store in memory whose drives are put into directories, and recovered from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from nodes.check import read_ends
from nodes.format import FOOTER_TAIL_BYTES, build_footer
from nodes.protocol import ShardName
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.records import StoreRecord, decode
from s3gw.rescue.adopt import recover
from s3gw.rescue.catalog import Catalog
from s3gw.rescue.drives import open_drives
from s3gw.rescue.rebuild import Finding, Plan, Rebuild, Report
from s3gw.rescue.sources import Base, newest
from tests.stores.audit import Audit
from tests.stores.memory_store import MemoryCluster, Process

STORE = "store"


def put_on_disks(cluster: MemoryCluster, root: Path, *, without: Collection[str] = ()) -> list[str]:
    """Write the shards of all drives but some to directories; their paths."""
    assert cluster.identity is not None
    paths = []
    for name, drive in cluster.drives.items():
        if name in without:
            continue
        path = root / name
        (path / "data").mkdir(parents=True)
        identity = {
            "store_id": cluster.identity.store_id,
            "drive_id": name,
            "nonce": "",
            "incarnation": cluster.identity.incarnation,
            "revision": 7,
            "version": 1,
        }
        (path / "id.json").write_text(json.dumps(identity))
        for shard, data in drive.shards.items():
            file = (
                path / "data" / shard.profile / str(shard.pg) / f"{shard.blob.hex()}.{shard.index}"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        paths.append(str(path))
    return paths


def catalog_of(paths: Iterable[str]) -> Catalog:
    catalog = Catalog(open_drives(list(paths)))
    catalog.fill()
    return catalog


@dataclass
class Recovered:
    """A recovered store: the cluster with other metadata, a process on it, and what was said."""

    process: Process
    report: Report
    findings: list[Finding] = field(default_factory=list)

    def kinds(self) -> set[tuple[str, str]]:
        return {(finding.kind, finding.key) for finding in self.findings}

    def audit(self) -> Audit:
        return Audit(self.process.cluster, self.process)

    def check(self) -> None:
        """Everything held is referred to and readable, and the counters are the truth."""
        audit = self.audit()
        audit.check_held()
        audit.check_usage()
        audit.check_counts()


async def recovered(
    cluster: MemoryCluster,
    paths: list[str],
    *,
    metadata: bool = True,
    base: Base | None = None,
    add_newer: bool = True,
    pg_count: int = 256,
) -> Recovered:
    """Lose the cluster's metadata, and recover it from the directories."""
    assert cluster.identity is not None
    catalog = catalog_of(paths)
    warnings: list[str] = []
    if base is None and metadata:
        base = newest(catalog, cluster.identity.store_id, warnings.append)
    cluster.engine = MemoryStore(cluster.clock.monotonic)
    kv = MemoryKV(cluster.engine)
    findings: list[Finding] = []
    plan = Plan(
        cluster.identity.store_id, "us-east-1", pg_count, cluster.clock.ms(), add_newer=add_newer
    )
    rebuild = Rebuild(kv, catalog, base, plan, findings.append)
    await recover(rebuild)
    assert warnings == []
    (stored,) = (await kv.get_many([keys.STORE])).items
    assert stored is not None
    cluster.identity = decode(StoreRecord, stored.value)
    return Recovered(await cluster.process(), rebuild.report, findings)


def reseal(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let a shard say something else, with every checksum right."""
    data = file.read_bytes()
    blob, _, index = file.name.partition(".")
    group = file.parent
    name = ShardName(group.parent.name, int(group.name), bytes.fromhex(blob), int(index))
    _, footer = read_ends(name, len(data), lambda at, count: data[at : at + count])
    said = msgspec.msgpack.decode(footer.map_bytes)
    change(said)
    end = len(data) - FOOTER_TAIL_BYTES - len(footer.map_bytes)
    sealed = build_footer(name, msgspec.msgpack.encode(said), footer.payload_bytes)
    file.write_bytes(data[:end] + sealed)


def shards_of(paths: Iterable[str], blob: bytes) -> list[Path]:
    """The shard files of a blob by their index."""
    found = [file for path in paths for file in (Path(path) / "data").rglob(f"{blob.hex()}.*")]
    return sorted(found, key=lambda file: int(file.suffix[1:]))
