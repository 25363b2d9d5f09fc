"""What must hold of a simulated store, looked at from outside: its records and its disks.

During the faults: nothing held lacks a reference, whatever is held decodes from whole shards that
are somewhere, and the counters are the truth. At the end: the ledger says healed, every blob is at
home with all its shards, and nothing else is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from nodes.check import check_bytes
from nodes.protocol import ShardName
from s3gw.cluster.topology import Topology
from s3gw.metadata.records import BlobRef
from s3gw.metadata.store import Store
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.nodes import SimulatedNode
from tests.stores.audit import Audit
from tests.stores.memory_store import MemoryCluster, Process


@dataclass
class Look:
    """One look at everything. `places` has the nodes with a whole copy of each shard."""

    audit: Audit
    topology: Topology
    places: dict[ShardName, list[str]]

    def good(self, ref: BlobRef) -> dict[int, list[str]]:
        """The indexes of which a whole copy is where the records say that it may be, with the
        nodes."""
        scheme, nodes, group = self.topology.location(ref)
        found = {}
        for index in range(scheme.width):
            known = {nodes[index]}
            if not ref.nodes:
                known.update(group.record.slots[index].holders_before)
            name = ShardName(ref.profile, group.number, ref.blob, index)
            if there := [node for node in self.places.get(name, ()) if node in known]:
                found[index] = there
        return found

    def check(self) -> None:
        """What holds at every moment."""
        references = self.audit.references()
        for key, ref in self.audit.held().items():
            assert key in references, f"no reference {key!r}"
            assert references[key].dropped_due_ms == 0, f"dropped, but held: {key!r}"
            scheme, _, _ = self.topology.location(ref)
            good = self.good(ref)
            assert scheme.decodable(good), f"blob {ref.blob.hex()} has only shards {sorted(good)}"
        self.audit.check_counts()
        self.audit.check_usage()
        self.audit.check_versions()
        self.audit.check_fences()

    def check_at_rest(self) -> None:
        """What holds when all has healed and all garbage is gone."""
        self.check()
        self.audit.check_at_rest()
        for ref in self.audit.held().values():
            assert not ref.nodes, f"blob {ref.blob.hex()} is not at home"
            self.audit.check_whole(ref)


async def look(etcd: SimulatedEtcd, nodes: Mapping[str, SimulatedNode], store: Store) -> Look:
    """Look, past the network."""
    topology = Topology(etcd.engine)
    await topology.load()
    drives: dict[str, Any] = {}
    places: defaultdict[ShardName, list[str]] = defaultdict(list)
    for node in nodes.values():
        shards = {name: bytes(file.seen) for name, file in node.disk.shard_files().items()}
        drives[node.name] = SimpleNamespace(shards=shards)
        for name, data in shards.items():
            if check_bytes(name, data).whole:
                places[name].append(node.name)
    cluster = cast(MemoryCluster, SimpleNamespace(engine=etcd.store, drives=drives))
    process = SimpleNamespace(topology=topology, storage=SimpleNamespace(store=store))
    return Look(Audit(cluster, cast(Process, process)), topology, dict(places))
